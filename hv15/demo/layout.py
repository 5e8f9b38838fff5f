"""The demo's model files: their names, and how they come into a project. Needs no torch: the workflow plans with it."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.errors import UserError

DEMO_VERSION = "3"
"""Of the demo's models: a change of them makes everything that depends on them new."""

BASE = Path(__file__).parent / "base"
"""The models as hv15 brings them."""

DEMO_FILES = {
    "dit": "demo/dit.safetensors",
    "vae": "demo/vae.safetensors",
    "text_encoder": "demo/qwen.safetensors",
    "tokenizer": "demo/tokenizer",
    "glyph_encoder": "demo/byt5.safetensors",
    "image_encoder": "demo/siglip.safetensors",
}
"""Role -> file or folder, from the models directory."""

DEMO_OUTPUTS = (
    *(name for role, name in DEMO_FILES.items() if role != "tokenizer"),
    *(f"{DEMO_FILES['tokenizer']}/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
)
"""Every file of the demo's models."""


def demo_is_copied(directory: Path, base: Path = BASE) -> bool:
    """Whether a models directory holds the demo's models as this hv15 brings them, byte for byte."""
    try:
        return all(
            filecmp.cmp(base / Path(name).relative_to("demo"), directory / name, shallow=False) for name in DEMO_OUTPUTS
        )
    except OSError:
        return False


def copy_base(directory: Path, base: Path = BASE) -> dict[str, Path]:
    """Copy the demo's trained models into a models directory; return the path of each role.

    Args:
        directory: models/ of a project.
        base: the folder with the models, as `snakemake demo/base` writes it.

    Raises:
        UserError: the base is not there, or the directory cannot be written.
    """
    for name in DEMO_OUTPUTS:
        source = base / Path(name).relative_to("demo")
        if not source.exists():
            raise UserError(f"{source}: this model of the demo is missing", hint="install hv15 again, by pip")
        with atomic_path(directory / name) as temporary:
            shutil.copyfile(source, temporary)
    return {role: directory / name for role, name in DEMO_FILES.items()}
