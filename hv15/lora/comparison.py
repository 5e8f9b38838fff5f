"""Compares what two LoRAs, or two checkpoints, do to the weights: norms by block, angles, the layers that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference
from hv15.lora.base_norms import read_with_base
from hv15.lora.files import read_lora
from hv15.lora.formats import Parts, join_parts, read_parts
from hv15.lora.low_rank_sums import inner_product
from hv15.lora.weighted import naming
from hv15.models.dit_files import LinearWeights, block_number
from hv15.models.layouts import detect_dit_layout
from hv15.models.weights.checkpoint import open_checkpoint

_ROUNDING = 1e-6
"""A relative difference that arithmetic in fp32 alone makes."""


@dataclass(frozen=True)
class Products:
    """Sums over elements of two changes of weights: a * a, b * b, a * b."""

    one: float = 0.0
    other: float = 0.0
    mixed: float = 0.0

    def __add__(self, more: Products) -> Products:
        return Products(self.one + more.one, self.other + more.other, self.mixed + more.mixed)

    @property
    def norms(self) -> tuple[float, float]:
        """Frobenius norms of both."""
        return math.sqrt(max(self.one, 0.0)), math.sqrt(max(self.other, 0.0))  # rounding may make a zero negative

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between both, as vectors; None if one is zero."""
        product = math.prod(self.norms)
        return max(-1.0, min(1.0, self.mixed / product)) if product else None

    @property
    def difference(self) -> float:
        """The norm of a - b, relative to the larger of both norms."""
        largest = max(self.norms)
        return math.sqrt(max(self.one + self.other - 2 * self.mixed, 0.0)) / largest if largest else 0.0


@dataclass(frozen=True)
class Comparison:
    """Two files, layer by layer of the official model."""

    layers: Mapping[str, Products]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Layers that only the one, or only the other changes."""

    def by_block(self) -> dict[str, Products]:
        """Return the products by block: "block 0", ..., and "other layers"."""
        found: dict[str, Products] = {}
        for layer, products in self.layers.items():
            name = f"block {block_number(layer)}" if block_number(layer) >= 0 else "other layers"
            found[name] = found.get(name, Products()) + products
        return dict(sorted(found.items(), key=lambda item: (item[0] == "other layers", len(item[0]), item[0])))

    @property
    def whole(self) -> Products:
        """All layers together."""
        return sum(self.layers.values(), Products())

    def most_different(self, count: int) -> list[tuple[str, float]]:
        """Return the layers that differ most, with their relative difference."""
        found = [(layer, products.difference) for layer, products in self.layers.items()]
        return sorted((pair for pair in found if pair[1] > _ROUNDING), key=lambda pair: -pair[1])[:count]


def compare(one: Path, other: Path, base: Path | None = None) -> Comparison:
    """Compare two LoRAs of any layouts, or two checkpoints of the transformer, whose weights are then compared.

    Args:
        base: the transformer, for kinds of LoRA that depend on its weights.

    Raises:
        UserError: a file cannot be used, or one is a LoRA and the other a checkpoint.
    """
    kinds = [_is_transformer(path) for path in (one, other)]
    if kinds == [True, True]:
        return _checkpoints(one, other)
    if any(kinds):
        lora, dit = (one, other) if kinds[1] else (other, one)
        raise UserError.at(lora, f"is a LoRA, and {dit} a transformer", hint="compare two files of one kind")
    changes = [_changes(path, base) for path in (one, other)]
    names = dict.fromkeys([*changes[0], *changes[1]])
    for name in changes[0].keys() & changes[1].keys():
        shapes = [list(each[name].shape) for each in changes]
        if shapes[0] != shapes[1]:
            raise UserError.at(
                other,
                f"{name} changes a weight of {shapes[1]}, in {one} of {shapes[0]}",
                hint="compare files of one model",
            )
    return Comparison({name: _products(changes[0].get(name), changes[1].get(name)) for name in names}, _only(*changes))


def _checkpoints(one: Path, other: Path) -> Comparison:
    first, second = LinearWeights(one), LinearWeights(other)
    names = [name for name in first.shapes if second.shapes.get(name) == first.shapes[name]]
    layers = {name: _products(Difference(first(name)), Difference(second(name))) for name in names}
    return Comparison(layers, _only(first.shapes, second.shapes))


def _only(one: Iterable[str], other: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first, second = dict.fromkeys(one), dict.fromkeys(other)
    return tuple(name for name in first if name not in second), tuple(name for name in second if name not in first)


def _is_transformer(path: Path) -> bool:
    return detect_dit_layout(open_checkpoint(path)) is not None


def _changes(path: Path, base: Path | None) -> dict[str, Adapter]:
    """Return the change of each layer, by official name."""
    state_dict, _ = read_lora(path)
    weights = None if base is None else LinearWeights(base)
    with naming(path):
        parts: Parts = read_parts(state_dict) if weights is None else read_with_base(state_dict, weights)
        found: dict[str, Adapter] = {}
        for name, change in join_parts(parts, "official").items():
            if isinstance(change, Adapter):
                found[name] = change
            elif weights is None:
                raise UserError(
                    f"LoRA: {name} is a DoRA, whose change depends on the base weights",
                    hint="give the transformer that it is used on, --base FILE",
                )
            else:
                weight = weights(name)
                found[name] = Difference(change.merged(weight, 1.0) - weight)
    return found


def _products(one: Adapter | None, other: Adapter | None) -> Products:
    return Products(
        inner_product(one, one) if one is not None else 0.0,
        inner_product(other, other) if other is not None else 0.0,
        inner_product(one, other) if one is not None and other is not None else 0.0,
    )
