"""LoKr in the form that diffusers' loader builds through PEFT (diffusers 0.42.1, peft 0.21.2).

It builds each layer's factors anew from the layer's sizes, one `decompose_factor` for the whole file and a rank for
each layer, and silently leaves out what has another shape. So one such factor must give the sizes of all factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hv15.errors import UserError
from hv15.lora.adapters import Kronecker, product, scaled


def as_diffusers_builds(modules: Mapping[str, Kronecker]) -> tuple[dict[str, Kronecker], int]:
    """The same changes with w1 as one matrix that holds the strength, and w2 as PEFT builds it for its rank.

    Returns:
        The modules, and the `decompose_factor` that gives their sizes.

    Raises:
        UserError: no one factor gives the sizes of all modules.
    """
    shapes = {name: _factor_shapes(module) for name, module in modules.items()}
    # A factor stands as w1's rows where it divides them; -1 is PEFT's name for the most even division.
    candidates = [*sorted({w1[0] for w1, _ in shapes.values()}), -1]
    factor = next((each for each in candidates if all(_gives(each, *shape) for shape in shapes.values())), None)
    if factor is None:
        name, (w1, w2) = next((name, shape) for name, shape in shapes.items() if not _gives(-1, *shape))
        raise UserError(
            f"LoRA: diffusers builds LoKr with one factor for all modules, and none gives the sizes of these: "
            f"{name} has w1 {list(w1)} and w2 {list(w2)}",
            hint="give --svd-rank (for example 64) for the nearest LoRA of that rank, or convert to comfyui",
        )
    return {name: _built(module) for name, module in modules.items()}, factor


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is `dimension`, as PEFT divides a side between w1 and w2 (its function of this name).

    Args:
        factor: wanted for the first number; where it is no divisor, or -1, they are as near one another as the factor
            (the dimension) allows, the smaller one first.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small = max(each for each in range(1, int(dimension**0.5) + 1) if dimension % each == 0 and each <= limit)
    return small, dimension // small


def _factor_shapes(module: Kronecker) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of w1 and of w2."""
    (a, b), (c, d) = ((side[0].shape[0], side[-1].shape[1]) for side in (module.w1, module.w2))
    return (a, b), (c, d)


def _gives(factor: int, w1: tuple[int, int], w2: tuple[int, int]) -> bool:
    """Whether a factor divides a layer's rows and columns between w1 and w2 as they are."""
    return all(factorization(outer * inner, factor) == (outer, inner) for outer, inner in zip(w1, w2, strict=True))


def _built(module: Kronecker) -> Kronecker:
    """w1 as one matrix that holds the strength; w2 factored only while its rank is below half its larger side."""
    w1 = product(module.w1) if len(module.w1) == 2 else module.w1[0]
    w2, (_, sizes) = module.w2, _factor_shapes(module)
    if len(w2) == 2 and w2[0].shape[1] >= max(sizes) / 2:
        w2 = (product(w2),)
    rank = float(w2[0].shape[1]) if len(w2) == 2 else 1.0
    return replace(module, w1=(scaled(w1, module.scale),), w2=w2, alpha=rank)
