"""What ComfyUI (0.8 to 0.10) does with a LoRA file for HunyuanVideo 1.5.

It looks for each weight of its model, in which q, k and v are one matrix, under four names, and in each for every kind
that it knows. What it does not find that way is left out, with one warning for each tensor.
"""

from __future__ import annotations

import math
import re

from hv15.lora.names import find_parts, generalise, layout_places
from hv15.lora.programs.file import FileModule, ForeignFile
from hv15.lora.programs.verdicts import (
    LOADS,
    LOST_MAGNITUDES,
    NO_LAYER,
    Verdict,
    Verdicts,
    all_of,
    lost_strength,
    no_kind,
    other_name,
    times,
)

_READ = re.compile(
    r"lora_(?:up|down|mid)\.weight|lora_[AB](?:\.default)?\.weight|lora_[AB]|lora(?:_linear_layer)?\.(?:up|down)\.weight"
    r"|alpha|dora_scale|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|[ab][12]\.weight|oft_blocks|rescale"
    r"|diff|diff_b|w_norm|b_norm|set_weight|reshape_weight"
)
"""The parts of a module that it reads, in any of its four names."""
_PAIRS = {
    "lora_up.weight": "lora_down.weight",
    "lora_B.weight": "lora_A.weight",
    "lora_B.default.weight": "lora_A.default.weight",
    "lora_B": "lora_A",
    "lora.up.weight": "lora.down.weight",
    "lora_linear_layer.up.weight": "lora_linear_layer.down.weight",
}
"""A matrix that makes it read a LoRA, and the one that must then be there. The first pair of a module counts."""
_CHECKPOINT_SPELLING = {
    "_mod.lin.": "_mod.linear.",
    "_attn.qkv.": "_attn_qkv.",
    "_attn.proj.": "_attn_proj.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
}
"""Parts of its own names, and those of the checkpoint that it reads too."""


def _names() -> dict[str, str]:
    """Return {name in a file: ComfyUI's own name}, with # for the number of a block."""
    found = {}
    for own in layout_places("comfyui"):
        found["lora_unet_" + own.replace(".", "_")] = found["diffusion_model." + own] = own
        spelling = own + "."
        for part, other in _CHECKPOINT_SPELLING.items():
            spelling = spelling.replace(part, other)
        for prefix in ("transformer.", "diffusion_model."):
            found[prefix + spelling.removesuffix(".")] = own
    return found


_NAMES = _names()


def weight_of(module: str) -> str | None:
    """Return ComfyUI's own name of the weight that a module's name in a file means to it; None if it means none."""
    if "#" in module:
        return None
    template, number = generalise(module)
    own = _NAMES.get(template)
    return own.replace("#", number) if own is not None else None


def verdicts(file: ForeignFile) -> Verdicts:
    """Return what happens to each tensor."""
    found = all_of(file.others, "dropped", no_kind("ComfyUI"))
    by_weight: dict[str, FileModule] = {}
    for name, module in file.modules.items():
        weight = weight_of(name)
        if weight is None:
            found |= all_of(module.keys.values(), "dropped", _why_unknown(name))
            continue
        if weight in by_weight:
            why = f"{by_weight[weight].name} changes the same weight: only one of the two has an effect"
            found |= all_of(module.keys.values(), "wrong", why)
            continue
        by_weight[weight] = module
        found |= _module(file, module, weight)
    return found


def _module(file: ForeignFile, module: FileModule, weight: str) -> Verdicts:
    """Return what happens to the tensors of a module that changes a weight of ComfyUI's model."""
    read = {part: key for part, key in module.keys.items() if _READ.fullmatch(part)}
    left = {part: key for part, key in module.keys.items() if part not in read}
    found: Verdicts = dict.fromkeys(read.values(), LOADS)
    for part, key in left.items():
        named = "ComfyUI looks for dora_scale" if part.startswith("lora_mag") else f"ComfyUI reads no {part}"
        found[key] = Verdict("dropped", named)
    matrices = [key for part, key in read.items() if part not in ("alpha", "dora_scale")]
    up = next((up for up in _PAIRS if up in read), None)
    if up is not None and _PAIRS[up] not in read:
        return found | all_of(read.values(), "stops", f"{module.name} has {up}, but no {_PAIRS[up]}")
    if not matrices:
        return found | all_of(read.values(), "wrong", "nothing else of this module is read, so it changes nothing")
    used = {up, _PAIRS[up]} if up is not None else set()
    others = [key for part, key in read.items() if part.startswith(("lora_A", "lora_d", "lora.d")) and part not in used]
    found |= all_of(others, "dropped", "the other matrix of this LoRA is missing")
    if module.has_alpha_elsewhere:
        return found | all_of(matrices, "wrong", lost_strength("ComfyUI", module.meant))
    if weight.endswith(".qkv") and _is_a_third(file, module):
        why = f"its alpha is not three times that of q, k and v, whose ranks add up here: {times(1 / 3)}"
        return found | all_of(matrices, "wrong", why)
    if any(part.startswith("lora_mag") for part in left):
        return found | all_of(matrices, "wrong", LOST_MAGNITUDES)
    if "dora_scale" in read and not _magnitudes_fit(file, module):
        why = "ComfyUI divides magnitudes of rows by norms of the base weight; these are relative to the changed weight"
        return found | all_of([*matrices, read["dora_scale"]], "wrong", why)
    return found


def _is_a_third(file: ForeignFile, module: FileModule) -> bool:
    """Whether joined q, k and v have a third of the strength that the training's settings give, as some converters do.

    kohya's programs record rank and alpha of the training in the metadata.
    """
    try:
        rank, alpha = (float(file.metadata.get(f"ss_network_{name}", "")) for name in ("dim", "alpha"))
    except ValueError:
        return False
    return alpha > 0 and module.rank == 3 * rank and module.alpha is not None and math.isclose(module.alpha, alpha)


def _magnitudes_fit(file: ForeignFile, module: FileModule) -> bool:
    """Whether ComfyUI divides a DoRA's magnitudes by the norms that are meant: the base's for rows, else not."""
    shape = module.shapes.get("dora_scale", ())
    by_rows = len(shape) != 2 or shape[0] != 1
    return by_rows == file.base_norms


def _why_unknown(name: str) -> str:
    if find_parts(name) is None:
        return NO_LAYER
    if any(each in name for each in ("attn_q", "attn_k", "attn_v")):
        return "ComfyUI has q, k and v in one matrix, attn.qkv"
    return other_name("ComfyUI")
