"""The demo's model files: their names, and copying them into a project. Does not need torch, as planning uses it."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.choices import EnlargedResolution
from hv15.errors import UserError

DEMO_VERSION = "3"
"""The version of the demo's models; changing it makes everything that depends on them stale."""

BASE = Path(__file__).parent / "base"
"""The models in the installed package."""

DEMO_FILES = {
    "dit": "demo/dit.safetensors",
    "vae": "demo/vae.safetensors",
    "text_encoder": "demo/qwen.safetensors",
    "tokenizer": "demo/tokenizer",
    "glyph_encoder": "demo/byt5.safetensors",
    "image_encoder": "demo/siglip.safetensors",
    "sr_dit": "demo/sr_dit.safetensors",
    "upsampler": "demo/upsampler.safetensors",
}
"""Role -> file or folder, relative to the models directory."""

ENLARGES_TO: EnlargedResolution = "720p"
"""The kind of the models of super resolution, which enlarge by half: 64x64 pixels to 96x96."""

DEMO_OUTPUTS = (
    *(name for role, name in DEMO_FILES.items() if role != "tokenizer"),
    *(f"{DEMO_FILES['tokenizer']}/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
)
"""Every file of the demo's models."""


def demo_is_copied(directory: Path, base: Path = BASE) -> bool:
    """Whether a models directory holds exact copies of the demo's models of this hv15."""
    try:
        return all(
            filecmp.cmp(base / Path(name).relative_to("demo"), directory / name, shallow=False) for name in DEMO_OUTPUTS
        )
    except OSError:
        return False


def copy_base(directory: Path, base: Path = BASE) -> dict[str, Path]:
    """Copy the demo's trained models into a models directory; return the path of each role.

    Args:
        directory: a project's models/.
        base: the folder with the models, as written by `snakemake demo/base`.

    Raises:
        UserError: a model is missing, or the directory cannot be written.
    """
    for name in DEMO_OUTPUTS:
        source = base / Path(name).relative_to("demo")
        if not source.exists():
            raise UserError.at(source, "this demo model is missing", hint="install hv15 again with pip")
        with atomic_path(directory / name) as temporary:
            shutil.copyfile(source, temporary)
    return {role: directory / name for role, name in DEMO_FILES.items()}
