"""`sample:` the videos that are made with the trained LoRA, one target per prompt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    StringConstraints,
    field_validator,
    model_validator,
)

from hv15.choices import Enlarging, GuidanceBatch
from hv15.config.loras import SampledLoraSettings
from hv15.config.section import (
    SPEED,
    Block,
    ComputeDtype,
    Conflict,
    Few,
    Frames,
    PathText,
    PixelSize,
    Rate,
    Section,
    Seed,
    TileSize,
    check_tiles,
)
from hv15.config.step_cache import StepCacheSettings
from hv15.config.transformer import TransformerSettings
from hv15.grid import FPS
from hv15.records.outputs import OutputType

VideoSize = tuple[PixelSize, PixelSize]
Level = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, StringConstraints(strip_whitespace=True)]
_FARTHEST_FIRST: tuple[Enlarging, ...] = ("1080p", "720p", "auto")
SEED_SUFFIX = ".seed"
"""Stands before the seed in the name of a sample of `seeds`; a prompt's own name has no dot."""
SAMPLE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.seed\d+)?(\.with-[A-Za-z0-9_-]+)?(\.x[-+.0-9e]+)?(\.base|\.preview)?"
"""Matches the name of any sample."""
_PERIODIC = re.compile(r"(.+)\1{19,}$")
"""Matches a name that Snakemake takes for the trace of a rule that calls itself: it makes no job for it."""


class PromptSettings(Section):
    """One sample. Settings that are not set here have the values of `sample`."""

    name: str = ""
    """Name of the files, results/samples/<name>.mp4: letters, digits, - and _. If it is not set, it is made from the
    prompt, so an edited prompt gets a new file."""

    prompt: Text = Field(min_length=1)
    """Description of the video. Text in double quotes is drawn as lettering. Long descriptions work best."""

    image_path: PathText | None = None
    """The first frame, for task i2v: an image file."""

    negative_prompt: Text | None = None
    """As `sample.negative_prompt`, for this prompt."""

    video_size: VideoSize | None = None
    """As `sample.video_size`, for this prompt."""

    video_length: Frames | None = None
    """As `sample.video_length`, for this prompt."""

    infer_steps: Few | None = None
    """As `sample.infer_steps`, for this prompt."""

    guidance_scale: NonNegativeFloat | None = None
    """As `sample.guidance_scale`, for this prompt."""

    flow_shift: PositiveFloat | None = None
    """As `sample.flow_shift`, for this prompt."""

    seed: Seed | None = None
    """As `sample.seed`, for this prompt."""

    seeds: tuple[Seed, ...] | None = None
    """As `sample.seeds`, for this prompt."""

    fps: Rate | None = None
    """As `sample.fps`, for this prompt."""

    output_type: OutputType | None = None
    """As `sample.output_type`, for this prompt."""

    loras: tuple[SampledLoraSettings, ...] | None = None
    """As `sample.loras`, for this prompt."""

    lora_multiplier: float | None = None
    """As `sample.lora_multiplier`, for this prompt."""

    with_base: bool | None = None
    """As `sample.with_base`, for this prompt."""

    sr: Enlarging | None = None
    """As `sample.sr`, for this prompt: `off` leaves it small, `auto` makes it larger, too."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_prompt(cls, data: object) -> object:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("prompt"), str):
            return {**data, "name": automatic_name(data["prompt"].strip(), str(data.get("image_path") or ""))}
        return data

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", value):
            raise ValueError(f"found '{value}', expected at most 100 letters, digits, - and _ (for file names)")
        if match := _PERIODIC.search(value):
            raise ValueError(f"found '{value}', which repeats '{match[1]}' 20 times or more: give a shorter name")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        yield from _wrong_seeds(self.seeds or ())
        if self.seeds and self.seed is not None:
            yield ("seeds",), "are set, and so is seed: keep one of the two"


class SampleSettings(TransformerSettings):
    """Sampling: the defaults of all prompts, then the prompts."""

    video_size: VideoSize = (480, 848)
    """[height, width] in pixels, multiples of 16. Official sizes for 16:9: [480, 848] and [720, 1280]."""

    video_length: Frames = 121
    """Number of frames, 4k+1. The model was made for 121 (5 seconds); fewer need less time and memory. 1 = a still
    image."""

    infer_steps: Few | None = None
    """Number of denoising steps. If not set: the checkpoint's official number (50; 12 for step-distilled)."""

    guidance_scale: NonNegativeFloat | None = None
    """How closely the prompt is followed. Above 1, each step takes twice as long. If not set: the checkpoint's official
    value (6; 1 for distilled checkpoints)."""

    flow_shift: PositiveFloat | None = None
    """Moves the steps towards noise. If not set: the checkpoint's official value (5 at 480p; 7 or 9 at 720p)."""

    seed: Seed = 123
    """Seed of the noise: the same seed gives the same video."""

    seeds: tuple[Seed, ...] = ()
    """Several seeds instead of `seed`, such as [1, 2, 3]: each prompt is sampled with each, as <name>.seed<N>.mp4. A
    prompt that sets `seed` has only that one."""

    fps: Rate = FPS
    """Frames per second of the written file; the model was made for 24."""

    negative_prompt: Text = ""
    """Description of what the video should not show. The official default is empty. Only used with guidance above 1."""

    output_type: OutputType = "video"
    """`video`: mp4. `images`: a folder of PNGs. `animation`: an animated PNG. `latent`: only the latents file. `both`:
    mp4 and latents. `latent_images`: PNGs and latents. `hv15 sample --latents FILE` decodes latents later."""

    dtype: ComputeDtype = "auto"
    """Number format in which the transformer computes. `auto`: bfloat16 on a GPU that supports it, else float32."""

    vae_dtype: ComputeDtype | None = None
    """Number format in which the VAE decodes, and encodes first images. If not set: that of `dtype`, where `auto` is
    float16 on a GPU, as in the official program. float32 takes twice the memory of float16, and rounds less."""

    vae_sample_size: TileSize = 256
    """Tile size in pixels for decoding. 0 = no tiles (exact, but much memory). The official choice is 256 with more
    than 21 GB of GPU memory, else 128."""

    vae_tile_overlap: float = Field(0.25, gt=0.0, lt=1.0)
    """Overlap of neighbouring tiles, as a fraction of the tile size. Officially 0.125 with 256, 0.25 with 128."""

    vae_seamless_tiles: bool = False
    """Decode tiles that fit exactly instead of blending neighbours: with each tile, all is computed that its pixels
    depend on, so the numbers are those of the whole picture, up to rounding. Of 256 pixels, about as slow as the
    official tiles; of 128, twice as slow. `vae_tile_overlap` is not used then."""

    vae_enable_patch_conv: bool = Field(False, json_schema_extra=SPEED)
    """Compute the VAE's large convolutions in pieces: the same results, less memory, slower."""

    preview_every_n_steps: Annotated[int, Field(ge=0, le=4096)] = Field(0, json_schema_extra=SPEED)
    """While a sample is denoised, write a small video of what it is becoming every so many steps, beside its latents as
    .running/<name>.mp4; 0: never. The colors are those of a linear map of the latents. The sample is not changed."""

    cuda_graphs: bool = Field(False, json_schema_extra=SPEED)
    """On NVIDIA GPUs, record the transformer's work in the first steps and repeat it as a whole in the others: faster
    where the GPU waits for the program, as with few frames. The results are the same. It has no effect with
    `blocks_to_swap`, with `context_parallel`, with `quantize: int8` or `nf4`, and with the modes and backends of
    `compile` that do it themselves (`reduce-overhead`, `max-autotune`, `cudagraphs`)."""

    step_cache: StepCacheSettings = StepCacheSettings()
    """Faster sampling: steps that reuse a part of earlier ones."""

    guidance_interval: tuple[Level, Level] = (0.0, 1.0)
    """[lowest, highest] noise level, from 0 to 1, at which guidance is used; other steps take half the time. The first
    levels decide the layout, the last ones details."""

    cfg_zero_star: bool = False
    """Scale the unguided velocity to fit the guided one before guidance (CFG-Zero*, Fan et al. 2025)."""

    zero_init_steps: Annotated[int, Field(ge=0, le=100)] = 0
    """This number of first steps changes nothing; CFG-Zero* uses 1 or 2 of 50."""

    sage_blocks: tuple[Block, Block] | None = None
    """[first, last] block, counted from 0 to 53, whose attention is sage's, which computes in 8 bits: faster, with a
    small error. Needs the package sageattention and a GPU. The other blocks use `attn_mode`. It counts as a change of
    the samples; `attn_mode: sage`, for all blocks, does not."""

    guidance_batch: GuidanceBatch = "auto"
    """How the two passes of a step with guidance are computed. `two_pass`: one after the other. `batched`: as one
    batch, faster where one pass does not fill the GPU, with twice the activations. `auto`: on GPUs one batch for up to
    8192 latent cells. `by_memory`: one batch if the free memory suffices for it by the plan; the log and the file say
    what was done. The results are the same up to rounding."""

    sr: Enlarging = "off"
    """Super resolution: make each sample larger, too, from its latents, as <name>.sr.mp4. `720p` is for samples of
    480p, `1080p` for those of 720p. `auto` does what `models.upsampler` is for or, with `models.source: hub`, what
    suits `models.variant`. Samples without the trained LoRA (`with_base`) stay small. `hv15 upsample` takes `off` for
    `auto`."""

    sr_steps: Few | None = None
    """Number of denoising steps of super resolution. If not set: the official number, 6 for 720p and 8 for 1080p."""

    sr_flow_shift: PositiveFloat | None = None
    """Moves the steps of super resolution towards noise. If not set: the official value, 2."""

    sr_with_loras: bool = False
    """Use the LoRAs of a sample, the trained one too, in super resolution as well. The official program uses them only
    for the small video."""

    loras: tuple[SampledLoraSettings, ...] = ()
    """LoRAs that are used in addition to the trained one: a list of {path, multiplier}, perhaps only on some layers
    (`include_patterns`, `exclude_patterns`) or with another strength in some blocks and steps (`strength_by`)."""

    lora_multiplier: float = 1.0
    """Strength of the trained LoRA: 1 = as trained."""

    with_base: bool = False
    """Also make each sample without the trained LoRA from the same noise, for comparison. Doubles the time."""

    strengths: tuple[float, ...] = ()
    """Factors for the strength of the LoRAs, such as [0, 0.5, 1]: each prompt is sampled at each, from the same noise,
    as <name>.x<S>.mp4, and all are drawn side by side (results/samples/grid.png and grid.mp4). At 0 no LoRA acts."""

    compare: tuple[SampledLoraSettings, ...] = ()
    """LoRAs that are compared, a list as `loras`: each prompt is also sampled with each of them, beside `loras` and
    instead of the trained LoRA, as <name>.with-<file>.mp4, at each of `strengths`. All are drawn side by side."""

    prompts: tuple[PromptSettings, ...] = ()
    """The samples. Each is its own target: if a prompt is edited, only that prompt is sampled again."""

    prompts_file: PathText | None = None
    """A file of further prompts: .yaml (a list of texts or of entries as in `prompts`), .jsonl (such an entry in each
    line) or .txt (a prompt in each line). What is edited in it is sampled again, nothing else."""

    @property
    def dtype_of_vae(self) -> str:
        """The number format of the VAE, as `hv15.precision.pick_encoder_dtype` takes it."""
        return self.vae_dtype or self.dtype

    @property
    def asks_for_gpus(self) -> str:
        """The setting that asks for several GPUs for one sample, for messages."""
        return f"sample.context_parallel is {self.context_parallel}"

    def sr_of(self, prompt: PromptSettings) -> Enlarging:
        """Return whether a prompt's samples are made larger, and how far."""
        return self.sr if prompt.sr is None else prompt.sr

    @property
    def enlarging(self) -> Enlarging:
        """How far samples are made larger, all of them with the same models; `off` if none is."""
        asked = {self.sr_of(prompt) for prompt in self.prompts} or {self.sr}
        return next((each for each in _FARTHEST_FIRST if each in asked), "off")

    def seeds_of(self, prompt: PromptSettings) -> dict[str, int]:
        """Return the seeds of a prompt by the names of its samples: one of its own name, or one for each of `seeds`."""
        if prompt.seed is None and (seeds := prompt.seeds or self.seeds):
            return {f"{prompt.name}{SEED_SUFFIX}{seed}": seed for seed in seeds}
        return {prompt.name: self.seed if prompt.seed is None else prompt.seed}

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        yield from check_tiles(self.vae_sample_size, self.vae_tile_overlap)
        if self.guidance_interval[0] > self.guidance_interval[1]:
            yield ("guidance_interval",), "expected [lowest, highest]"
        if self.sage_blocks is not None:
            if self.sage_blocks[0] > self.sage_blocks[1]:
                yield ("sage_blocks",), f"found {list(self.sage_blocks)}, expected the first block before the last"
            if self.attn_mode == "sage":
                yield ("sage_blocks",), "has no effect with attn_mode: sage, which is for all blocks: keep one of them"
        yield from _wrong_seeds(self.seeds)
        if twice := [each for number, each in enumerate(self.strengths) if each in self.strengths[:number]]:
            yield ("strengths",), f"found {twice[0]:g} twice, expected each strength once"
        names = [Path(each.path).stem.lower() for each in self.compare]
        for number, name in enumerate(names):
            if name in names[:number]:
                text = f"'{name}' is also the name of compare[{names.index(name)}]: the samples could not be told apart"
                yield ("compare", number, "path"), f"{text}; give one of the files another name"
        if (self.strengths or self.compare) and any(prompt.name.lower() == "grid" for prompt in self.prompts):
            yield ("prompts",), "'grid' is the name of the sheet that compares them: give that prompt another name"
        seen: dict[str, int] = {}
        for index, prompt in enumerate(self.prompts):
            first = seen.setdefault(prompt.name.lower(), index)
            if first != index:
                text = f"'{prompt.name}' is also the name of prompts[{first}]: give each prompt its own name"
                yield ("prompts", index, "name"), text
            if self.sr_of(prompt) not in ("off", "auto", self.enlarging):
                text = f"found {self.sr_of(prompt)}, but others become {self.enlarging}, and each has models of its own"
                yield ("prompts", index, "sr"), f"{text}: choose one of the two for all, or off"


def _wrong_seeds(seeds: tuple[int, ...]) -> Iterator[Conflict]:
    if twice := [seed for index, seed in enumerate(seeds) if seed in seeds[:index]]:
        yield ("seeds",), f"found {twice[0]} twice, expected each seed once"


def name_from_words(prompt: str) -> str:
    """Return the first words of a prompt, in letters and digits that any file name may have."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "prompt"


def automatic_name(prompt: str, image_path: str = "") -> str:
    """Return a file name for a prompt: its first words and 8 hex digits of a digest of prompt and image path."""
    return f"{name_from_words(prompt)}-{hashlib.sha256((prompt + chr(0) + image_path).encode()).hexdigest()[:8]}"
