"""The networks of HunyuanVideo 1.5 and the reading of their checkpoints.

The public names are resolved on first use, so that `import hv15.models` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "DiT": "dit",
    "DiTConfig": "dit_config",
    "Condition": "condition",
    "load_dit": "dit_files",
    "save_dit": "dit_files",
    "VAE": "vae",
    "VAEConfig": "vae",
    "load_vae": "vae",
    "TextEncoder": "text",
    "load_text_encoder": "text",
    "load_glyph_encoder": "glyphs",
    "load_image_encoder": "vision",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
