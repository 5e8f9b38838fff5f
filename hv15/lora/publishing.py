"""Whether the LoRA that a training makes can be written in the layouts of other programs. Needs no torch.

`hv15 check` and planning ask, so that a conversion does not fail when the training is done. What each layout can hold
is in `hv15.lora.conversion`.
"""

from __future__ import annotations

from collections.abc import Iterable

from hv15.choices import PublishedLayout
from hv15.errors import UserError
from hv15.lora.factorization import common_factor, lokr_matrices
from hv15.lora.names import place_of
from hv15.lora.sizes import NetworkSizes


def check_formats(network: NetworkSizes, formats: Iterable[PublishedLayout]) -> None:
    """Check that the trained LoRA can be written in these layouts.

    Raises:
        UserError: it cannot.
    """
    for layout in formats:
        if (why := _refusal(network, layout)) is not None:
            raise UserError(
                f"convert.formats: {layout} cannot hold this {network.kind.type}: {why}",
                hint=f"leave {layout} out; `hv15 convert` can approximate a loha or lokr later, with --svd-rank"
                if network.kind.type in ("loha", "lokr")
                else f"leave {layout} out, or change train.network_type or the layers that are trained",
            )


def written_numbers(network: NetworkSizes, layout: PublishedLayout) -> int:
    """Return how many numbers a file of the trained LoRA holds in a layout, without the zeros of block diagonals."""
    if network.kind.type != "lokr" or layout != "comfyui":
        return network.parameters
    # Joined q, k and v are written as the full difference of their matrix.
    joined = _joined(network)
    whole = sum(3 * network.layers[layers[0]][0] * network.layers[layers[0]][1] for layers in joined.values())
    inside = {layer for layers in joined.values() for layer in layers}
    return whole + sum(network.numbers_of(layer) for layer in network.layers if layer not in inside)


def _refusal(network: NetworkSizes, layout: PublishedLayout) -> str | None:
    """Say why a layout cannot hold the LoRA; None if it can."""
    kind = network.kind
    if layout == "comfyui":
        parts = [layers for layers in _joined(network).values() if len(layers) < 3]
        if kind.type != "dora" or not parts:
            return None
        return f"it has q, k and v in one matrix, but only {', '.join(parts[0])} of one is trained"
    if kind.type == "lora":
        return None
    if kind.type == "lokr" and layout == "diffusers":
        sizes = (lokr_matrices(*sides, kind.factor) for sides in network.layers.values())
        return None if common_factor(sizes) is not None else "it has one factor for all layers, and none fits these"
    return "it holds only LoRA" if layout == "official" else "it holds only LoRA, or only LoKr"


def _joined(network: NetworkSizes) -> dict[str, list[str]]:
    """Return the layers that ComfyUI has in one matrix, by that matrix."""
    found: dict[str, list[str]] = {}
    for layer in network.layers:
        place = place_of(layer, "comfyui")
        if place.third is not None:
            found.setdefault(place.module, []).append(layer)
    return found
