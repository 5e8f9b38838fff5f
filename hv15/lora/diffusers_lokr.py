"""LoKr in the form that diffusers' loader builds through PEFT (diffusers 0.42.1, peft 0.21.2).

The loader computes the shapes of each layer's factors from the layer's sizes, one `decompose_factor` for the whole file
and a rank for each layer, and silently skips tensors of another shape. So one such factor must yield all shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hv15.errors import UserError
from hv15.lora.adapters import Kronecker, product, scaled


def as_diffusers_builds(modules: Mapping[str, Kronecker]) -> tuple[dict[str, Kronecker], int]:
    """Return the same changes with w1 as one matrix that includes the strength, and w2 as PEFT builds it for its rank.

    Returns:
        The modules, and the `decompose_factor` that yields their shapes.

    Raises:
        UserError: no single factor yields the shapes of all modules.
    """
    shapes = {name: _factor_shapes(module) for name, module in modules.items()}
    # If the factor divides a layer's rows, it is the number of w1's rows; -1 means the most even division to PEFT.
    candidates = [*sorted({w1[0] for w1, _ in shapes.values()}), -1]
    factor = next((each for each in candidates if all(_fits(each, *shape) for shape in shapes.values())), None)
    if factor is None:
        name, (w1, w2) = next((name, shape) for name, shape in shapes.items() if not _fits(-1, *shape))
        raise UserError(
            f"LoRA: diffusers builds LoKr with one factor for all modules, but no factor fits the sizes of these: "
            f"{name} has w1 {list(w1)} and w2 {list(w2)}",
            hint="use --svd-rank (for example 64) for the nearest LoRA of that rank, or convert to comfyui",
        )
    return {name: _built(module) for name, module in modules.items()}, factor


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Divide `dimension` into two numbers whose product it is, as PEFT's function of this name does for w1 and w2.

    Args:
        factor: the first number if it divides `dimension`. Otherwise the numbers are as close to each other as possible
            with the smaller one first and at most `factor`; -1 means no limit.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small = max(each for each in range(1, int(dimension**0.5) + 1) if dimension % each == 0 and each <= limit)
    return small, dimension // small


def _factor_shapes(module: Kronecker) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return rows and columns of w1 and of w2."""
    (a, b), (c, d) = ((side[0].shape[0], side[-1].shape[1]) for side in (module.w1, module.w2))
    return (a, b), (c, d)


def _fits(factor: int, w1: tuple[int, int], w2: tuple[int, int]) -> bool:
    """Whether a factor divides a layer's rows and columns into exactly these shapes of w1 and w2."""
    return all(factorization(outer * inner, factor) == (outer, inner) for outer, inner in zip(w1, w2, strict=True))


def _built(module: Kronecker) -> Kronecker:
    """Make w1 one matrix that includes the strength; keep w2 factored if its rank is below half its larger side."""
    w1 = product(module.w1) if len(module.w1) == 2 else module.w1[0]
    w2, (_, sizes) = module.w2, _factor_shapes(module)
    if len(w2) == 2 and w2[0].shape[1] >= max(sizes) / 2:
        w2 = (product(w2),)
    rank = float(w2[0].shape[1]) if len(w2) == 2 else 1.0
    return replace(module, w1=(scaled(w1, module.scale),), w2=w2, alpha=rank)
