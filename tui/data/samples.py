"""The samples of a project by prompt and step: final videos, previews of the training, those of experiments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hv15.errors import UserError
from hv15.records.json_values import JsonObject, RecordError, parse_object, text_of
from hv15.records.metadata import SAMPLE
from tui.data.clips import Clip, load_clip, still

__all__ = ["Clip", "Sample", "SamplesReader", "load_clip", "still"]

Media = Literal["video", "image", "frames"]

_STEP = re.compile(r"(?P<name>.*?)[-_.]?step[-_]?(?P<step>\d+)", re.IGNORECASE)
_BASE = ".base"
VIDEOS, IMAGES = (".mp4", ".webm", ".mkv", ".gif"), (".png", ".jpg", ".jpeg", ".webp")
PREVIEWS = ("train/previews", "train/samples", "previews")


@dataclass(frozen=True)
class Sample:
    """One video, image or folder of images that was sampled."""

    name: str
    """Of its file, without ending."""
    prompt_name: str
    """Of the prompt in the config."""
    step: int | None
    """After so many steps of training; None for the finished LoRA."""
    kind: Literal["final", "preview", "base"]
    """`base`: without the LoRA, for comparison."""
    experiment: str
    """"" for the project itself."""
    path: Path
    media: Media
    size: int
    """Bytes; of a folder its own."""
    mtime: float
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    settings: JsonObject = field(hash=False, compare=False, default_factory=dict)
    """What was asked for, as the file tells."""

    @property
    def title(self) -> str:
        """What tells it from the others of its prompt."""
        when = "base model" if self.kind == "base" else "final" if self.step is None else f"step {self.step}"
        return f"{self.experiment} {when}".strip()


class SamplesReader:
    """All samples of a project; a file is looked into only when it has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples: tuple[Sample, ...] = ()
        self.error = ""
        self._known: dict[tuple[Path, float, int], Sample] = {}

    def refresh(self) -> bool:
        """Look for samples; tell whether there are others than before."""
        found: dict[tuple[Path, float, int], Sample] = {}
        self.error = ""
        for path, experiment, preview in self._files():
            try:
                status = path.stat()
            except OSError as error:
                self.error = f"{path}: cannot be read: {error.strerror}"
                continue
            stamp = (path, status.st_mtime, status.st_size)
            found[stamp] = self._known.get(stamp) or _sample(path, experiment, preview, status)
        changed = found.keys() != self._known.keys()
        self._known = found
        if changed:
            self.samples = tuple(sorted(found.values(), key=_order))
        return changed

    def by_prompt(self) -> dict[str, tuple[Sample, ...]]:
        """The samples of each prompt: the base model's first, then by step, the final ones last."""
        groups: dict[str, list[Sample]] = {}
        for sample in self.samples:
            groups.setdefault(sample.prompt_name, []).append(sample)
        return {name: tuple(group) for name, group in groups.items()}

    def _files(self) -> Iterator[tuple[Path, str, bool]]:
        """Yield (path, experiment, is it a preview)."""
        for base in (self.root / "results", *self._experiments()):
            experiment = "" if base.name == "results" and base.parent == self.root else base.name
            yield from ((path, experiment, False) for path in _media_in(base / "samples"))
            for folder in PREVIEWS:
                yield from ((path, experiment, True) for path in _media_in(base / folder))

    def _experiments(self) -> list[Path]:
        try:
            folders = [entry for entry in os.scandir(self.root / "results") if entry.is_dir()]
        except OSError:
            return []
        own = {"samples", "train", "logs", "benchmarks", "previews"}
        return sorted(Path(entry.path) for entry in folders if entry.name not in own and entry.name[:1] != ".")


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


def _sample(path: Path, experiment: str, preview: bool, status: os.stat_result) -> Sample:
    name = path.name.removesuffix(".frames") if path.suffix == ".frames" else path.stem
    match = _STEP.fullmatch(name) or _STEP.fullmatch(f"{name}-{path.parent.name}")
    step = int(match["step"]) if match and preview else None
    prompt_name = (match["name"] if match and preview else name).removesuffix(_BASE) or name
    settings = _settings(path)
    media: Media = "frames" if path.suffix == ".frames" else "video" if path.suffix.lower() in VIDEOS else "image"
    seed = settings.get("seed")
    return Sample(
        name=name,
        prompt_name=prompt_name,
        step=step,
        kind="preview" if preview else "base" if name.endswith(_BASE) else "final",
        experiment=experiment,
        path=path,
        media=media,
        size=status.st_size,
        mtime=status.st_mtime,
        prompt=text_of(settings, "prompt"),
        negative_prompt=text_of(settings, "negative_prompt"),
        seed=seed if isinstance(seed, int) else None,
        settings=settings,
    )


def _settings(path: Path) -> JsonObject:
    """What a sample tells of itself; nothing if it does not, or is damaged."""
    from hv15.workflow.told import read_metadata

    try:
        return parse_object(read_metadata(path)[SAMPLE])
    except (KeyError, OSError, RecordError, UserError):
        return {}


def _order(sample: Sample) -> tuple[str, str, int, float, str]:
    place = -1.0 if sample.kind == "base" else float("inf") if sample.step is None else float(sample.step)
    return sample.prompt_name, sample.experiment, 0 if sample.kind == "base" else 1, place, sample.name
