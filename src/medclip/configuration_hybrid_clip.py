"""The founding project's name for the config of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HybridCLIPConfig:
    """`config.json` of a FlaxHybridCLIP: `text_config`, `vision_config` (mappings) and `projection_dim`."""

    model_type = "hybrid-clip"

    def __init__(self, projection_dim: int = 512, **said: Any):
        """Hold what is said; ValueError without `text_config` and `vision_config`, as in 2021."""
        if "text_config" not in said or "vision_config" not in said:
            raise ValueError("`text_config` and `vision_config` can not be `None`.")
        self.projection_dim = projection_dim
        vars(self).update(said)

    @classmethod
    def from_text_vision_configs(
        cls, text_config: Mapping[str, Any], vision_config: Mapping[str, Any], **said: Any
    ) -> HybridCLIPConfig:
        """The config of both towers' configs."""
        return cls(text_config=dict(text_config), vision_config=dict(vision_config), **said)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` says."""
        return {**vars(self), "model_type": self.model_type}
