"""The published checkpoints and the sampling defaults that each was made for.

Their tensors have the same names and shapes, so only a config.json or the path can distinguish them. The exception is
the step-distilled checkpoint, which has `time_r_in` tensors (see hv15.models.facts).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.choices import Task
from hv15.records.json_values import JsonObject, RecordError, parse_object

_BOUNDARY = 640 * 960  # pixels; between the areas of the official sizes, 640 x 640 and 960 x 960
_TYPICAL = {480: "480 x 848", 720: "720 x 1280"}


@dataclass(frozen=True)
class Variant:
    """One checkpoint and the official program's defaults for it; `name` is its subfolder of transformer/."""

    name: str
    task: Task
    resolution: int
    """480 or 720: the class of sizes that it was trained for."""
    guidance_scale: float
    """1 for distilled checkpoints: one pass, no negative prompt."""
    flow_shift: float
    infer_steps: int
    fitting_steps: tuple[int, ...] = ()
    """The only numbers of steps that it was distilled for; empty for any number (more is better, fewer is faster)."""
    note: str = ""
    published: bool = True
    """False if the official repository has announced it but not published it yet."""

    @property
    def distilled(self) -> bool:
        return "distilled" in self.name

    @property
    def step_distilled(self) -> bool:
        return self.name.endswith("_step_distilled")

    @property
    def sparse(self) -> bool:
        """Distilled for block-sparse attention; hv15 runs it with dense attention."""
        return self.name.endswith("_sparse")

    @property
    def base(self) -> str:
        """The name of the checkpoint that it was distilled from; its own for a base checkpoint."""
        return f"{self.resolution}p_{self.task}"

    @property
    def defaults(self) -> str:
        """The sampling defaults in words."""
        return f"guidance {self.guidance_scale:g}, shift {self.flow_shift:g}, {self.infer_steps} steps"

    def cure_for_size(self, height: int, width: int) -> str:
        """Return the advice for videos of this size in pixels if it is not of the class that the checkpoint is for."""
        other = f"{size_class(height, width)}p_{self.task}"
        return f"use {other}, or a size near {_TYPICAL[self.resolution]}"


def size_class(height: int, width: int) -> int:
    """Return the size class, 480 or 720, of a video by its area in pixels."""
    return 720 if height * width > _BOUNDARY else 480


def _base(name: str, task: Task, resolution: int, shift: float) -> Variant:
    return Variant(name, task, resolution, 6.0, shift, 50)


def _distilled(name: str, task: Task, resolution: int, shift: float, *, published: bool = True) -> Variant:
    note = "CFG-distilled: it needs all 50 steps"
    return Variant(name, task, resolution, 1.0, shift, 50, (50,), note, published)


_STEP_DISTILLED_NOTE = "8 or 12 steps; 4 are faster and look worse"
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        _base("480p_t2v", "t2v", 480, 5.0),
        _base("480p_i2v", "i2v", 480, 5.0),
        _base("720p_t2v", "t2v", 720, 9.0),
        _base("720p_i2v", "i2v", 720, 7.0),
        _distilled("480p_t2v_distilled", "t2v", 480, 5.0),
        _distilled("480p_i2v_distilled", "i2v", 480, 5.0),
        _distilled("720p_t2v_distilled", "t2v", 720, 9.0, published=False),
        _distilled("720p_i2v_distilled", "i2v", 720, 7.0),
        _distilled("720p_t2v_distilled_sparse", "t2v", 720, 9.0, published=False),
        _distilled("720p_i2v_distilled_sparse", "i2v", 720, 7.0),
        Variant("480p_i2v_step_distilled", "i2v", 480, 1.0, 7.0, 12, (8, 12), _STEP_DISTILLED_NOTE),
    )
}

Source = Literal["config.json", "path", "models.variant", "time_r_in", "default", "demo"]


@dataclass(frozen=True)
class FoundVariant:
    """The checkpoint that a file is taken to be, and how that was found."""

    name: str
    source: Source
    detail: str = ""
    """The part of the path that names it."""
    unknown: str = ""
    """Its name in the path or config.json if none of that name is published; `name` is then the most similar one."""

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.name]

    def __str__(self) -> str:
        how = {
            "config.json": "from config.json",
            "path": f"from its path: {self.detail}",
            "models.variant": "set by models.variant",
            "time_r_in": "from its time_r_in tensors",
            "default": "a guess",
            "demo": "the demo's toy",
        }
        return f"{self.name} ({how[self.source]})"


_NAMES = (
    re.compile(r"(?<!\d)(?P<resolution>480|720)p[-_ .](?P<task>t2v|i2v)(?![a-z0-9])"),
    re.compile(r"(?<![a-z0-9])(?P<task>t2v|i2v)[-_ .](?P<resolution>480|720)p(?![a-z0-9])"),
)
_STEP_DISTILLED = re.compile(r"step[-_ ]?distil|(?<![a-z0-9])\d{1,2}[-_ ]?steps?(?![a-z0-9])")
_DIFFUSERS_RESOLUTION = {640: 480, 960: 720}  # target_size of a diffusers config: pixels of a square's side


def detect_variant(path: Path | str) -> FoundVariant | None:
    """Find the variant of a checkpoint from its path and config.json; None if they do not name one.

    Resolution and task come from config.json if it has them (official `ideal_resolution` and `ideal_task`, diffusers
    `target_size` and `task_type`), else from the last part of the path that names them, in either order
    (hunyuanvideo1.5_720p_t2v_fp16, hy1.5_t2v_480p_4step). The kind of distillation comes from the path, or from
    `use_meanflow` in config.json, or from the guider's config in a diffusers repository.
    """
    path = Path(path)
    base, kind = _from_config(path)
    part = _part_with_name(path)
    if part is not None:
        named, name = part
        found = _published(base or named, _distillation(name.lower()) or kind)
        return FoundVariant(found[0], "config.json" if base else "path", name, found[1])
    if base is None:
        return None
    name, unknown = _published(base, kind)
    return FoundVariant(name, "config.json", unknown=unknown)


def _part_with_name(path: Path) -> tuple[str, str] | None:
    """Return the base name that the path or its link target contains, and the last part of it that does."""
    for place in dict.fromkeys((path, Path(path).resolve())):
        for part in reversed(place.parts):
            for pattern in _NAMES:
                if match := pattern.search(part.lower()):
                    return f"{match['resolution']}p_{match['task']}", part
    return None


def _published(base: str, kind: str) -> tuple[str, str]:
    """Return the published checkpoint of this base and kind and "", else the most similar one and the unknown name."""
    if base + kind in VARIANTS:
        return base + kind, ""
    return f"{base}_distilled", base + kind


def _distillation(part: str) -> str:
    if _STEP_DISTILLED.search(part):
        return "_step_distilled"
    if "sparse" in part:
        return "_distilled_sparse"
    return "_distilled" if "distil" in part else ""


def _from_config(path: Path) -> tuple[str | None, str]:
    """Return base name and kind of distillation from the folder's config.json and a diffusers repository's guider."""
    folder = path if path.is_dir() else path.parent
    config = _read(folder / "config.json")
    resolution = config.get("ideal_resolution") or _DIFFUSERS_RESOLUTION.get(_integer(config.get("target_size")))
    task = config.get("ideal_task") or config.get("task_type")
    match = _NAMES[0].fullmatch(f"{str(resolution).lower().removesuffix('p')}p_{str(task).lower()}")
    if match is None:
        return None, ""
    if config.get("use_meanflow") is True:
        return match[0], "_step_distilled"
    guider = _read(folder.parent / "guider" / "guider_config.json") if "task_type" in config else {}
    return match[0], "_distilled" if guider.get("guidance_scale") == 1 else ""


def _read(file: Path) -> JsonObject:
    """Read a JSON object, empty if that fails: a faulty config.json is reported when the model is loaded."""
    try:
        return parse_object(file.read_bytes())
    except (OSError, RecordError):
        return {}


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
