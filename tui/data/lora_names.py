"""What the LoRAs of a project and of its samples are called, and where those are that can be sampled with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hv15.config.sample_columns import NO_LORA
from hv15.records.found_runs import trained_experiments
from hv15.records.paths import ProjectPaths, average_of
from tui.data.samples import Sample

THIS_LORA = "this LoRA"
_KEPT = re.compile(r"lora-step(\d+)")
_AVERAGED = ", averaged"


@dataclass(frozen=True)
class NamedLoRA:
    """A LoRA that can be sampled with."""

    name: str
    path: Path | None
    """From the project folder; None: without one."""


def name_of_loras(sample: Sample, root: Path) -> str:
    """Return which LoRAs a sample was made with, at which strengths: `this LoRA`, `rank-8 at 0.5 + style`."""
    settings, parts = sample.settings, []
    is_known = bool(settings.prompt)
    if sample.kind not in ("base", "again") and (settings.lora_multiplier is not None or not is_known):
        name = sample.experiment or THIS_LORA
        parts.append(_with_strength(name, 1.0 if settings.lora_multiplier is None else settings.lora_multiplier))
    parts += [_with_strength(name_of_lora(Path(each.path), root), each.multiplier) for each in settings.loras]
    return " + ".join(parts) or NO_LORA


def name_of_lora(path: Path, root: Path) -> str:
    """Return what a LoRA file is called: by its place in the project, or by its name if it is none of the project's."""
    try:
        inside = (path if path.is_absolute() else root / path).relative_to(root)
    except ValueError:
        return path.stem
    whole = inside.with_name(Path(inside.stem).stem + inside.suffix)
    is_average = whole != inside and average_of(whole) == inside
    whole, averaged = (whole, _AVERAGED) if is_average else (inside, "")
    paths = ProjectPaths()
    if whole in (paths.lora, paths.trained):
        return THIS_LORA + averaged
    folder = whole.parent
    if folder.parent == paths.all_checkpoints and folder.name.isdecimal():
        return f"step {int(folder.name):,}{averaged}"
    if folder == paths.checkpoints and (kept := _KEPT.fullmatch(whole.stem)):
        return f"step {int(kept[1]):,}{averaged}"
    if folder.parent == paths.results and whole.name in (paths.lora.name, paths.trained.name):
        return folder.name + averaged
    return path.stem


def loras_of_project(root: Path) -> list[NamedLoRA]:
    """Return the LoRAs of a project that are there, with none first; those of experiments last."""
    return [NamedLoRA(NO_LORA, None), *_existing(root)]


def _existing(root: Path) -> Iterator[NamedLoRA]:
    own = ProjectPaths(root)
    seen: set[str] = set()
    kept = sorted(own.checkpoints.glob("lora-step*.safetensors"))
    sampled = [own.checkpoint_lora(step) for step in own.sampled_checkpoints()]
    experiments = [file for each in trained_experiments(root) for file in (each.lora, each.trained)]
    finished = [own.lora, own.trained, average_of(own.lora), average_of(own.trained)]
    for file in (*finished, *sampled, *kept, *experiments):
        name = name_of_lora(file, root)
        if name not in seen and file.is_file():
            seen.add(name)
            yield NamedLoRA(name, file.relative_to(root))


def _with_strength(name: str, strength: float) -> str:
    return name if strength == 1 else f"{name} at {strength:g}"
