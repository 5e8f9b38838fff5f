"""`train:` the LoRA and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from hv15.config.section import SPEED, DropoutRate, Few, Many, PathText, Probability, Seed, raise_problems
from hv15.config.transformer import TransformerSettings
from hv15.patterns import PatternError, compile_pattern

OptimizerType = Literal["AdamW", "AdamW8bit", "Muon"]
OptimizerValue = bool | int | float | str | tuple[float, ...]
LRScheduler = Literal["constant", "cosine", "linear"]
TimestepSampling = Literal["shift", "sigmoid", "uniform", "logit_normal"]
Timestep = Annotated[float, Field(ge=0.0, le=1000.0)]


class TrainSettings(TransformerSettings):
    """Training: length, optimizer, LoRA size, noise levels, what is saved."""

    seed: Seed = 42
    """Start of all random draws: order, noise, timesteps, dropout, LoRA weights. The same seed gives the same LoRA."""

    max_train_steps: Many | None = 1600
    """Length of the training in optimizer steps. Give this or `max_train_epochs`, not both."""

    max_train_epochs: Many | None = None
    """Length of the training in passes over the dataset (repeats counted), instead of `max_train_steps`."""

    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate. 1e-4 suits LoRA on this model with AdamW8bit or Muon; halve it when the loss jumps. 0
    learns nothing: a run to compare with."""

    optimizer_type: OptimizerType = "AdamW8bit"
    """`AdamW8bit`: least memory for its state. `AdamW`: the same in 32 bits. `Muon`: the official training's choice."""

    optimizer_args: dict[str, OptimizerValue] = Field(default_factory=dict)
    """Further arguments of the optimizer by name, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}."""

    lr_scheduler: LRScheduler = "constant"
    """The learning rate after the warm-up: unchanged, or falling to 0 along a cosine or a line."""

    lr_warmup_steps: int | float = 0
    """Steps in which the learning rate rises from 0; a number below 1 is a part of the whole training (0.05 = 5 %)."""

    gradient_accumulation_steps: Few = 1
    """Batches per optimizer step: a larger batch without more memory, but with as many times more computing."""

    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are scaled down to this norm; 0 turns it off."""

    gradient_checkpointing: bool = Field(True, json_schema_extra=SPEED)
    """Compute activations again in the backward pass instead of keeping them. About a third slower; without it, real
    sizes do not fit on any GPU."""

    gradient_checkpointing_cpu_offload: bool = Field(False, json_schema_extra=SPEED)
    """Keep what gradient checkpointing keeps (the input of each block) in the machine's memory instead of the GPU's.
    Slower; saves 54 x 4 KiB for each token in bfloat16."""

    network_dim: Few = 32
    """Rank of the LoRA. 8-16 for a style or a small dataset, 32-64 for characters and motion; the file grows too."""

    network_alpha: PositiveFloat = 32.0
    """Strength of the LoRA: its output is scaled by network_alpha / network_dim."""

    network_dropout: DropoutRate = 0.0
    """Part of the LoRA's inputs zeroed in training, against overfitting."""

    rank_dropout: DropoutRate = 0.0
    """Part of the LoRA's ranks zeroed in training."""

    module_dropout: DropoutRate = 0.0
    """Probability that a layer trains without its LoRA in a step."""

    include_patterns: tuple[str, ...] = ()
    """Regular expressions; when given, only layers whose name contains a match get a LoRA, e.g. img_attn."""

    exclude_patterns: tuple[str, ...] = ()
    """Regular expressions; layers whose name contains a match get no LoRA, e.g. _mod. Wins over include_patterns."""

    network_weights: PathText | None = None
    """A LoRA file to start from, instead of a new one."""

    timestep_sampling: TimestepSampling = "shift"
    """How noise levels (sigma) are drawn. `shift`: a sigmoid of a normal number, moved by `discrete_flow_shift`.
    `sigmoid`: the same without moving. `uniform`: all levels alike. `logit_normal`: a sigmoid of a normal number with
    `logit_mean` and `logit_std`, then moved: the official training."""

    discrete_flow_shift: PositiveFloat = 3.0
    """Moves sampled sigmas towards noise: s*t / (1 + (s-1)*t). Official training uses 3, sampling 5 to 9 (by
    checkpoint). Higher: more about layout and motion; lower: more about detail."""

    sigmoid_scale: PositiveFloat = 1.0
    """Spread of `shift` and `sigmoid`: above 1 draws more extreme noise levels, below 1 more medium ones."""

    logit_mean: float = 0.0
    """Centre of `logit_normal`: positive towards noise."""

    logit_std: PositiveFloat = 1.0
    """Spread of `logit_normal`."""

    min_timestep: Timestep = 0.0
    """Lowest timestep that is trained (0 = no noise). Raise it to leave fine detail as it is."""

    max_timestep: Timestep = 1000.0
    """Highest timestep that is trained (1000 = pure noise). Lower it to leave layout as it is."""

    i2v_prob: Probability = 1.0
    """For task i2v: how often a clip is trained with its first frame given; else as text-to-video."""

    caption_dropout: Probability = 0.0
    """How often a caption is replaced by the empty one, which keeps guidance working in long trainings."""

    save_every_n_epochs: Many | None = Field(None, json_schema_extra=SPEED)
    """Keep a copy of the LoRA every so many epochs."""

    save_every_n_steps: Many | None = Field(None, json_schema_extra=SPEED)
    """Keep a copy of the LoRA every so many steps."""

    save_last_n_epochs: Many | None = Field(None, json_schema_extra=SPEED)
    """Of the copies by epoch, keep only the last so many; all if not given."""

    save_last_n_steps: Many | None = Field(None, json_schema_extra=SPEED)
    """Of the copies by steps, keep only the last so many; all if not given."""

    state_every_n_steps: Many = Field(250, json_schema_extra=SPEED)
    """Save the whole state every so many steps: what a killed training continues from. The last two are kept."""

    save_precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the LoRA file. bfloat16 halves it at a small loss."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format in which the model computes. `auto`: bfloat16 on a GPU that has it, else float32."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_default_steps(cls, data: object) -> object:
        """The default number of steps is for those who gave neither."""
        if isinstance(data, dict) and data.get("max_train_epochs") is not None and "max_train_steps" not in data:
            return {**data, "max_train_steps": None}
        return data

    @field_validator("optimizer_args", mode="before")
    @classmethod
    def _numbers_in_text(cls, value: object) -> object:
        """Read '1e-4' as a number: YAML readers other than ours, such as Snakemake's --config, leave it as text."""
        return {name: _as_number(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("lr_warmup_steps")
    @classmethod
    def _steps_or_ratio(cls, value: int | float) -> int | float:
        if value < 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"found {value}, expected a whole number of steps, or a part of the training below 1")
        return int(value) if value == int(value) else value

    @field_validator("dtype", mode="before")
    @classmethod
    def _no_half_training(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError(f"found '{value}': float16 overflows in training; use bfloat16, float32 or auto")
        return value

    @field_validator("include_patterns", "exclude_patterns")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                compile_pattern(pattern)
            except PatternError as error:
                raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSettings:
        problems: list[tuple[tuple[str | int, ...], str]] = []
        if self.max_train_steps is not None and self.max_train_epochs is not None:
            problems.append((("max_train_epochs",), "max_train_steps is set too: keep one of them"))
        if self.max_train_steps is None and self.max_train_epochs is None:
            problems.append((("max_train_steps",), "needs a number here, or max_train_epochs"))
        if self.min_timestep >= self.max_timestep:
            text = f"found {self.min_timestep:g}, must be below max_timestep ({self.max_timestep:g})"
            problems.append((("min_timestep",), text))
        if self.blocks_to_swap and not self.gradient_checkpointing:
            text = "needs gradient_checkpointing: true: the backward pass visits the swapped blocks once more"
            problems.append((("blocks_to_swap",), text))
        if self.gradient_checkpointing_cpu_offload and not self.gradient_checkpointing:
            text = "has no effect without gradient_checkpointing: true"
            problems.append((("gradient_checkpointing_cpu_offload",), text))
        if self.attn_mode == "sage":
            text = "found 'sage': it computes in 8 bits and has no backward pass; it is for sample.attn_mode only"
            problems.append((("attn_mode",), text))
        for unit in ("epochs", "steps"):
            if getattr(self, f"save_last_n_{unit}") is not None and getattr(self, f"save_every_n_{unit}") is None:
                problems.append(((f"save_last_n_{unit}",), f"has no effect without save_every_n_{unit}"))
        if self.max_train_steps is not None and self.lr_warmup_steps > self.max_train_steps:
            text = f"found {self.lr_warmup_steps}, more than max_train_steps ({self.max_train_steps})"
            problems.append((("lr_warmup_steps",), text))
        raise_problems(problems)
        return self


def _as_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
