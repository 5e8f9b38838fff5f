"""The samples of a project by prompt and step: final ones, of checkpoints, previews, of experiments, made again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hv15.config.sample_columns import column_name, row_name
from hv15.data.media import MediaKind
from hv15.errors import UserError
from hv15.records.fields import from_json
from hv15.records.found_runs import runs_with_samples
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.metadata import MADE_FROM, SAMPLE
from hv15.records.outputs import ENLARGED_SUFFIX, enlarged
from hv15.records.paths import ProjectPaths
from hv15.sample.prompts import LOW
from tui.data.clips import DecodedClip, load_clip, still
from tui.data.sample_standing import SHEETS, SampleStanding, StandingReader

__all__ = ["DecodedClip", "Sample", "SamplesReader", "ShownSettings", "UsedFile", "load_clip", "still"]

Kind = Literal["final", "preview", "checkpoint", "base", "enlarged", "again"]
_Place = Literal["samples", "previews", "again"] | int
"""The folder of a sample: that of samples, of previews, of those made again, or of the LoRA after a step."""

_STEP = re.compile(r"(?P<name>.*?)[-_.]?step[-_]?(?P<step>\d+)", re.IGNORECASE)
_BASE = ".base"
_OF_COMMAND = re.compile(r"-seed\d+-[0-9a-f]{8}$")
"""What `hv15 sample` appends to the words of a prompt."""
VIDEOS, IMAGES = (".mp4", ".webm", ".mkv", ".gif"), (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class UsedFile:
    """A LoRA or an image that a sample was made with."""

    path: str
    """As the sample records it: absolute, or from the project folder."""
    multiplier: float = 1.0


@dataclass(frozen=True)
class ShownSettings:
    """The settings of a sample that are shown, or that another one is made with."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    flow_shift: float | None = None
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    fps: float | None = None
    lora_multiplier: float | None = None
    """The strength of the trained LoRA."""
    image: UsedFile | None = None
    """The first frame."""
    loras: tuple[UsedFile, ...] = ()
    """Those besides the trained one."""


@dataclass(frozen=True)
class Sample:
    """One video, image or folder of images that was sampled."""

    name: str
    """Of its file, without the suffix."""
    prompt_name: str
    """Of the prompt in the config."""
    step: int | None
    """After so many steps of training; None for the finished LoRA."""
    kind: Kind
    """`checkpoint`: with a LoRA that the training has kept, as the final ones are made; `base`: without the LoRA;
    `enlarged`: what super resolution has made of the final one; `again`: asked for by hand, with other settings."""
    experiment: str
    """"" for the project itself."""
    path: Path
    media: MediaKind
    size: int
    """Bytes of the file, or of the folder's own entry."""
    mtime: float
    settings: ShownSettings = ShownSettings()
    """The settings that the file records."""
    trained: str | None = None
    """Digest of the training whose LoRA made it, as the file records it; None: without one, or unknown."""
    ema_decay: float | None = None
    """Of the moving average of the LoRA, if that made it."""
    standing: SampleStanding = SampleStanding.CURRENT
    """Whether the project is still what the sample was made from."""

    @property
    def column(self) -> str:
        """Which strength or LoRA it shows, if they are compared: `x0.5`, `with-style`."""
        return column_name(self.name) if self.kind in ("final", "checkpoint") else ""

    @property
    def is_sheet(self) -> bool:
        """Whether it is no sample of its own, but shows others side by side."""
        return self.kind == "final" and self.name in SHEETS and not self.settings.prompt


class SamplesReader:
    """All samples of a project; a file is read only when it has changed.

    Args:
        config: the config file whose prompts count; its folder is the project.
    """

    def __init__(self, config: Path) -> None:
        self.root = config.parent
        self.samples: tuple[Sample, ...] = ()
        self.error = ""
        self._known: dict[tuple[Path, float, int], Sample] = {}
        self._standings = StandingReader(config)

    def refresh(self) -> bool:
        """Look for samples; return whether anything changed."""
        found: dict[tuple[Path, float, int], Sample] = {}
        otherwise = self._standings.refresh()
        self.error = ""
        for path, paths, place in self._files():
            try:
                status = path.stat()
            except OSError as error:
                self.error = f"{path}: cannot be read: {error.strerror}"
                continue
            stamp = (path, status.st_mtime, status.st_size)
            found[stamp] = self._known.get(stamp) or _sample(path, paths.run, place, status)
        changed = otherwise or found.keys() != self._known.keys()
        self._known = found
        if changed:
            self.samples = tuple(sorted(map(self._placed, found.values()), key=_order))
        return changed

    @property
    def asked(self) -> dict[str, bool]:
        """The prompts and seeds that the config asks for -> whether also without the LoRA."""
        names = self._standings.asked
        rows = (row_name(name) for name in names if not name.endswith((_BASE, ENLARGED_SUFFIX)))
        return {name: name + _BASE in names for name in rows}

    @property
    def trains(self) -> bool:
        """Whether the project trains a LoRA."""
        return self._standings.trains

    @property
    def enlarged(self) -> frozenset[str]:
        """The prompts and seeds that the config also asks to be made larger."""
        names = self._standings.asked
        return frozenset(row_name(name) for name in names if enlarged(name) in names)

    def _placed(self, sample: Sample) -> Sample:
        if sample.kind == "again":
            text = sample.settings.prompt
            named = (name for name, prompt in self._standings.asked.items() if prompt == text)
            return replace(sample, prompt_name=next(named, _OF_COMMAND.sub("", sample.name)))
        name = _of_preview(sample.name) if sample.kind == "preview" else sample.name
        step = sample.step if sample.kind == "checkpoint" else None
        standing = self._standings.of(sample.experiment, name, sample.settings.prompt, sample.trained, step)
        return replace(sample, standing=standing)

    def _files(self) -> Iterator[tuple[Path, ProjectPaths, _Place]]:
        """Yield (path, of which experiment, where it is)."""
        for paths in runs_with_samples(self.root):
            yield from ((path, paths, "samples") for path in _media_in(paths.samples))
            yield from ((path, paths, "previews") for path in _media_in(paths.previews))
            yield from ((path, paths, "again") for path in _media_in(paths.again))
            for step, folder in paths.sampled_checkpoints().items():
                yield from ((path, paths, step) for path in _media_in(folder))


def _media_in(folder: Path) -> list[Path]:
    """The finished media of a folder and of the folders in it (previews may have one for each step)."""
    found: list[Path] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return found
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = entry.name.lower()
        if name.endswith((*VIDEOS, *IMAGES)) or (name.endswith(".frames") and entry.is_dir()):
            found.append(Path(entry.path))
        elif entry.is_dir() and _STEP.fullmatch(entry.name):
            found += _media_in(Path(entry.path))
    return found


def _sample(path: Path, experiment: str, place: _Place, status: os.stat_result) -> Sample:
    name = path.name.removesuffix(".frames") if path.suffix == ".frames" else path.stem
    match = _STEP.fullmatch(name) or _STEP.fullmatch(f"{name}-{path.parent.name}")
    settings, trained, ema_decay = _recorded_settings(path)
    preview = place == "previews"
    step = int(match["step"]) if match and preview else place if isinstance(place, int) else None
    media: MediaKind = "frames" if path.suffix == ".frames" else "video" if path.suffix.lower() in VIDEOS else "image"
    return Sample(
        name=name,
        prompt_name=row_name(_plain(match["name"] if match and preview else name)) or name,
        step=step,
        kind=_kind(name, place),
        experiment=experiment,
        path=path,
        media=media,
        size=status.st_size,
        mtime=status.st_mtime,
        settings=settings,
        trained=trained,
        ema_decay=ema_decay,
    )


def _plain(name: str) -> str:
    """The name of a sample without what says that it is without the LoRA, or larger."""
    return name.removesuffix(_BASE).removesuffix(ENLARGED_SUFFIX)


def cell_name(name: str) -> str:
    """Return by which name a sample is asked for in its cell, which samples of all strengths share."""
    return enlarged(row_name(_plain(name))) if name.endswith(ENLARGED_SUFFIX) else row_name(name)


def _of_preview(name: str) -> str:
    """The name of the sample of which a file is a preview."""
    match = _STEP.fullmatch(name)
    return (match["name"] if match else name).removesuffix(_BASE)


def _kind(name: str, place: _Place) -> Kind:
    if place == "previews":
        return "preview"
    if place == "again":
        return "again"
    if place != "samples":
        return "checkpoint"
    return "base" if name.endswith(_BASE) else "enlarged" if name.endswith(ENLARGED_SUFFIX) else "final"


def _recorded_settings(path: Path) -> tuple[ShownSettings, str | None, float | None]:
    """The settings, the training and the decay that a sample records; empty if it records none or is damaged."""
    from hv15.project.metadata import product_metadata

    try:
        metadata = product_metadata(path)
    except (OSError, UserError):
        return ShownSettings(), None, None
    try:
        settings = from_json(ShownSettings, parse_object(metadata[SAMPLE]))
    except (KeyError, RecordError):
        settings = ShownSettings()
    try:
        return settings, *_lora_of(parse_object(metadata[MADE_FROM]))
    except (KeyError, RecordError):
        return settings, None, None


def _lora_of(made_from: JsonObject) -> tuple[str | None, float | None]:
    """The digest of a sample's training, and the decay of the moving average that made it."""
    latents = made_from.get("latents")
    if isinstance(latents, dict) and isinstance(latents.get(LOW), dict):
        latents = latents[LOW]  # of an enlarged one, the small sample's
    if not isinstance(latents, dict):
        return None, None
    trained, decay = latents.get("trained"), latents.get("ema_decay")
    return trained if isinstance(trained, str) else None, decay if isinstance(decay, float) else None


def _order(sample: Sample) -> tuple[str, str, int, float, str]:
    place = -1.0 if sample.kind == "base" else float("inf") if sample.step is None else float(sample.step)
    rank = {"base": 0, "enlarged": 2, "again": 3}.get(sample.kind, 1)
    return sample.prompt_name, sample.experiment, rank, place, sample.name
