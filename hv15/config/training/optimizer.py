"""The settings of `train:` for the optimizer and its learning rate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from hv15.config.ordered import Ordered, check_pattern, joined
from hv15.config.problems import nearest
from hv15.config.section import PAST, Conflict, Section

OptimizerName = Literal[
    "AdamW",
    "AdamW8bit",
    "PagedAdamW8bit",
    "Adafactor",
    "Muon",
    "Lion",
    "CAME",
    "AdEMAMix",
    "Prodigy",
    "ProdigyPlusScheduleFree",
    "AdamWScheduleFree",
]
OptimizerType = OptimizerName | Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", max_length=200)]
"""A name, or the path of a class."""
OptimizerValue = bool | int | float | str | tuple[float, ...] | None

CLASSES: dict[str, str] = {
    "AdamW": "torch.optim.AdamW",
    "AdamW8bit": "bitsandbytes.optim.AdamW8bit",
    "PagedAdamW8bit": "bitsandbytes.optim.PagedAdamW8bit",
    "Adafactor": "transformers.optimization.Adafactor",
    "Muon": "torch.optim.Muon",
    "Lion": "bitsandbytes.optim.Lion",
    "CAME": "pytorch_optimizer.CAME",
    "AdEMAMix": "bitsandbytes.optim.AdEMAMix",
    "Prodigy": "prodigyopt.Prodigy",
    "ProdigyPlusScheduleFree": "prodigyplus.ProdigyPlusScheduleFree",
    "AdamWScheduleFree": "schedulefree.AdamWScheduleFree",
}
"""The class behind each name. Its path means the same as the name."""
_DISTRIBUTIONS = {"prodigyplus": "prodigy-plus-schedule-free"}
"""Where a package's distribution has another name."""
FINDS_RATE = ("Prodigy", "ProdigyPlusScheduleFree")
"""Those that find the learning rate themselves, and multiply it by the one that is set."""
_FOLDED: dict[str, str] = {each.lower(): name for name, path in CLASSES.items() for each in (name, path)}
_PLAIN_RATE = 0.01
"""A rate below this one is meant for an optimizer that does not find its own."""
_FACTOR = re.compile(r"(\d{1,9}\.?\d{0,9}|\.\d{1,9})(e[+-]?\d{1,2})?x", re.IGNORECASE | re.ASCII)
_MOST_FACTOR = 100
"""A rate for some layers that is this many times `learning_rate` is a factor that was written without its x."""


class OptimizerSettings(Section):
    """The optimizer and its learning rate."""

    learning_rate: NonNegativeFloat = Field(1e-4, json_schema_extra=PAST)
    """Peak learning rate. 1e-4 suits LoRA on this model with AdamW8bit or Muon; halve it if the loss jumps. 0 trains
    nothing, for comparison. `Prodigy` and `ProdigyPlusScheduleFree` find the rate themselves and multiply it by this
    one, which is then 1 by default."""

    optimizer_type: OptimizerType = Field("AdamW8bit", json_schema_extra=PAST)
    """`AdamW8bit`: AdamW with its state in 8 bits. `PagedAdamW8bit`: the same, and its state moves to the machine's
    memory when the GPU is full. `AdamW`: the same in 32 bits. `Muon`: as in the official training. `Adafactor`: its
    state needs the least memory. `Lion`: half of AdamW's state, a third of its rate. `CAME`: Adafactor with
    momentum. `AdEMAMix`: AdamW with a second, slow mean of the gradients. `Prodigy`: finds the rate
    itself. `AdamWScheduleFree`: trains at a constant rate and keeps an average of the weights, which is the LoRA;
    `ProdigyPlusScheduleFree` does both. Upper and lower case make no difference. Or the path of an optimizer class that
    is installed, such as pytorch_optimizer.SOAP: its module is imported, so it must be one that you trust."""

    optimizer_args: dict[str, OptimizerValue] = Field(default_factory=dict, json_schema_extra=PAST)
    """Other arguments of the optimizer by name, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}."""

    loraplus_lr_ratio: PositiveFloat | None = Field(None, json_schema_extra=PAST)
    """LoRA+: the learning rate of the LoRA's up matrices is that of its down matrices times this number. Its paper
    suggests 16 with a lower learning_rate; 4 is a mild choice."""

    learning_rate_patterns: Ordered[NonNegativeFloat | str] = Field(default_factory=dict, json_schema_extra=PAST)
    """Other learning rates for some layers: regular expression -> rate, or a factor on learning_rate, such as 0.5x.
    The first one that is found in a layer's name counts, e.g. {txt_: 0.5x, img_mlp: 2e-5}."""

    max_grad_norm: NonNegativeFloat = Field(1.0, json_schema_extra=PAST)
    """Gradients are scaled down to this norm; 0 turns it off."""

    scale_weight_norms: PositiveFloat | None = Field(None, json_schema_extra=PAST)
    """Keep the change of each layer's weights (up x down x alpha / rank) below this Frobenius norm: after each step,
    larger ones are scaled down. Against overfitting; 1 is a usual value."""

    @model_validator(mode="before")
    @classmethod
    def _own_rate_needs_no_default(cls, data: object) -> object:
        """Use a rate of 1 by default for optimizers that find the rate themselves."""
        if not isinstance(data, dict) or "learning_rate" in data:
            return data
        name = data.get("optimizer_type")
        finds_rate = isinstance(name, str) and _FOLDED.get(name.lower()) in FINDS_RATE
        return {**data, "learning_rate": 1.0} if finds_rate else data

    @field_validator("optimizer_type", mode="before")
    @classmethod
    def _names_in_any_case(cls, value: object) -> object:
        return _canonical(value)

    @field_validator("optimizer_args", mode="before")
    @classmethod
    def _numbers_in_text(cls, value: object) -> object:
        """Read '1e-4' as a number, because other YAML readers, such as Snakemake's for --config, return it as text."""
        return {name: _as_number(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("learning_rate_patterns", mode="before")
    @classmethod
    def _rates_in_text(cls, value: object) -> object:
        value = joined(value)
        return {name: _as_number(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("learning_rate_patterns")
    @classmethod
    def _rates_and_patterns(cls, value: dict[str, float | str]) -> dict[str, float | str]:
        for pattern, rate in value.items():
            check_pattern(pattern)
            if isinstance(rate, str) and not _FACTOR.fullmatch(rate):
                raise ValueError(f"{pattern!r:.200}: found {rate!r:.60}, expected a rate, or a factor such as 0.5x")
        return value

    @property
    def layer_rates(self) -> dict[str, float]:
        """`learning_rate_patterns` with factors multiplied out: regular expression -> peak learning rate."""
        return {
            pattern: float(rate[:-1]) * self.learning_rate if isinstance(rate, str) else rate
            for pattern, rate in self.learning_rate_patterns.items()
        }

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        name = self.optimizer_type
        if name in FINDS_RATE and self.learning_rate < _PLAIN_RATE:
            text = f"found {self.learning_rate:g}, but {name} finds the rate itself and multiplies it by this: use 1"
            yield ("learning_rate",), text
        for setting, value in (
            ("loraplus_lr_ratio", self.loraplus_lr_ratio),
            ("learning_rate_patterns", self.learning_rate_patterns),
        ):
            if value and name == "Prodigy":
                text = "has no effect on Prodigy, which finds one rate for all layers; use ProdigyPlusScheduleFree"
                yield (setting,), text
        for pattern, rate in self.layer_rates.items():
            if rate > _MOST_FACTOR * self.learning_rate > 0:
                text = f"found {rate:g}, which is {rate / self.learning_rate:,.0f} times learning_rate"
                yield ("learning_rate_patterns", pattern), f"{text}; write a factor as {rate:g}x"
        if self.averages_weights and self.scale_weight_norms is not None:
            text = f"cannot be used with {name}, whose average of the weights it would not change"
            yield ("scale_weight_norms",), text

    @property
    def averages_weights(self) -> bool:
        """Whether the optimizer is known to train without a schedule, by an average of the weights."""
        name, args = self.optimizer_type, self.optimizer_args
        return name == "AdamWScheduleFree" or (
            name == "ProdigyPlusScheduleFree" and bool(args.get("use_schedulefree", True))
        )


def package_of(name: OptimizerType) -> str:
    """Return the package with an optimizer's class, as Python imports it."""
    return CLASSES.get(name, name).partition(".")[0]


def distribution_of(name: OptimizerType) -> str:
    """Return the distribution with an optimizer's class, as pip calls it; for a path it is a guess."""
    package = package_of(name)
    return _DISTRIBUTIONS.get(package, package)


def _canonical(value: object) -> object:
    """Return the name for a value of `optimizer_type` in any case, or for the path of a named class.

    Raises:
        ValueError: it is neither a name nor the path of a class.
    """
    if not isinstance(value, str):
        return value
    found = _FOLDED.get(value.lower(), value)
    if found in CLASSES or "." in found:
        return found
    names = get_args(OptimizerName)
    shown = f"'{value[:60]}...'" if len(value) > 60 else f"'{value}'"
    raise ValueError(
        f"found {shown}, expected one of {', '.join(names)}, or the path of a class, such as torch.optim.RAdam"
        + nearest(value, names, cutoff=0.5)
    )


def _as_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
