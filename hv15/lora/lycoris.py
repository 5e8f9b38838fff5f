"""LyCORIS files, through the optional package lycoris-lora.

LoHa and LoKr beside the weights use its functional forms. What only LyCORIS defines (DoRA's weight decomposition, OFT,
BOFT, (IA)^3, GLoRA, ...) needs the base weights and goes through its own network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.lora.adapters import Hadamard, Kronecker
from hv15.lora.names import find_parts, kohya_name

# Last parts of keys that only it understands. (Its forms for convolutions have no place in this model.)
_ONLY_LYCORIS = (
    "dora_scale", "oft_blocks", "rescale", "on_input", "w_norm", "b_norm", "lambda_layer",
    "a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight",
)  # fmt: skip
_DORA = (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")
_PREFIX = "lycoris"


def needs_lycoris(keys: Iterable[str]) -> bool:
    """Whether a LoRA has tensors that only lycoris-lora can apply."""
    return any(key.endswith(tuple(f".{suffix}" for suffix in _ONLY_LYCORIS)) for key in keys)


def refuse_dora_and_others(keys: Iterable[str]) -> None:
    """Raise UserError for tensors whose effect depends on the base weights: no layout but their own can hold it."""
    for key in keys:
        if key.endswith(_DORA):
            raise UserError(
                f"LoRA: a DoRA ({key}): it scales rows by the norms of the base weight, which no other layout can hold",
                hint="use it as it is, merge it into the base model, or train a LoRA without weight decomposition",
            )
    if needs_lycoris(keys):
        raise UserError(
            "LoRA: a kind that only lycoris-lora knows (such as OFT): its effect depends on the base weights, which no "
            "other layout can hold",
            hint="use it as it is, or merge it into the base model",
        )


def forward_of(adapter: Hadamard | Kronecker) -> Callable[[Tensor], Tensor]:
    """x (..., in) -> the adapter's share of the output (..., out); nothing is kept beside the factors."""
    functional = _lycoris().functional
    factors: tuple[Tensor | None, ...]
    if isinstance(adapter, Hadamard):
        bypass, gamma = functional.loha.bypass_forward_diff, adapter.scale
        factors = (adapter.w1_b, adapter.w1_a, adapter.w2_b, adapter.w2_a, None, None)
    else:
        bypass, gamma = functional.lokr.bypass_forward_diff, adapter.alpha
        sides = [(side[0], None, None) if len(side) == 1 else (None, *side) for side in (adapter.w1, adapter.w2)]
        factors = (*sides[0], *sides[1], None)

    def forward(x: Tensor) -> Tensor:
        nonlocal factors
        first = next(factor for factor in factors if factor is not None)
        if first.device != x.device or first.dtype != x.dtype:  # once, not at each step
            factors = tuple(None if factor is None else factor.to(x.device, x.dtype) for factor in factors)
        return bypass(x, None, *factors, gamma=gamma)

    return forward


def apply_lycoris(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float) -> int:
    """Put a LyCORIS network over the layers of a DiT; returns how many it changes.

    Raises:
        UserError: lycoris-lora is missing, or a module that the DiT does not have.
    """
    network = _network(dit, state_dict, multiplier)
    network.apply_to()
    return len(network.loras)


@torch.no_grad()
def merge_lycoris(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float) -> int:
    """Merge a LyCORIS network into the weights of a DiT (fp32 arithmetic); returns and raises as `apply_lycoris`."""
    network = _network(dit, state_dict, multiplier)
    layers = [module.org_module[0] for module in network.loras]
    for layer in layers:
        check_mergeable(layer)
    # Its own `precise` merge gives wrong weights for DoRA and fails for OFT (4.1.3): it gets fp32 weights instead.
    for layer, module in zip(layers, network.loras, strict=True):
        dtype = layer.weight.dtype
        layer.weight.data = layer.weight.data.float()
        module.merge_to(multiplier)
        layer.weight.data = layer.weight.data.to(dtype)
    return len(layers)


def check_mergeable(layer: Any) -> None:
    """Raise UserError for a layer whose weight is not plain numbers."""
    if type(layer) is not nn.Linear or layer.weight.dtype.itemsize < 2:
        raise UserError(
            f"LoRA: cannot be merged into a {type(layer).__name__} layer of {layer.weight.dtype}",
            hint="merge into the bf16 checkpoint first, or use the LoRA unmerged",
        )


def _network(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float) -> Any:
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in state_dict.items():
        name, _, part = key.partition(".")
        parts = find_parts(name) if name.startswith(("lora_unet_", f"{_PREFIX}_")) else None
        if parts is None or len(parts) != 1 or kohya_name(next(iter(parts))).partition("lora_unet_")[2] not in name:
            unknown.append(key)
            continue
        renamed[f"{_PREFIX}_{kohya_name(next(iter(parts))).removeprefix('lora_unet_')}.{part}"] = tensor
    if unknown:
        raise UserError(
            f"LoRA: {len(unknown)} of {len(state_dict)} tensors of this LyCORIS file are not named as expected, "
            f"first {unknown[0]}",
            hint="expected names such as lora_unet_double_blocks_0_img_attn_q.hada_w1_a",
        )
    names = {key.partition(".")[0] for key in renamed}
    wrapper = _lycoris().wrapper
    network, _ = wrapper.create_lycoris_from_weights(multiplier, None, dit, weights_sd=renamed)
    made = {module.lora_name for module in network.loras}
    if made != names:
        raise UserError(
            f"LoRA: lycoris-lora takes {len(made)} of {len(names)} modules, without {min(names - made)}",
            hint="the file was made for a model with more blocks, or its kind cannot be loaded again",
        )
    for module in network.loras:
        module.requires_grad_(False).to(module.org_module[0].weight.device)
    return network


def _lycoris() -> Any:
    try:
        import lycoris.functional
        import lycoris.functional.loha
        import lycoris.functional.lokr
        import lycoris.wrapper
    except ImportError as error:
        raise UserError(
            f"LoRA: a LyCORIS file needs lycoris-lora, which cannot be imported: {error}",
            hint="pip install 'hv15[lycoris]'",
        ) from error
    return lycoris
