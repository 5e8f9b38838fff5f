"""Reads any LoRA layout into adapters by part of the model, and writes adapters in a layout.

It reads kohya (hv15, musubi), ComfyUI (native names, or `lora_unet_` with joined names; diffusion-pipe without alpha),
diffusers (also SimpleTuner; with or without `transformer.`) and official (no prefix), each as LoRA, LoHa, LoKr or full
difference, and DoRA as hv15 trains it. Other changes that depend on the base weights are read by `hv15.lora.changes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank, RowChange, cast_up, swap_halves
from hv15.lora.dora import scaled_rows
from hv15.lora.fused import join, split
from hv15.lora.kinds import (
    ADAPTER_PARTS,
    BASE_MAGNITUDE,
    changed_twice,
    depends_on_base,
    group_parts,
    kind_of,
    refuse_unusable,
    unknown_keys,
)
from hv15.lora.names import ModulePlace, find_parts, place_of, written_name

PEFT_LAYOUTS: tuple[LoRALayout, ...] = ("diffusers", "official", "peft")
"""The layouts whose files are loaded through PEFT."""
Parts = dict[str, RowChange]
"""Changes by the part of the model that they change: an official module name, with @0, @1 or @2 for a third of it."""


def read_parts(state_dict: Mapping[str, Tensor]) -> Parts:
    """Read a LoRA of any supported layout; without an `.alpha` tensor, alpha is the rank (strength 1).

    Args:
        state_dict: matrices (rows, columns) and alphas ().

    Raises:
        UserError: keys belong to no known module or kind, a module's tensors are incomplete or do not fit together, or
            a kind depends on the base weights (DoRA, OFT, ...).
    """
    refuse_unusable(state_dict)
    modules, unknown = group_parts(state_dict)
    parts: Parts = {}
    for name, keys in modules.items():
        if depends_on_base(keys):
            raise UserError(
                f"LoRA: {kind_of(keys)} ({next(iter(keys.values()))}) cannot be converted to another layout: its "
                "effect depends on the base weights",
                hint="give the transformer that it is used on, --base FILE; or use or merge it as it is",
            )
        places = find_parts(name)
        if places is None:
            unknown.extend(keys.values())
            continue
        change = _read_change(name, {part: state_dict[key] for part, key in keys.items()})
        for part, piece in pieces(change, places).items():
            if part in parts:
                raise changed_twice(part, name)
            if piece is not None:
                parts[part] = piece
    if unknown or not state_dict:
        raise unknown_keys(unknown, len(state_dict))
    if not parts:
        raise UserError("LoRA: changes nothing", hint="check that it is the right file and that its export finished")
    return parts


def join_parts(parts: Parts, layout: LoRALayout) -> dict[str, RowChange]:
    """Join changes into the modules of a layout: {dotted module name without prefix: change}.

    Raises:
        UserError: a layout joins q, k and v, and only some of them have a DoRA.
    """
    places: dict[str, dict[int | None, tuple[ModulePlace, RowChange]]] = {}
    for part, change in parts.items():
        place = place_of(part, layout)
        places.setdefault(place.module, {})[place.third] = (place, change)
    modules: dict[str, RowChange] = {}
    for name, found in places.items():
        if None in found:
            place, change = found[None]
            modules[name] = swap_halves(change) if place.swapped else change
        else:
            modules[name] = join(name, [found[third][1] if third in found else None for third in range(3)])
    return modules


def write_modules(modules: Mapping[str, RowChange], layout: LoRALayout) -> dict[str, Tensor]:
    """Return the tensors of a file: matrices (rows, columns), and alphas () for kohya and ComfyUI.

    The layouts of PEFT have no alphas, because theirs is always the rank. The magnitudes of a `ScaledRows` must already
    be relative to PEFT's norms there (`hv15.lora.base_norms`).
    """
    tensors: dict[str, Tensor] = {}
    for name, change in modules.items():
        for suffix, tensor in change.tensors().items():
            if layout not in ("kohya", "comfyui_kohya"):
                suffix = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}.get(suffix, suffix)
            if layout in PEFT_LAYOUTS:
                if suffix == "alpha":
                    continue
                if suffix == BASE_MAGNITUDE:
                    suffix, tensor = "lora_magnitude_vector", tensor[:, 0].contiguous()
            tensors[f"{written_name(name, layout)}.{suffix}"] = tensor
    return tensors


def _read_change(name: str, tensors: Mapping[str, Tensor]) -> RowChange:
    """Build the change of one module of a file; as `read_adapter`, with the magnitudes that may belong to it."""
    adapter = read_adapter(name, {part: tensor for part, tensor in tensors.items() if part != BASE_MAGNITUDE})
    return scaled_rows(name, adapter, cast_up(tensors[BASE_MAGNITUDE])) if BASE_MAGNITUDE in tensors else adapter


def read_adapter(name: str, tensors: Mapping[str, Tensor]) -> Adapter:
    """Build the adapter of one module of a file.

    Args:
        name: the module, for messages.
        tensors: matrices (rows, columns) by part, as kohya and LyCORIS name them; alpha () may be missing.

    Raises:
        UserError: parts are missing or do not belong together, or their shapes do not fit.
    """
    matrices = {part: cast_up(tensor) for part, tensor in tensors.items() if part != "alpha"}
    for side in ("lokr_w1", "lokr_w2"):
        if side not in matrices and f"{side}_a" in matrices and f"{side}_b" in matrices:
            matrices[side] = matrices[f"{side}_a"]
    kind = next((kind for kind in ADAPTER_PARTS if all(part in matrices for part in kind)), None)
    if kind is None:
        raise UserError(
            f"LoRA: {name} has only {', '.join(sorted(matrices)) or 'alpha'}",
            hint="a LoRA needs both lora_down and lora_up (or lora_A and lora_B) for each module; export it again",
        )
    factors = {f"{side}_{factor}" for side in kind for factor in "ab"} if "lokr_w1" in kind else set()
    if extra := set(matrices) - set(kind) - factors:
        raise UserError(
            f"LoRA: {name} is {kind_of(kind)}, but also has {', '.join(sorted(extra))}",
            hint="export it again: the file holds two changes of one module",
        )
    for part, tensor in matrices.items():
        _check_matrix(name, part, tensor)
    alpha = _alpha(name, tensors["alpha"]) if "alpha" in tensors else None
    try:
        return _build(kind[0], matrices, alpha)
    except RuntimeError as error:
        shapes = ", ".join(f"{part} {list(tensor.shape)}" for part, tensor in sorted(matrices.items()))
        raise UserError(f"LoRA: the shapes of {name} do not fit together: {shapes}", hint="export it again") from error


def _build(kind: str, tensors: Mapping[str, Tensor], alpha: float | None) -> Adapter:
    if kind == "diff":
        return Difference(tensors["diff"])
    if kind == "lora_down.weight":
        down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
        if up.shape[1] != down.shape[0]:
            raise RuntimeError("ranks differ")
        return LowRank(down, up, float(down.shape[0]) if alpha is None else alpha)
    if kind == "hada_w1_a":
        w1_a, w1_b, w2_a, w2_b = (tensors[part] for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
        ranks_fit = w1_a.shape[1] == w1_b.shape[0] and w2_a.shape[1] == w2_b.shape[0]
        if not ranks_fit or w1_a.shape[0] != w2_a.shape[0] or w1_b.shape[1] != w2_b.shape[1]:
            raise RuntimeError("shapes differ")
        return Hadamard(w1_a, w1_b, w2_a, w2_b, float(w1_b.shape[0]) if alpha is None else alpha)
    sides = [
        (tensors[f"{side}_a"], tensors[f"{side}_b"]) if f"{side}_a" in tensors else (tensors[side],)
        for side in ("lokr_w1", "lokr_w2")
    ]
    if any(len(side) == 2 and side[0].shape[1] != side[1].shape[0] for side in sides):
        raise RuntimeError("ranks differ")
    rank = next((side[0].shape[1] for side in sides if len(side) == 2), 1)
    return Kronecker(sides[0], sides[1], float(rank) if alpha is None else alpha)


def _check_matrix(name: str, part: str, tensor: Tensor) -> None:
    if tensor.ndim != 2 or 0 in tensor.shape or not tensor.is_floating_point():
        raise UserError(
            f"LoRA: {name}.{part} is {tensor.dtype} {list(tensor.shape)}; expected a floating-point matrix",
            hint="check that the LoRA is for HunyuanVideo 1.5, where only linear layers have one",
        )


def _alpha(name: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise UserError(
            f"LoRA: {name}.alpha is {tensor.dtype} {list(tensor.shape)}; expected one number", hint="export it again"
        )
    return float(tensor.item())


def pieces(change: RowChange, places: dict[str, ModulePlace]) -> dict[str, RowChange | None]:
    """Divide a change of one module of a file into those of the model's parts; see `find_parts`."""
    if any(place.third is not None for place in places.values()):
        thirds = split(change)
        return {part: thirds[place.third or 0] for part, place in places.items()}
    ((part, place),) = places.items()
    return {part: swap_halves(change) if place.swapped else change}
