"""What all sections of the config share: the base model, and the value types that several of them use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

SPEED: dict[str, Any] = {"affects": "speed"}
"""Mark of a setting that changes only memory or speed: `Field(json_schema_extra=SPEED)`. No digest contains it."""

PLACE: dict[str, Any] = {"affects": "place"}
"""Mark of a setting that only says where files lie; their content has its own fingerprint. No digest contains it."""

CAPTION: dict[str, Any] = {"affects": "caption"}
"""Mark of a dataset's setting that only changes captions; a caption is known by its text."""

WEIGHT: dict[str, Any] = {"affects": "weight"}
"""Mark of a dataset's setting that changes how training draws its clips, and not the clips."""

LATENTS: dict[str, Any] = {"encodes": "latents"}
"""Mark of a setting of the encoding that changes clips alone, and no captions."""

TEXT: dict[str, Any] = {"encodes": "text"}
"""Mark of a setting of the encoding that changes captions alone, and no clips."""


def only_with(**values: tuple[object, ...]) -> dict[str, Any]:
    """Mark of a setting that is read only while other settings of its section have one of these values."""
    return {"only_with": {name: list(choices) for name, choices in values.items()}}


_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Section(BaseModel):
    """A part of the config. Unknown keys are errors, values never change, the text under a field is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true/false for numbers: pydantic would read them as 1 and 0."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("unexpected_bool", "true or false makes no sense here")
        return value


def raise_problems(problems: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """Raise all (location, message) pairs as one ValidationError, if there are any; for checks across fields."""
    details = [
        InitErrorDetails(type=PydanticCustomError("cross_field", "{text}", {"text": text}), loc=loc, input=None)
        for loc, text in problems
    ]
    if details:
        raise ValidationError.from_exception_data("settings", details)


def expand_variables(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` in a path by environment variables.

    Raises:
        ValueError: a variable is not set and has no default, or the path is empty or impossible.
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
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"found '{path}', but there is no such home folder") from None
    return path


def check_frames(count: int) -> int:
    """Return a frame count of the form 4k+1, which is what the VAE can encode.

    Raises:
        ValueError: names the two nearest valid counts.
    """
    if count < 1:
        raise ValueError(f"{count} frames: at least 1 is needed")
    if count % 4 != 1:
        below = (count - 1) // 4 * 4 + 1
        raise ValueError(f"{count} frames: the VAE takes 4k+1 of them; the nearest are {below} and {below + 4}")
    return count


def check_size(size: int) -> int:
    """Return a height or width in pixels that is a multiple of 16.

    Raises:
        ValueError: names the nearest valid sizes.
    """
    if size < 16 or size % 16:
        below = size // 16 * 16
        nearest = f"{below} and {below + 16}" if below >= 16 else "16"
        raise ValueError(f"{size} pixels: must be a multiple of 16; nearest: {nearest}")
    return size


def check_tiles(size: int, overlap: float) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield a problem of `vae_tile_overlap` if tiles of `size` pixels would not start at multiples of 16."""
    stride = int(size * (1 - overlap))
    if size and (stride < 16 or stride % 16):
        text = f"found {overlap:g}: tiles of {size} pixels would start every {stride} pixels, which must be a multiple"
        yield ("vae_tile_overlap",), f"{text} of 16; 0.125, 0.25 and 0.5 fit"


PathText = Annotated[str, AfterValidator(expand_variables), Field(json_schema_extra={"format": "path"})]
"""A path as written by the user; relative ones start at the project folder (`Settings.resolve`)."""

Frames = Annotated[int, AfterValidator(check_frames), Field(json_schema_extra={"minimum": 1})]
"""A number of frames, 4k+1."""

PixelSize = Annotated[int, AfterValidator(check_size), Field(json_schema_extra={"minimum": 16, "multipleOf": 16})]
"""A height or a width in pixels, a multiple of 16."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0)]
ComputeDtype = Literal["auto", "float32", "float16", "bfloat16"]
TileSize = Literal[0, 128, 256]
