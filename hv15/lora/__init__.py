"""LoRA for HunyuanVideo 1.5: training it, applying and merging it, and every layout of its files.

The public names are resolved on first use, so that `import hv15.lora` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "LoRANetwork": "network",
    "apply_lora": "apply",
    "convert": "conversion",
    "convert_file": "files",
    "detect_layout": "kinds",
    "kohya_metadata": "files",
    "merge_lora": "merging",
    "merge_patch": "merging",
    "read_lora": "files",
    "save_lora": "files",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
