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
from hv15.models.weights.quantised import QuantisedLinear

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
    network = _network(dit, modules_of(state_dict), multiplier)
    network.apply_to()
    return len(network.loras)


@torch.no_grad()
def merged_weight(module: str, weight: Tensor, tensors: Mapping[str, Tensor], multiplier: float) -> Tensor:
    """The weight [out, in] (fp32) of a module after a LyCORIS network of one layer, given by its tensors, is merged.

    Its own `precise` merge of other number formats gives wrong weights for DoRA and fails for OFT (4.1.3).

    Raises:
        UserError: lycoris-lora is missing, or does not take these tensors.
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    root = owner = nn.Module()
    *path, last = module.split(".")
    for part in path:
        child = nn.Module()
        owner.add_module(part, child)
        owner = child
    owner.add_module(last, layer)
    network = _network(root, {module: tensors}, multiplier)
    network.loras[0].merge_to(multiplier)
    return layer.weight.detach()


def modules_of(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a LyCORIS file by official module name and what they are there: {module: {"oft_blocks": ...}}.

    Raises:
        UserError: names that LyCORIS does not give.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in state_dict.items():
        name, _, part = key.partition(".")
        parts = find_parts(name) if name.startswith(("lora_unet_", f"{_PREFIX}_")) else None
        module = next(iter(parts)) if parts is not None and len(parts) == 1 else None
        if module is None or kohya_name(module).partition("lora_unet_")[2] not in name:
            unknown.append(key)
            continue
        modules.setdefault(module, {})[part] = tensor
    if unknown:
        raise UserError(
            f"LoRA: {len(unknown)} of {len(state_dict)} tensors of this LyCORIS file are not named as expected, "
            f"first {unknown[0]}",
            hint="expected names such as lora_unet_double_blocks_0_img_attn_q.hada_w1_a",
        )
    return modules


def _network(dit: nn.Module, modules: Mapping[str, Mapping[str, Tensor]], multiplier: float) -> Any:
    names = {f"{_PREFIX}_{kohya_name(module).removeprefix('lora_unet_')}": module for module in modules}
    weights = {f"{name}.{part}": tensor for name, module in names.items() for part, tensor in modules[module].items()}
    quantised = [module for module in modules if isinstance(_found(dit, module), QuantisedLinear)]
    if quantised:
        raise UserError(
            f"LoRA: a LyCORIS file that depends on the base weights, which are quantised here ({quantised[0]})",
            hint="use quantize: none, or merge it into the checkpoint (hv15 merge)",
        )
    wrapper = _lycoris().wrapper
    network, _ = wrapper.create_lycoris_from_weights(multiplier, None, dit, weights_sd=weights)
    made = {module.lora_name for module in network.loras}
    if made != names.keys():
        raise UserError(
            f"LoRA: lycoris-lora takes {len(made)} of {len(names)} modules, without {min(names.keys() - made)}",
            hint="the file was made for a model with more blocks, or its kind cannot be loaded again",
        )
    for module in network.loras:
        module.requires_grad_(False).to(module.org_module[0].weight.device)
    return network


def _found(dit: nn.Module, module: str) -> nn.Module | None:
    try:
        return dit.get_submodule(module)
    except AttributeError:
        return None


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
