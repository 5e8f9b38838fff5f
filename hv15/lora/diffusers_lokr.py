"""LoKr in the form that diffusers' loader builds through PEFT (diffusers 0.42.1, peft 0.21.2).

The loader computes the shapes of each layer's factors from the layer's sizes, one `decompose_factor` for the whole file
and a rank for each layer, and silently skips tensors of another shape. So one such factor must yield all shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hv15.errors import UserError
from hv15.lora.adapters import Kronecker, product, scaled
from hv15.lora.factorization import Matrix, common_factor, divides_into


def as_diffusers_builds(modules: Mapping[str, Kronecker]) -> tuple[dict[str, Kronecker], int]:
    """Return the same changes with w1 as one matrix that includes the strength, and w2 as PEFT builds it for its rank.

    Returns:
        The modules, and the `decompose_factor` that yields their shapes.

    Raises:
        UserError: no single factor yields the shapes of all modules.
    """
    shapes = {name: _factor_shapes(module) for name, module in modules.items()}
    factor = common_factor(shapes.values())
    if factor is None:
        name, (w1, w2) = next((name, shape) for name, shape in shapes.items() if not divides_into(-1, *shape))
        raise UserError(
            f"LoRA: diffusers builds LoKr with one factor for all modules, but no factor fits the sizes of these: "
            f"{name} has w1 {list(w1)} and w2 {list(w2)}",
            hint="use --svd-rank (for example 64) for the nearest LoRA of that rank, or convert to comfyui",
        )
    return {name: _built(module) for name, module in modules.items()}, factor


def _factor_shapes(module: Kronecker) -> tuple[Matrix, Matrix]:
    """Return rows and columns of w1 and of w2."""
    (a, b), (c, d) = ((side[0].shape[0], side[-1].shape[1]) for side in (module.w1, module.w2))
    return (a, b), (c, d)


def _built(module: Kronecker) -> Kronecker:
    """Make w1 one matrix that includes the strength; keep w2 factored if its rank is below half its larger side."""
    w1 = product(module.w1) if len(module.w1) == 2 else module.w1[0]
    w2, (_, sizes) = module.w2, _factor_shapes(module)
    if len(w2) == 2 and w2[0].shape[1] >= max(sizes) / 2:
        w2 = (product(w2),)
    rank = float(w2[0].shape[1]) if len(w2) == 2 else 1.0
    return replace(module, w1=(scaled(w1, module.scale),), w2=w2, alpha=rank)
