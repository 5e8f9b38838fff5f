"""The base model of all sections of the config, and the value types that several sections use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.config import JsonDict, JsonValue
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from hv15.grid import FRAMES_PER_CELL, PIXELS_PER_CELL, encodable_frames, encodable_side
from hv15.remote_paths import check_remote, is_remote

AFFECTS = "affects"
"""The entry of a field's extra properties that holds its mark."""


class Affects(StrEnum):
    """What a setting is marked to affect; each mark is explained below.

    What an edit does to a training follows from the mark: `hv15.config.after_edit` says it in words.
    """

    PAST = "past"
    NETWORK = "network"
    SPEED = "speed"
    WATCHING = "watching"
    MEASURING = "measuring"
    PLACE = "place"
    STEP = "step"
    FUTURE = "future"
    LENGTH = "length"
    ORIGIN = "origin"
    PUBLISHING = "publishing"
    SAMPLING = "sampling"
    APART = "apart"
    CAPTION = "caption"
    WEIGHT = "weight"


PAST: JsonDict = {AFFECTS: Affects.PAST}
"""Marks a setting on which the finished steps of a training depend: after an edit, it is another training."""

NETWORK: JsonDict = {AFFECTS: Affects.NETWORK}
"""Marks such a setting without which the weights of a training do not fit: it cannot go on with another value."""

SPEED: JsonDict = {AFFECTS: Affects.SPEED}
"""Marks a setting that affects only memory or speed: `Field(json_schema_extra=SPEED)`. It is not in any digest."""

WATCHING: JsonDict = {AFFECTS: Affects.WATCHING}
"""Marks a setting of what is seen and kept of a training while it runs, or where. It is not in any digest, and the LoRA
does not tell it, so the LoRA's file is the same whatever it is."""

MEASURING: JsonDict = {AFFECTS: Affects.MEASURING}
"""Marks a setting of what a validation measures. It is as `WATCHING`, but with `patience`, which lets the measurements
end the training, as `PAST`."""

PLACE: JsonDict = {AFFECTS: Affects.PLACE}
"""Marks a setting that only locates files, whose content has its own fingerprint. It is not in any digest."""

STEP: JsonDict = {AFFECTS: Affects.STEP}
"""Marks a setting that counts only in the number of batches of a step, which is in the digest instead."""

FUTURE: JsonDict = {AFFECTS: Affects.FUTURE}
"""Marks a setting of a training that changes its result, but not the steps that are already done: after an edit, the
training continues."""

LENGTH: JsonDict = {AFFECTS: Affects.LENGTH}
"""Marks the settings of a training's length. They are as `FUTURE` unless the learning rate depends on the length."""

ORIGIN: JsonDict = {AFFECTS: Affects.ORIGIN}
"""Marks the settings of what a training starts from. Instead of them, its spec holds that content's digest."""

PUBLISHING: JsonDict = {AFFECTS: Affects.PUBLISHING}
"""Marks a setting that only chooses what is published of a training, and changes nothing in it. It is in the spec of
what is published (`hv15.project.checkpoints`)."""

SAMPLING: JsonDict = {AFFECTS: Affects.SAMPLING}
"""Marks a place of files that only samples read; their content has its own fingerprint."""

APART: JsonDict = {AFFECTS: Affects.APART}
"""Marks a section of a training that enters its spec in a way of its own (`hv15.project.training`)."""

CAPTION: JsonDict = {AFFECTS: Affects.CAPTION}
"""Marks a dataset's setting that affects only captions, which are identified by their text."""

WEIGHT: JsonDict = {AFFECTS: Affects.WEIGHT}
"""Marks a dataset's setting that affects only how training draws its clips."""

LATENTS: JsonDict = PAST | {"encodes": "latents"}
"""Marks a setting of the encoding that affects only clips, not captions."""

TEXT: JsonDict = PAST | {"encodes": "text"}
"""Marks a setting of the encoding that affects only captions, not clips."""

UNLESS_DEFAULT: JsonDict = {"in_digests": "unless default"}
"""Marks a setting that was added after files were made: at its default it is in no digest, so that these stay valid."""


def only_with(*either: Mapping[str, tuple[JsonValue, ...]], **values: tuple[JsonValue, ...]) -> JsonDict:
    """Mark a setting that has an effect only if other settings of its section have one of these values.

    Args:
        either: several such demands, of which one has to be met; instead of `values`.
    """
    return {"only_with": [{name: list(choices) for name, choices in each.items()} for each in either or (values,)]}


LONGEST_PATH = 4000
"""Characters of a path: what systems take."""
MOST_COUNTED = 10**9
MOST_FRAMES = 10_001
"""Of a clip: seven minutes. The model was made for 121."""
MOST_PIXELS = 8192
"""Of a side."""

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


Conflict = tuple[tuple[str | int, ...], str]
"""A fault of settings that do not fit together: the location below the section, and what is wrong there."""


def demands(model: type[BaseModel], name: str) -> list[dict[str, list[JsonValue]]]:
    """Return the demands of `only_with` on other settings, of which one has to be met; none if there are none."""
    extra = model.model_fields[name].json_schema_extra
    found = extra.get("only_with") if isinstance(extra, dict) else None
    return cast("list[dict[str, list[JsonValue]]]", found or [])


class Section(BaseModel):
    """A part of the config. Unknown keys are errors, values are frozen, and the text under a field is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo[object]) -> object:
        """Refuse true and false for numbers, as pydantic would read them as 1 and 0."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("unexpected_bool", "true or false makes no sense here")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        """Yield all faults of settings that do not fit together; a section overrides this and calls its bases'."""
        yield from ()

    @model_validator(mode="after")
    def _has_no_conflicts(self) -> Self:
        details = [
            InitErrorDetails(type=PydanticCustomError("cross_field", "{text}", {"text": text}), loc=loc, input=None)
            for loc, text in self.conflicts()
        ]
        if details:
            raise ValidationError.from_exception_data("settings", details)
        return self


def expand_variables(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` in a path by environment variables.

    Raises:
        ValueError: a variable is not set and has no default, or the path is empty or invalid.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            name = match["name"]
            raise ValueError(f"the environment variable {name} is not set; set it, or write ${{{name}:-some/default}}")
        return found

    path = _VARIABLE.sub(value, text)
    if not path.strip():
        raise ValueError("the path is empty")
    if "\0" in path:
        raise ValueError("the path contains a zero byte")
    if len(path) > LONGEST_PATH:
        raise ValueError(f"the path has {len(path):,} characters, at most {LONGEST_PATH:,} are possible")
    if is_remote(path):
        return check_remote(path)
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"found '{path}', but there is no such home folder") from None
    return path


def check_frames(count: int) -> int:
    """Return the frame count if it is of the form 4k+1, which the VAE can encode.

    Raises:
        ValueError: it is not; the message names the nearest valid counts.
    """
    if not 1 <= count <= MOST_FRAMES:
        raise ValueError(f"{count} frames: expected 1 to {MOST_FRAMES}")
    if (below := encodable_frames(count)) != count:
        nearest = f"{below} and {below + FRAMES_PER_CELL}"
        raise ValueError(f"{count} frames: the VAE needs {FRAMES_PER_CELL}k+1 frames; the nearest are {nearest}")
    return count


def check_count(count: int) -> int:
    """Return a count that no computer takes for infinity.

    Raises:
        ValueError: it is larger.
    """
    if count > MOST_COUNTED:
        raise ValueError(f"found {count}, at most {MOST_COUNTED:,} are possible")
    return count


def check_size(size: int) -> int:
    """Return the height or width in pixels if it is a multiple of 16.

    Raises:
        ValueError: it is not; the message names the nearest valid sizes.
    """
    if size > MOST_PIXELS:
        raise ValueError(f"{size} pixels: at most {MOST_PIXELS}")
    below = encodable_side(size)
    if below != size or size < PIXELS_PER_CELL:
        nearest = f"{below} and {below + PIXELS_PER_CELL}" if below >= PIXELS_PER_CELL else f"{PIXELS_PER_CELL}"
        raise ValueError(f"{size} pixels: must be a multiple of {PIXELS_PER_CELL}; nearest: {nearest}")
    return size


def check_tiles(size: int, overlap: float) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield a problem of `vae_tile_overlap` if tiles of `size` pixels would not start at multiples of 16."""
    stride = int(size * (1 - overlap))
    if size and (stride < PIXELS_PER_CELL or stride % PIXELS_PER_CELL):
        text = f"found {overlap:g}: tiles of {size} pixels would start every {stride} pixels, which must be a multiple"
        yield ("vae_tile_overlap",), f"{text} of {PIXELS_PER_CELL}; 0.125, 0.25 and 0.5 fit"


PathText = Annotated[str, AfterValidator(expand_variables), Field(json_schema_extra={"format": "path"})]
"""A path as written by the user; relative paths start at the project folder (`Settings.resolve`)."""

Frames = Annotated[int, AfterValidator(check_frames), Field(json_schema_extra={"minimum": 1, "maximum": MOST_FRAMES})]
"""A number of frames, 4k+1."""

PixelSize = Annotated[
    int,
    AfterValidator(check_size),
    Field(json_schema_extra={"minimum": PIXELS_PER_CELL, "maximum": MOST_PIXELS, "multipleOf": PIXELS_PER_CELL}),
]
"""A height or a width in pixels, a multiple of 16."""

Few = Annotated[int, Field(ge=1, le=4096)]
"""Jobs, threads, clips at once: more of them is a mistake, and each costs memory."""

Many = Annotated[int, Field(gt=0), AfterValidator(check_count)]
"""Steps, epochs, frames that are counted."""

SLOWEST, FASTEST = 0.01, 1000.0
"""Frames per second."""
Rate = Annotated[float, Field(ge=SLOWEST, le=FASTEST)]
"""Frames per second."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0)]
Part = Annotated[float, Field(ge=0.0, le=1.0)]
"""A part of a number of steps."""

Block = Annotated[int, Field(ge=0, le=1000)]
"""The number of a block of the transformer, from 0."""
ComputeDtype = Literal["auto", "float32", "float16", "bfloat16"]
TileSize = Literal[0, 128, 256]
