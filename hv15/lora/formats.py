"""Reading any LoRA layout into adapters by part of the model, and writing adapters in a layout.

Accepted: kohya (ours, musubi), ComfyUI (native names, or `lora_unet_` with joined names; diffusion-pipe is this without
alpha), diffusers (SimpleTuner too; with or without `transformer.`), official (no prefix); each as LoRA, LoHa, LoKr or
full difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank, swap_halves
from hv15.lora.fused import join, split
from hv15.lora.lycoris import refuse_dora_and_others
from hv15.lora.names import Layout, Place, find_parts, layout_of, place_of, written_name

_KEY = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_down\.weight|lora_up\.weight|lora_[AB]\.(?:[A-Za-z]\w*\.)?weight|alpha|diff|"
    r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)"
)
_PLAIN = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}
_REQUIRED: tuple[tuple[str, ...], ...] = (
    ("lora_down.weight", "lora_up.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("lokr_w1", "lokr_w2"),
    ("diff",),
)

Parts = dict[str, Adapter]
"""Adapters by the part of the model they change: an official module name, with @0, @1, @2 for a third of one."""


def detect_format(keys: Iterable[str]) -> Layout:
    """Which layout a LoRA's tensor names belong to: kohya, comfyui, diffusers or official.

    Raises:
        UserError: no known LoRA names, or names of several layouts.
    """
    keys = list(keys)
    modules, _ = _group(keys)
    layouts = {layout for name in modules if (layout := layout_of(name)) is not None}
    if "comfyui" in layouts:
        layouts.discard("kohya")  # lora_unet_..._img_attn_proj belongs to both
    if not layouts:
        raise _unknown_keys(keys, len(keys))
    if len(layouts) > 1:
        raise UserError(
            f"LoRA: names of several layouts in one file: {', '.join(sorted(layouts))}",
            hint="the file holds two LoRAs, or one twice; export it again in one layout",
        )
    return layouts.pop()


def read_parts(state_dict: Mapping[str, Tensor]) -> Parts:
    """Read a LoRA of any supported layout; where no `.alpha` stands, alpha is the rank (strength 1).

    Raises:
        UserError: keys that belong to no known module or kind, incomplete or ill-shaped groups, DoRA.
    """
    refuse_dora_and_others(state_dict)
    modules, unknown = _group(state_dict)
    parts: Parts = {}
    for name, keys in modules.items():
        places = find_parts(name)
        if places is None:
            unknown.extend(keys.values())
            continue
        adapter = _adapter(name, {part: state_dict[key] for part, key in keys.items()})
        for part, piece in _pieces(adapter, places).items():
            if part in parts:
                raise UserError(
                    f"LoRA: {part} is changed twice, the second time by {name}",
                    hint="the file mixes two layouts of one LoRA; export it again in one of them",
                )
            if piece is not None:
                parts[part] = piece
    if unknown:
        raise _unknown_keys(unknown, len(state_dict))
    if not parts:
        raise UserError("LoRA: it changes nothing", hint="check that it is the right file and that its export finished")
    return parts


def arrange(parts: Parts, layout: Layout) -> dict[str, Adapter]:
    """Put adapters together as a layout's modules need them: {dotted module name without prefix: adapter}."""
    places: dict[str, dict[int | None, tuple[Place, Adapter]]] = {}
    for part, adapter in parts.items():
        place = place_of(part, layout)
        places.setdefault(place.module, {})[place.third] = (place, adapter)
    modules: dict[str, Adapter] = {}
    for name, found in places.items():
        if None in found:
            place, adapter = found[None]
            modules[name] = swap_halves(adapter) if place.swapped else adapter
        else:
            modules[name] = join([found[third][1] if third in found else None for third in range(3)])
    return modules


def write_modules(modules: Mapping[str, Adapter], layout: Layout) -> dict[str, Tensor]:
    """The tensors of a file: kohya and ComfyUI with alpha, diffusers and official without (their alpha is the rank)."""
    tensors: dict[str, Tensor] = {}
    for name, adapter in modules.items():
        for suffix, tensor in adapter.tensors().items():
            if layout != "kohya":
                suffix = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}.get(suffix, suffix)
            if suffix == "alpha" and layout in ("diffusers", "official"):
                continue
            tensors[f"{written_name(name, layout)}.{suffix}"] = tensor
    return tensors


def count_modules(keys: Iterable[str]) -> int:
    """How many modules a LoRA file changes, by its tensor names."""
    return len(_group(keys)[0])


def _group(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """{module: {normalised suffix: key}}, and the keys that are not a LoRA's."""
    modules: dict[str, dict[str, str]] = {}
    unknown = []
    for key in keys:
        match = _KEY.fullmatch(key)
        if match is None:
            unknown.append(key)
            continue
        part = _PLAIN.get(match["part"].split(".")[0], match["part"])
        group = modules.setdefault(match["module"], {})
        if part in group:
            raise UserError(f"LoRA: {group[part]} and {key} mean the same tensor", hint="export the LoRA again")
        group[part] = key
    return modules, unknown


def _unknown_keys(keys: list[str], total: int) -> UserError:
    if not keys:
        return UserError("LoRA: a file without tensors", hint="check that its export finished")
    return UserError(
        f"LoRA: {len(keys)} of {total} tensors belong to no part of HunyuanVideo 1.5, first {', '.join(keys[:3])}",
        hint="the file is of another model or of an unknown layout; expected names such as "
        "lora_unet_double_blocks_0_img_attn_q.lora_down.weight, "
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight, "
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight or double_blocks.0.img_attn_q.lora_A.weight",
    )


def _adapter(name: str, tensors: dict[str, Tensor]) -> Adapter:
    """Build the adapter of one module of a file."""
    alpha_given = tensors.pop("alpha", None)
    for side in ("lokr_w1", "lokr_w2"):
        if side not in tensors and f"{side}_a" in tensors and f"{side}_b" in tensors:
            _check_matrix(name, f"{side}_a", tensors[f"{side}_a"])
            tensors[side] = tensors[f"{side}_a"]
    kind = next((kind for kind in _REQUIRED if all(part in tensors for part in kind)), None)
    allowed = {*(kind or ()), *(f"{side}_{factor}" for side in ("lokr_w1", "lokr_w2") for factor in "ab")}
    if kind is None or (extra := set(tensors) - (allowed if "lokr_w1" in kind else set(kind))):
        found = sorted(tensors) if kind is None else sorted(extra)
        raise UserError(
            f"LoRA: {name} has {'only' if kind is None else 'besides also'} {', '.join(found) or 'alpha'}",
            hint="a LoRA needs both lora_down and lora_up (or lora_A and lora_B) for each module; export it again",
        )
    for part, tensor in tensors.items():
        _check_matrix(name, part, tensor)
    alpha = float(alpha_given.item()) if alpha_given is not None else None
    try:
        return _build(kind[0], tensors, alpha)
    except RuntimeError as error:
        shapes = ", ".join(f"{part} {list(tensor.shape)}" for part, tensor in sorted(tensors.items()))
        raise UserError(f"LoRA: the shapes of {name} do not fit together: {shapes}", hint="export it again") from error


def _build(kind: str, tensors: dict[str, Tensor], alpha: float | None) -> Adapter:
    if kind == "diff":
        return Difference(tensors["diff"])
    if kind == "lora_down.weight":
        down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
        if up.shape[1] != down.shape[0] or down.shape[0] == 0:
            raise RuntimeError("ranks differ")
        return LowRank(down, up, float(down.shape[0]) if alpha is None else alpha)
    if kind == "hada_w1_a":
        w1_a, w1_b, w2_a, w2_b = (tensors[part] for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
        ranks_fit = w1_a.shape[1] == w1_b.shape[0] > 0 and w2_a.shape[1] == w2_b.shape[0] > 0
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
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise UserError(
            f"LoRA: {name}.{part} is {tensor.dtype} {list(tensor.shape)}; expected a floating-point matrix",
            hint="only linear layers carry a LoRA in HunyuanVideo 1.5; is this file of another model?",
        )


def _pieces(adapter: Adapter, places: dict[str, Place]) -> dict[str, Adapter | None]:
    """Take a file's adapter apart into the model's parts."""
    if any(place.third is not None for place in places.values()):
        thirds = split(adapter)
        return {part: thirds[place.third or 0] for part, place in places.items()}
    ((part, place),) = places.items()
    return {part: swap_halves(adapter) if place.swapped else adapter}
