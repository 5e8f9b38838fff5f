"""The published checkpoints and the sampling defaults that each was made for.

Their tensors have the same names and shapes, so only a config.json or the path can tell one from another.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Task = Literal["t2v", "i2v"]


@dataclass(frozen=True)
class Variant:
    """One checkpoint, as its subfolder of transformer/ is called, and the official program's defaults for it."""

    name: str
    task: Task
    resolution: int
    """480 or 720: the class of sizes that it was trained for."""
    guidance_scale: float
    """1 for distilled checkpoints: one pass, no negative prompt."""
    flow_shift: float
    infer_steps: int
    note: str = ""

    @property
    def distilled(self) -> bool:
        return "distilled" in self.name

    @property
    def sparse(self) -> bool:
        """Distilled for block-sparse attention; runs here with dense attention."""
        return self.name.endswith("_sparse")


_DISTILLED_NOTE = "CFG-distilled: it needs all 50 steps"
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("480p_t2v", "t2v", 480, 6.0, 5.0, 50),
        Variant("480p_i2v", "i2v", 480, 6.0, 5.0, 50),
        Variant("720p_t2v", "t2v", 720, 6.0, 9.0, 50),
        Variant("720p_i2v", "i2v", 720, 6.0, 7.0, 50),
        Variant("480p_t2v_distilled", "t2v", 480, 1.0, 5.0, 50, _DISTILLED_NOTE),
        Variant("480p_i2v_distilled", "i2v", 480, 1.0, 5.0, 50, _DISTILLED_NOTE),
        Variant("720p_t2v_distilled", "t2v", 720, 1.0, 9.0, 50, _DISTILLED_NOTE),
        Variant("720p_i2v_distilled", "i2v", 720, 1.0, 7.0, 50, _DISTILLED_NOTE),
        Variant("720p_t2v_distilled_sparse", "t2v", 720, 1.0, 9.0, 50, _DISTILLED_NOTE),
        Variant("720p_i2v_distilled_sparse", "i2v", 720, 1.0, 7.0, 50, _DISTILLED_NOTE),
        Variant("480p_i2v_step_distilled", "i2v", 480, 1.0, 7.0, 12, "8 or 12 steps; 4 are faster and look worse"),
    )
}

_BASE = re.compile(r"(?<!\d)(480|720)p[-_ ](t2v|i2v)")
_DIFFUSERS_RESOLUTION = {640: 480, 960: 720}  # target_size of a diffusers config: pixels of a square's side


def detect_variant(path: Path | str) -> str | None:
    """The variant that a checkpoint's path and config.json tell; None if they do not.

    Resolution and task come from config.json where it has them (official `ideal_resolution` and `ideal_task`, diffusers
    `target_size` and `task_type`), else from the last part of the path that names them; the kind of distillation comes
    from the path.
    """
    path = Path(path)
    base, kind = _from_config(path), ""
    for part in reversed(path.parts):
        if match := _BASE.search(part.lower()):
            base = base or f"{match[1]}p_{match[2]}"
            kind = _distillation(part.lower())
            break
    name = f"{base}{kind}"
    return name if name in VARIANTS else None


def _distillation(part: str) -> str:
    if re.search(r"step[-_ ]?distil", part):
        return "_step_distilled"
    if "sparse" in part:
        return "_distilled_sparse"
    return "_distilled" if "distil" in part else ""


def _from_config(path: Path) -> str | None:
    try:
        file = (path if path.is_dir() else path.parent) / "config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        resolution = str(config.get("ideal_resolution") or _DIFFUSERS_RESOLUTION.get(config.get("target_size") or 0))
        task = str(config.get("ideal_task") or config.get("task_type"))
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # a variant is a help, so an odd config.json is no error here; loading the model reports it
    match = _BASE.fullmatch(f"{resolution.lower().removesuffix('p')}p_{task.lower()}")
    return match[0] if match else None
