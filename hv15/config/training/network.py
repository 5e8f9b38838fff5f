"""The settings of `train:` for the LoRA itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, PositiveFloat, field_validator

from hv15.choices import LayerPreset, NetworkType
from hv15.config.loras import LoraSettings
from hv15.config.ordered import Ordered, check_pattern
from hv15.config.section import (
    NETWORK,
    PAST,
    UNLESS_DEFAULT,
    Block,
    Conflict,
    DropoutRate,
    Few,
    PathText,
    Section,
    only_with,
)

_LOKR = NETWORK | UNLESS_DEFAULT | only_with(network_type=("lokr",))


class NetworkSettings(Section):
    """The LoRA: its kind, its size, its layers, its dropout."""

    network_type: NetworkType = Field("lora", json_schema_extra=NETWORK | UNLESS_DEFAULT)
    """`lora`: two thin matrices per layer. `dora`: a LoRA that also scales each row of the weight, as ComfyUI does.
    `loha`: the elementwise product of two LoRAs, with up to the square of the rank: twice the file, a fifth more
    arithmetic. `lokr`: a Kronecker product, with the smallest file."""

    network_dim: Few = Field(32, json_schema_extra=NETWORK)
    """Rank of the LoRA. 8-16 for a style or a small dataset, 32-64 for characters and motion. The file's size is
    proportional to it."""

    network_alpha: PositiveFloat = Field(32.0, json_schema_extra=NETWORK)
    """Strength of the LoRA: its output is scaled by network_alpha / network_dim."""

    network_dim_patterns: Ordered[Few] = Field(default_factory=dict, json_schema_extra=NETWORK | UNLESS_DEFAULT)
    """Other ranks for some layers: regular expressions with a rank each, e.g. {img_attn: 64, _mod: 8}. A layer has the
    rank of the first expression that is found in its name, else `network_dim`."""

    network_alpha_patterns: Ordered[PositiveFloat] = Field(
        default_factory=dict, json_schema_extra=NETWORK | UNLESS_DEFAULT
    )
    """Other alphas for some layers, as `network_dim_patterns`."""

    lokr_factor: int = Field(-1, ge=-1, json_schema_extra=_LOKR)
    """For `lokr`: each side of a weight is divided into two factors, of which the smaller one is at most this. At rank
    32, -1 (as even as possible) gives a file of 19 MiB, 16 one of 43 MiB, 8 one of 85 MiB; a LoRA's has 675 MiB."""

    lokr_full_matrix: bool = Field(False, json_schema_extra=_LOKR)
    """For `lokr`: the larger matrix is whole instead of the product of two, so that rank and alpha have no effect. A
    layer also has a whole one if the rank is at least half its larger side."""

    network_dropout: DropoutRate = Field(0.0, json_schema_extra=PAST)
    """Fraction of the values between the LoRA's two matrices that is zeroed in training, against overfitting. For
    `lora` and `dora`."""

    rank_dropout: DropoutRate = Field(0.0, json_schema_extra=PAST)
    """Fraction of the LoRA's ranks that is zeroed in training; of the rows of its output for `loha` and `lokr`."""

    module_dropout: DropoutRate = Field(0.0, json_schema_extra=PAST)
    """Probability that a layer is used without its LoRA in a training step."""

    layers: LayerPreset = Field("all", json_schema_extra=NETWORK | UNLESS_DEFAULT)
    """Layers that get a LoRA: `all` 14 of each block, those of `attention`, those of the `mlp`, or all but those that
    compute the modulation from the noise level (`no_modulation`)."""

    layer_blocks: tuple[Block, Block] | None = Field(None, json_schema_extra=NETWORK | UNLESS_DEFAULT)
    """[first, last] block that gets a LoRA, counted from 0 to 53; all if not set."""

    include_patterns: tuple[str, ...] = Field((), json_schema_extra=NETWORK)
    """Regular expressions. If there are any, only layers whose names contain a match get a LoRA, e.g. img_attn."""

    exclude_patterns: tuple[str, ...] = Field((), json_schema_extra=NETWORK)
    """Regular expressions. Layers whose names contain a match get no LoRA, e.g. _mod; overrides include_patterns."""

    network_weights: PathText | None = Field(None, json_schema_extra=NETWORK)
    """A LoRA file to start from, instead of a new one."""

    dim_from_weights: bool = Field(False, json_schema_extra=NETWORK | UNLESS_DEFAULT)
    """Train the layers of the file in `network_weights`, each with its rank and alpha there, instead of those that the
    settings name."""

    base_weights: tuple[LoraSettings, ...] = Field((), json_schema_extra=PAST | UNLESS_DEFAULT)
    """LoRAs that act while training and are not trained, such as an adapter for training on a distilled checkpoint: a
    list of {path, multiplier}. The base's weights stay as they are, quantised or not. Add them to `sample.loras` if
    they should act on the samples, too."""

    @field_validator("include_patterns", "exclude_patterns", "network_dim_patterns", "network_alpha_patterns")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...] | Mapping[str, float]) -> tuple[str, ...] | Mapping[str, float]:
        for pattern in value:
            check_pattern(pattern)
        return value

    @field_validator("lokr_factor")
    @classmethod
    def _factor_divides(cls, value: int) -> int:
        if value in (0, 1):
            raise ValueError(f"found {value}, expected at least 2, or -1 for the most even division")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.network_type != "lokr":
            for name in ("lokr_factor", "lokr_full_matrix"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield (name,), "has no effect without network_type: lokr"
        if self.network_dropout and self.network_type in ("loha", "lokr"):
            text = f"needs network_type lora or dora: a {self.network_type} has no values between two matrices; use"
            yield ("network_dropout",), f"{text} rank_dropout"
        if self.layer_blocks is not None and self.layer_blocks[0] > self.layer_blocks[1]:
            yield ("layer_blocks",), f"found {list(self.layer_blocks)}, expected the first block before the last"
        if not self.dim_from_weights:
            return
        if self.network_weights is None:
            yield ("dim_from_weights",), "needs network_weights, the file with the ranks"
        for name in ("network_dim_patterns", "network_alpha_patterns", "include_patterns", "exclude_patterns"):
            if getattr(self, name):
                yield (name,), "has no effect with dim_from_weights: true"
        if self.layers != "all":
            yield ("layers",), "has no effect with dim_from_weights: true"
        if self.layer_blocks is not None:
            yield ("layer_blocks",), "has no effect with dim_from_weights: true"
