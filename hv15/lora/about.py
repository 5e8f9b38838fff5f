"""What a published LoRA tells about itself: fields that people fill in, a preview, hashes, and what is left out.

`modelspec.*` is the metadata of the Stability AI model specification, which ComfyUI's LoRA managers and Civitai read;
`ss_*` is kohya's. Does not need torch.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.digest import digest, file_sha256
from hv15.errors import UserError
from hv15.lora.peft import ADAPTER_METADATA
from hv15.records.json_values import parse_object
from hv15.records.metadata import (
    BASE_SIZES,
    CONVERSION_ABOUT,
    CONVERSION_FORMAT,
    CONVERSION_NOTE,
    CONVERTED_FROM,
    CONVERTED_TO,
    CONVERTED_TRAINING,
    DORA_NORM,
    EMA_DECAY,
    EPOCHS,
    MADE_FROM,
    SHIFT,
    STEPS,
    TASK,
    VERSION,
    VERSIONS,
)

if TYPE_CHECKING:
    from hv15.config.convert import ConvertSettings, MetadataKept

_NEEDED = frozenset(
    (
        *("format", ADAPTER_METADATA, DORA_NORM),
        *(CONVERTED_FROM, CONVERTED_TO, CONVERTED_TRAINING, CONVERSION_FORMAT, CONVERSION_ABOUT),
    )
)
"""What loaders and the workflow need: names of layers, numbers and digests, nothing about the training's content."""
_PUBLIC = _NEEDED | {
    *(CONVERSION_NOTE, EMA_DECAY, STEPS, TASK, VERSION, EPOCHS, SHIFT, VERSIONS, BASE_SIZES),
    *("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_network_dropout"),
    *("ss_base_model_version", "ss_steps", "ss_num_epochs", "ss_learning_rate", "ss_optimizer", "ss_seed"),
    *("ss_num_train_items", "ss_output_name"),
}
"""In addition: the training in numbers. No names of files, no prompts, no captions."""
_PREVIEW_SIZE = 512  # pixels of the longer side
SHA256, KOHYA_HASH = "modelspec.hash_sha256", "sshs_model_hash"


@dataclass(frozen=True)
class About:
    """What a copy of a LoRA tells; the fields are the settings of `convert:`."""

    name: str = "lora"
    title: str = ""
    author: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    license: str = ""
    preview: Path | None = None
    kept: MetadataKept = "full"

    @classmethod
    def from_settings(cls, settings: ConvertSettings, root: Path) -> About:
        """Return what `convert:` says; `root` is the folder of the config."""
        return cls(
            name=settings.output_name,
            title=settings.title,
            author=settings.author,
            description=settings.description,
            tags=settings.tags,
            trigger_words=settings.trigger_words,
            license=settings.license,
            preview=root / Path(settings.preview).expanduser() if settings.preview else None,
            kept=settings.metadata,
        )

    def digest(self) -> str:
        """Return a digest of everything that a file's metadata gets from it, the preview's content included."""
        preview = "" if self.preview is None else _content_digest(self.preview)
        told = [self.name, self.title, self.author, self.description, self.tags, self.trigger_words, self.license]
        return digest([*(list(each) if isinstance(each, tuple) else each for each in told), preview, self.kept])

    def metadata(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the metadata of a copy: the file's own, as far as it is kept, and these fields.

        Raises:
            UserError: the preview is missing or no image.
        """
        marks = {CONVERSION_ABOUT: self.digest()}
        if (trained := _trained(own)) is not None:
            marks[CONVERTED_TRAINING] = trained
        if self.kept == "full":
            return {**own, **marks, **self._fields()}
        shown = _NEEDED if self.kept == "none" else _PUBLIC
        found = {key: value for key, value in own.items() if key in shown or self._is_spec(key)}
        return {**found, **marks, **(self._fields() if self.kept == "public" else {})}

    def _is_spec(self, key: str) -> bool:
        return self.kept == "public" and key.startswith("modelspec.")

    def _fields(self) -> dict[str, str]:
        fields = {
            "ss_output_name": self.name,
            "modelspec.title": self.title or self.name,
            "modelspec.author": self.author,
            "modelspec.description": self.description,
            "modelspec.tags": ", ".join(self.tags),
            "modelspec.trigger_phrase": ", ".join(self.trigger_words),
            "modelspec.license": self.license,
            "modelspec.thumbnail": "" if self.preview is None else thumbnail(self.preview),
        }
        return {key: value for key, value in fields.items() if value}


def _trained(metadata: Mapping[str, str]) -> str | None:
    """Return the digest of the training's spec, by which the workflow knows what a copy was made from."""
    try:
        return digest(parse_object(metadata[MADE_FROM])) if MADE_FROM in metadata else None
    except ValueError:  # whatever another program wrote there: no JSON, NaN, half a character
        return None


def _content_digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return "missing"  # making the copy says so


def thumbnail(path: Path) -> str:
    """Return an image as a data URL of a small JPEG.

    Raises:
        UserError: it is missing or no image.
    """
    from PIL import Image

    if not path.exists():
        raise UserError.at(path, "no such file", hint="correct convert.preview")
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((_PREVIEW_SIZE, _PREVIEW_SIZE))
            file = io.BytesIO()
            small.save(file, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError.at(path, f"cannot be read as an image: {error}", hint="correct convert.preview") from error
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
