"""Where the bundled weights lie."""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def coarse_dir() -> Path:
    """The directory of the open_clip model, for `local-dir:…`."""
    return _WEIGHTS / "coarse"


def scorer_dir() -> Path:
    """The directory of the Qwen2.5-VL model, for `from_pretrained`."""
    return _WEIGHTS / "scorer"
