"""`datasets:` folders or lists of captioned clips and images, with musubi-tuner's setting names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from hv15.config.section import (
    CAPTION,
    PAST,
    PLACE,
    UNLESS_DEFAULT,
    WEIGHT,
    Conflict,
    DropoutRate,
    Few,
    Frames,
    Many,
    PathText,
    Rate,
    Section,
    check_count,
    only_with,
)
from hv15.grid import FPS, PIXELS_PER_CELL, encodable_side
from hv15.spans import Span

SOURCES = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")
VIDEO_ONLY = (
    "target_frames",
    "frame_extraction",
    "frame_stride",
    "frame_sample",
    "max_frames",
    "source_fps",
    "target_fps",
)


def _square(value: object) -> object:
    """Expand a single number to a square."""
    return [value, value] if isinstance(value, int | str) and not isinstance(value, bool) else value


def _one_window(value: object) -> object:
    """Expand a single number to a list."""
    return [value] if isinstance(value, int | str) and not isinstance(value, bool) else value


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Side = Annotated[int, Field(ge=PIXELS_PER_CELL, le=8192)]
Resolution = Annotated[tuple[Side, Side], BeforeValidator(_square, json_schema_input_type=Side | tuple[Side, Side])]
Windows = Annotated[
    tuple[Frames, ...], BeforeValidator(_one_window, json_schema_input_type=Frames | tuple[Frames, ...])
]


class DatasetSettings(Section):
    """One folder (or JSONL file) of videos or images with their captions, and how clips are cut from them."""

    video_directory: PathText | None = Field(None, json_schema_extra=PLACE)
    """A folder of videos, each with its caption in a text file beside it; a sub-folder of numbered images also counts
    as a video. Set exactly one of the four sources."""

    video_jsonl_file: PathText | None = Field(None, json_schema_extra=PLACE)
    """A file with one JSON object per line, {"video_path": ..., "caption": ...}; the path may be a folder of images."""

    image_directory: PathText | None = Field(None, json_schema_extra=PLACE)
    """A folder of images, each with its caption in a text file beside it. An image is a clip of one frame."""

    image_jsonl_file: PathText | None = Field(None, json_schema_extra=PLACE)
    """A file with one JSON object per line, {"image_path": ..., "caption": ...}."""

    recursive: bool = Field(False, json_schema_extra=PLACE)
    """Also search all sub-folders of the folder. If false, their files are counted but not used."""

    caption_extension: str = Field(".txt", json_schema_extra=CAPTION)
    """The ending of caption files: clip.mp4 has its caption in clip.txt. They must be UTF-8."""

    default_caption: str | None = Field(None, json_schema_extra=CAPTION)
    """Caption of clips without a caption, to which prefix and suffix are added; it may be "". If it is not set, clips
    without a caption are an error."""

    caption_prefix: str = Field("", json_schema_extra=CAPTION)
    """Text added before each caption, e.g. a trigger word and a comma. No space is added: end it with one if needed."""

    caption_suffix: str = Field("", json_schema_extra=CAPTION)
    """Text added after each caption, without a space."""

    trigger: str | None = Field(None, min_length=1, json_schema_extra=CAPTION)
    """The text that replaces {trigger} in captions, prefix and suffix, e.g. the name of a character. If it is not set,
    {trigger} stays as it is."""

    caption_variants: bool = Field(False, json_schema_extra=CAPTION)
    """A clip may have several captions: each line of a caption file is one, and "caption" in a JSONL file may be a
    list. Each time a clip is shown, one is drawn. If false, all lines of a file are one caption."""

    shuffle_tags: bool = Field(False, json_schema_extra=CAPTION)
    """Captions are lists of tags, shown in different orders."""

    tag_dropout: DropoutRate = Field(0.0, json_schema_extra=CAPTION)
    """Captions are lists of tags, each of which is left out with this probability."""

    keep_tags: Annotated[int, Field(ge=0, le=1000)] = Field(0, json_schema_extra=CAPTION)
    """Number of tags at the beginning that keep their place and are never left out."""

    tag_separator: str = Field(",", json_schema_extra=CAPTION)
    """What stands between tags."""

    caption_versions: Annotated[int, Field(ge=2, le=100)] = Field(8, json_schema_extra=CAPTION)
    """With `shuffle_tags` or `tag_dropout`: number of texts that are made, and encoded, of each caption: the caption as
    it is written, and others with drawn tags. Each time a clip is shown, one is drawn."""

    resolution: Resolution = Field((960, 544), json_schema_extra=PAST)
    """[width, height] in pixels, or one number for a square. With buckets only its area matters; clips keep their
    aspect ratio."""

    enable_bucket: bool = Field(True, json_schema_extra=PAST)
    """Resize each clip to the bucket with the nearest aspect ratio (sides in steps of 16 pixels, area as `resolution`).
    If false, everything is resized and cropped to exactly `resolution`, which must then be in multiples of 16."""

    bucket_no_upscale: bool = Field(False, json_schema_extra=PAST)
    """Do not enlarge sources that are smaller than `resolution`: they keep their size, rounded down to 16 pixels."""

    batch_size: Few = Field(1, json_schema_extra=WEIGHT)
    """Number of clips, of the same size and length, in a batch. More clips need more memory; gradient accumulation does
    not."""

    num_repeats: Annotated[int, Field(ge=1, le=100_000)] = Field(1, json_schema_extra=WEIGHT)
    """How often each clip is used in an epoch. Increase it to give a small dataset more weight than a large one."""

    loss_weight: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(1.0, json_schema_extra=WEIGHT | UNLESS_DEFAULT)
    """What the loss of its clips is multiplied by: how much each of them counts when it is shown, not how often it is
    shown (`num_repeats`)."""

    start_step: Annotated[int, Field(ge=0), AfterValidator(check_count)] = Field(
        0, json_schema_extra=WEIGHT | UNLESS_DEFAULT
    )
    """Take part in the training only after so many steps. Where a dataset starts or ends, a new epoch begins, which is
    one pass over the datasets that take part then."""

    end_step: Many | None = Field(None, json_schema_extra=WEIGHT | UNLESS_DEFAULT)
    """Take part only up to this step."""

    max_num_samples: Many | None = Field(None, json_schema_extra=PLACE)
    """Use at most so many files, always the same: which ones follows from their content, and a new file changes at most
    one of them."""

    is_reg: bool = Field(False, json_schema_extra=WEIGHT | UNLESS_DEFAULT)
    """Regularisation: clips of what the LoRA must not change, such as other persons. They are shown like others, but
    never held out for validation."""

    reg_target: Literal["prior", "clips"] = Field(
        "prior", json_schema_extra=WEIGHT | UNLESS_DEFAULT | only_with(is_reg=(True,))
    )
    """What regularisation clips are trained towards. `prior`: what the model predicts without the LoRA (prior
    preservation), which takes one more forward pass. `clips`: the clips themselves, as in other datasets."""

    use_masks: bool = Field(True, json_schema_extra=PLACE)
    """Use the masks beside clips: clip.mask.png or clip.mask.mp4 is that of clip.mp4, and its grey says how much each
    place counts in the loss. Clips without a mask count as a whole."""

    unmasked_weight: Share = Field(0.0, json_schema_extra=WEIGHT | UNLESS_DEFAULT)
    """The least that any place of a masked clip counts; 0 means that black places are not learnt."""

    unmasked_probability: Share = Field(0.0, json_schema_extra=WEIGHT | UNLESS_DEFAULT)
    """Probability of showing a masked clip without its mask."""

    masked_prior_preservation_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        0.0, json_schema_extra=WEIGHT | UNLESS_DEFAULT
    )
    """Weight of a second loss outside of masks, towards what the model predicts without the LoRA; 0 switches it off.
    1 counts as much as the masked part. It takes one more forward pass."""

    target_frames: Windows = Field(
        (1,),
        min_length=1,
        max_length=100,
        json_schema_extra=PAST | only_with(frame_extraction=("head", "chunk", "slide", "uniform")),
    )
    """Lengths of the clips cut from a video, in frames at `target_fps`; each must be 4k+1 (1, 5, 9, ... 81, ... 121).
    Several lengths give several clips per video. The default 1 trains on single frames."""

    frame_extraction: Literal["head", "chunk", "slide", "uniform", "full"] = Field("head", json_schema_extra=PAST)
    """Where clips are cut. `head`: at the beginning. `chunk`: consecutive clips. `slide`: every `frame_stride` frames.
    `uniform`: `frame_sample` clips, evenly spread. `full`: the whole video, at most `max_frames`."""

    frame_stride: Many = Field(1, json_schema_extra=PAST | only_with(frame_extraction=("slide",)))
    """Distance in frames between the starts of clips, for `slide`."""

    frame_sample: Few = Field(1, json_schema_extra=PAST | only_with(frame_extraction=("uniform",)))
    """Number of clips per video, for `uniform`."""

    max_frames: Many = Field(129, json_schema_extra=PAST | only_with(frame_extraction=("full",)))
    """The longest clip in frames, for `full`; rounded down to 4k+1."""

    source_fps: Rate | None = Field(None, json_schema_extra=PAST)
    """Frames per second of the sources, if the files state it wrongly or not at all (folders of images). By default the
    files' own timestamps are used."""

    target_fps: Rate = Field(FPS, json_schema_extra=PAST)
    """Frames per second of the clips. The model was made for 24; sources at other rates are resampled."""

    background: str = Field("#000000", json_schema_extra=PAST)
    """Colour behind transparent pixels, as "#rrggbb" in quotes (without quotes, # begins a comment)."""

    @field_validator("caption_extension")
    @classmethod
    def _begins_with_a_dot(cls, value: str) -> str:
        if not value.startswith(".") or len(value) < 2 or "/" in value:
            raise ValueError(f"found '{value}', expected an ending with a dot, such as '.txt'")
        return value

    @field_validator("tag_separator")
    @classmethod
    def _is_more_than_space(cls, value: str) -> str:
        if not value.strip():
            raise ValueError(f"found '{value}', expected what stands between tags, such as ','")
        return value

    @field_validator("background", mode="before")
    @classmethod
    def _is_a_colour(cls, value: object) -> object:
        if value is None:
            raise ValueError('found nothing: put the colour in quotes ("#ffffff"), otherwise # begins a comment')
        digits = str(value).removeprefix("#").lower()
        if not str(value).startswith("#") or len(digits) != 6 or not set(digits) <= set("0123456789abcdef"):
            raise ValueError(f"found '{value}', expected a colour such as \"#ffffff\" (with the quotes)")
        return f"#{digits}"

    @field_validator("target_frames")
    @classmethod
    def _lengths_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {list(value)}, expected each length only once")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        sources = [name for name in SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            found = "both " + " and ".join(sources) if len(sources) == 2 else (", ".join(sources) or "none")
            yield (), f"needs exactly one of {', '.join(SOURCES)}; found {found}"
        if len(sources) == 1 and sources[0].endswith("jsonl_file") and self.recursive:
            yield ("recursive",), f"is only for folders, but this dataset has {sources[0]}"
        if len(sources) == 1 and sources[0].startswith("image"):
            fields = type(self).model_fields
            for name in VIDEO_ONLY:
                if getattr(self, name) != fields[name].default:
                    yield (name,), f"is only for videos, but this dataset has {sources[0]}"
        if self.end_step is not None and self.end_step <= self.start_step:
            yield ("end_step",), f"found {self.end_step}, expected more than start_step ({self.start_step})"
        if not self.draws_tags:
            for name in ("keep_tags", "tag_separator", "caption_versions"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield (name,), "has no effect without shuffle_tags or tag_dropout"
        if self.reg_target != "prior" and not self.is_reg:
            yield ("reg_target",), "has no effect without is_reg: true"
        if self.targets_prior and self.masked_prior_preservation_weight:
            text = "has no effect with is_reg, which has the same target everywhere: set it to 0, or reg_target: clips"
            yield ("masked_prior_preservation_weight",), text
        if not self.enable_bucket and any(side % PIXELS_PER_CELL for side in self.resolution):
            width, height = map(encodable_side, self.resolution)
            text = f"found {list(self.resolution)}: without enable_bucket both must be multiples of 16, e.g. "
            yield ("resolution",), f"{text}[{width}, {height}]"

    @property
    def targets_prior(self) -> bool:
        """Whether its clips are trained towards what the model predicts without the LoRA."""
        return self.is_reg and self.reg_target == "prior"

    @property
    def draws_tags(self) -> bool:
        """Whether captions are shown with drawn tags."""
        return self.shuffle_tags or self.tag_dropout > 0

    @property
    def span(self) -> Span:
        """The steps of the training in which it takes part."""
        return Span(self.start_step, self.end_step)

    @property
    def source(self) -> str:
        """The path of the source that is set."""
        source: str = next(value for name in SOURCES if (value := getattr(self, name)) is not None)
        return source

    @property
    def kind(self) -> Literal["image", "video"]:
        """Whether the source holds images or videos."""
        return "image" if self.image_directory is not None or self.image_jsonl_file is not None else "video"
