"""What a prepared dataset holds, as its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medclip.data.dataset import Split


def prepared_rows(data: Path) -> list[dict[str, Any]]:
    """The rows of every split that has any."""
    splits = json.loads((data / "dataset.json").read_text())["splits"]
    return [row for name, split in splits.items() if split["pairs"] for row in Split(data, name).table.to_pylist()]


def dropped_rows(data: Path) -> list[dict[str, Any]]:
    """The rows that were dropped, with their reasons."""
    return [json.loads(line) for line in (data / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
