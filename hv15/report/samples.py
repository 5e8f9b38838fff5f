"""The samples of a project as they are shown on a page: for each prompt without and with the LoRA, and larger."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hv15.data.survey import counted
from hv15.pages.inlined import Inliner, data_url
from hv15.project.grids import row_titles
from hv15.project.products import shown_samples
from hv15.records.outputs import output_of
from hv15.records.paths import ProjectPaths
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec
from hv15.units import TIMES

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST_STILL = 640
"""Pixels of the picture that stands for a video until it is played, or where it is printed."""
_QUALITY = 80


@dataclass(frozen=True)
class ShownMedium:
    """One sample."""

    label: str
    kind: Literal["video", "picture"]
    url: str
    """The file itself as a data URL, or a link to it."""
    still: str
    """A small picture of it, as a data URL; "" for what is a picture itself."""
    width: int
    height: int
    """Width and height in pixels."""


@dataclass(frozen=True)
class ShownPrompt:
    """One prompt with its samples from the same noise, from left to right."""

    name: str
    title: str
    settings: str
    """Of its samples, in words."""
    media: tuple[ShownMedium, ...]


def shown_prompts(
    samples: Mapping[str, SampleSpec],
    paths: ProjectPaths,
    inliner: Inliner,
    enlarged: Mapping[str, SampleSpec] | None = None,
) -> list[ShownPrompt]:
    """Return the prompts whose samples can be looked at.

    Args:
        samples: by name.
        enlarged: what super resolution has made of some of them, by the same names.

    Raises:
        UserError: a sample is damaged.
        OSError: one is missing.
    """
    enlarged = enlarged or {}
    files, titles, larger = shown_samples(samples, paths), row_titles(samples), shown_samples(enlarged, paths)
    trains = any(spec.lora_multiplier is not None for spec in samples.values())
    found = []
    for name, file in files.items():
        if name.endswith(BASE_SUFFIX) and name.removesuffix(BASE_SUFFIX) in files:
            continue
        spec, without = samples[name], files.get(name + BASE_SUFFIX)
        media = [] if without is None else [_medium("without the LoRA", without, spec, inliner)]
        label = "" if not trains or spec.lora_multiplier is None else _with(spec.lora_multiplier)
        media.append(_medium(label, file, spec, inliner))
        if name in larger:
            large = enlarged[name]
            size = f"{large.width} {TIMES} {large.height} by super resolution"
            media.append(_medium(size, larger[name], large, inliner))
        found.append(ShownPrompt(name, titles[name], settings_in_words(spec), tuple(media)))
    return found


def settings_in_words(spec: SampleSpec) -> str:
    """Return how a sample was made, in one line."""
    size = f"{counted(spec.frames, 'frame')} of {spec.width} {TIMES} {spec.height} pixels"
    words = [size, counted(spec.steps, "step"), f"guidance {spec.guidance_scale:g}", f"shift {spec.flow_shift:g}"]
    return ", ".join([*words, f"seed {spec.seed}"])


def _with(strength: float) -> str:
    return "with the LoRA" if strength == 1 else f"with the LoRA at {strength:g}"


def _medium(label: str, file: Path, spec: SampleSpec, inliner: Inliner) -> ShownMedium:
    output = output_of(file)
    if output is not None and output.is_folder:  # images: a few of them side by side
        from hv15.sample.contact_sheet import read_few, strip

        drawn = strip(read_few(file))
        return ShownMedium(label, "picture", _picture(drawn), "", drawn.width, drawn.height)
    kind: Literal["video", "picture"] = "video" if file.suffix == ".mp4" else "picture"
    still = _still(file) if kind == "video" else ""
    return ShownMedium(label, kind, inliner.url(file), still, spec.width, spec.height)


def _still(video: Path) -> str:
    """Return a frame from the middle of a video, as a data URL."""
    from PIL.Image import fromarray

    from hv15.data.decode import VideoReader
    from hv15.data.pixels import Fitter
    from hv15.data.probe import probe

    info = probe(video, "video")
    with VideoReader(info, Fitter(None)) as reader:
        return _picture(fromarray(reader.pixels(len(info.timeline.times) // 2)))


def _picture(image: Image) -> str:
    image.thumbnail((WIDEST_STILL, WIDEST_STILL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return data_url(buffer.getvalue(), ".jpg")
