"""The founding project's name for the config of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HybridCLIPConfig:
    """`config.json` of a FlaxHybridCLIP: `text_config`, `vision_config` (mappings) and `projection_dim`."""

    model_type = "hybrid-clip"

    def __init__(self, projection_dim: int = 512, **kwargs: Any):
        """Set every argument as an attribute. Raises ValueError without `text_config` and `vision_config`."""
        if "text_config" not in kwargs or "vision_config" not in kwargs:
            raise ValueError("`text_config` and `vision_config` can not be `None`.")
        self.projection_dim = projection_dim
        vars(self).update(kwargs)

    @classmethod
    def from_text_vision_configs(
        cls, text_config: Mapping[str, Any], vision_config: Mapping[str, Any], **kwargs: Any
    ) -> HybridCLIPConfig:
        """The config of a pair of towers."""
        return cls(text_config=dict(text_config), vision_config=dict(vision_config), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {**vars(self), "model_type": self.model_type}
