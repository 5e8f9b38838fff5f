"""`train:` the LoRA and its training."""

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
    """Seed of all random draws: order, noise, timesteps, dropout, LoRA weights. The same seed gives the same LoRA."""

    max_train_steps: Many | None = 1600
    """Length of the training in optimizer steps. Set this or `max_train_epochs`, not both."""

    max_train_epochs: Many | None = None
    """Length of the training in passes over the dataset (including repeats), instead of `max_train_steps`."""

    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate. 1e-4 suits LoRA on this model with AdamW8bit or Muon; halve it if the loss jumps. 0 trains
    nothing, for comparison."""

    optimizer_type: OptimizerType = "AdamW8bit"
    """`AdamW8bit`: its state needs the least memory. `AdamW`: the same in 32 bits. `Muon`: as in the official
    training."""

    optimizer_args: dict[str, OptimizerValue] = Field(default_factory=dict)
    """Other arguments of the optimizer by name, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}."""

    lr_scheduler: LRScheduler = "constant"
    """The learning rate after the warm-up: constant, or falling to 0 along a cosine or a line."""

    lr_warmup_steps: int | float = 0
    """Number of steps in which the learning rate rises from 0; a number below 1 is a fraction of the whole training
    (0.05 = 5 %)."""

    gradient_accumulation_steps: Few = 1
    """Number of batches per optimizer step: has the effect of a larger batch without more memory, but each step takes
    as many times longer."""

    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are scaled down to this norm; 0 turns it off."""

    gradient_checkpointing: bool = Field(True, json_schema_extra=SPEED)
    """Recompute activations in the backward pass instead of keeping them. About a third slower; without it, real sizes
    do not fit on any GPU."""

    gradient_checkpointing_cpu_offload: bool = Field(False, json_schema_extra=SPEED)
    """Keep the tensors of gradient checkpointing (the input of each block) in CPU memory instead of GPU memory. Slower;
    saves 54 x 4 KiB per token in bfloat16."""

    network_dim: Few = 32
    """Rank of the LoRA. 8-16 for a style or a small dataset, 32-64 for characters and motion. The file's size is
    proportional to it."""

    network_alpha: PositiveFloat = 32.0
    """Strength of the LoRA: its output is scaled by network_alpha / network_dim."""

    network_dropout: DropoutRate = 0.0
    """Fraction of the values between the LoRA's two matrices that is zeroed in training, against overfitting."""

    rank_dropout: DropoutRate = 0.0
    """Fraction of the LoRA's ranks that is zeroed in training."""

    module_dropout: DropoutRate = 0.0
    """Probability that a layer is used without its LoRA in a training step."""

    include_patterns: tuple[str, ...] = ()
    """Regular expressions. If there are any, only layers whose names contain a match get a LoRA, e.g. img_attn."""

    exclude_patterns: tuple[str, ...] = ()
    """Regular expressions. Layers whose names contain a match get no LoRA, e.g. _mod; overrides include_patterns."""

    network_weights: PathText | None = None
    """A LoRA file to start from, instead of a new one."""

    timestep_sampling: TimestepSampling = "shift"
    """Distribution of noise levels (sigma). `shift`: a sigmoid of a normal variable, shifted by `discrete_flow_shift`.
    `sigmoid`: the same without the shift. `uniform`: all levels equally. `logit_normal`: a sigmoid of a normal variable
    with `logit_mean` and `logit_std`, then shifted, as in the official training."""

    discrete_flow_shift: PositiveFloat = 3.0
    """Moves sampled sigmas towards noise: s*t / (1 + (s-1)*t). Official training uses 3, sampling 5 to 9 (by
    checkpoint). Higher values train more on layout and motion, lower values more on detail."""

    sigmoid_scale: PositiveFloat = 1.0
    """Spread of `shift` and `sigmoid`: above 1 for more extreme noise levels, below 1 for more medium ones."""

    logit_mean: float = 0.0
    """Centre of `logit_normal`; positive values are towards noise."""

    logit_std: PositiveFloat = 1.0
    """Spread of `logit_normal`."""

    min_timestep: Timestep = 0.0
    """Lowest timestep that is trained (0 = no noise). Increase it to leave fine detail unchanged."""

    max_timestep: Timestep = 1000.0
    """Highest timestep that is trained (1000 = pure noise). Lower it to leave the layout unchanged."""

    i2v_prob: Probability = 1.0
    """For task i2v: probability that a clip is trained with its first frame as the condition, else as text-to-video."""

    caption_dropout: Probability = 0.0
    """Probability that a caption is replaced by an empty one, so that guidance still works after long trainings."""

    save_every_n_epochs: Many | None = Field(None, json_schema_extra=SPEED)
    """Keep a copy of the LoRA every so many epochs."""

    save_every_n_steps: Many | None = Field(None, json_schema_extra=SPEED)
    """Keep a copy of the LoRA every so many steps."""

    save_last_n_epochs: Many | None = Field(None, json_schema_extra=SPEED)
    """Of the copies made by epochs, keep only the last so many; all if not set."""

    save_last_n_steps: Many | None = Field(None, json_schema_extra=SPEED)
    """Of the copies made by steps, keep only the last so many; all if not set."""

    state_every_n_steps: Many = Field(250, json_schema_extra=SPEED)
    """Save the whole state, from which a killed training resumes, every so many steps. The last two are kept."""

    save_precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the LoRA file. bfloat16 halves its size with little loss."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format in which the model computes. `auto`: bfloat16 on a GPU that supports it, else float32."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_default_steps(cls, data: object) -> object:
        """Drop the default number of steps if a number of epochs is set."""
        if isinstance(data, dict) and data.get("max_train_epochs") is not None and "max_train_steps" not in data:
            return {**data, "max_train_steps": None}
        return data

    @field_validator("optimizer_args", mode="before")
    @classmethod
    def _numbers_in_text(cls, value: object) -> object:
        """Read '1e-4' as a number, because other YAML readers, such as Snakemake's for --config, return it as text."""
        return {name: _as_number(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("lr_warmup_steps")
    @classmethod
    def _steps_or_ratio(cls, value: int | float) -> int | float:
        if value < 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"found {value}, expected a whole number of steps, or a fraction of the training below 1")
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
            problems.append((("max_train_epochs",), "max_train_steps is also set: keep one of them"))
        if self.max_train_steps is None and self.max_train_epochs is None:
            problems.append((("max_train_steps",), "is required unless max_train_epochs is set"))
        if self.min_timestep >= self.max_timestep:
            text = f"found {self.min_timestep:g}, expected less than max_timestep ({self.max_timestep:g})"
            problems.append((("min_timestep",), text))
        if self.blocks_to_swap and not self.gradient_checkpointing:
            text = "needs gradient_checkpointing: true, because the backward pass needs the swapped blocks again"
            problems.append((("blocks_to_swap",), text))
        if self.gradient_checkpointing_cpu_offload and not self.gradient_checkpointing:
            text = "has no effect without gradient_checkpointing: true"
            problems.append((("gradient_checkpointing_cpu_offload",), text))
        if self.context_parallel > 1 and self.network_dropout:
            text = "needs network_dropout: 0, because its masks are drawn for all tokens at once; use rank_dropout"
            problems.append((("context_parallel",), text))
        if self.attn_mode == "sage":
            text = "found 'sage', which computes in 8 bits and has no backward pass; it is only for sample.attn_mode"
            problems.append((("attn_mode",), text))
        for unit in ("epochs", "steps"):
            if getattr(self, f"save_last_n_{unit}") is not None and getattr(self, f"save_every_n_{unit}") is None:
                problems.append(((f"save_last_n_{unit}",), f"has no effect without save_every_n_{unit}"))
        if self.max_train_steps is not None and self.lr_warmup_steps > self.max_train_steps:
            text = f"found {self.lr_warmup_steps}, expected at most max_train_steps ({self.max_train_steps})"
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
