"""What musubi-tuner (0.3) does with a LoRA file (`hv_1_5_generate_video.py --lora_weight FILE`).

It looks for each weight of the official checkpoint under one name, and warns of what is left.
"""

from __future__ import annotations

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
)

_PREFIX = "lora_unet_"
_LAYERS = frozenset(_PREFIX + name.replace(".", "_") for name in layout_places("kohya"))
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_KINDS: tuple[tuple[str, ...], ...] = (
    ("lora_down.weight", "lora_up.weight"),
    _LOHA,
    ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
    ("lokr_w1", "lokr_w2"),
)
"""The matrices that it reads, by kind."""


def verdicts(file: ForeignFile) -> Verdicts:
    """Return what happens to each tensor."""
    found = all_of(file.others, "dropped", no_kind("musubi"))
    for name, module in file.modules.items():
        if generalise(name)[0] not in _LAYERS or "#" in name:
            found |= all_of(module.keys.values(), "dropped", _why_unknown(name))
            continue
        found |= _module(module)
    return found


def _module(module: FileModule) -> Verdicts:
    kind = next((kind for kind in _KINDS if all(part in module.keys for part in kind)), None)
    if kind is None:
        return all_of(module.keys.values(), "dropped", _why_unread(module))
    found: Verdicts = {
        key: LOADS if part in kind or part == "alpha" else Verdict("dropped", f"musubi reads no {part}")
        for part, key in module.keys.items()
    }
    matrices = [module.keys[part] for part in kind]
    if module.has_alpha_elsewhere:
        return found | all_of(matrices, "wrong", lost_strength("musubi", module.meant))
    if module.has("dora_scale") or module.has("lora_magnitude_vector"):
        return found | all_of(matrices, "wrong", LOST_MAGNITUDES)
    return found


def _why_unread(module: FileModule) -> str:
    if "lora_A.weight" in module.keys:
        return "musubi reads lora_down and lora_up, not lora_A and lora_B"
    parts = ", ".join(sorted(module.keys))
    return f"musubi reads LoRA, LoHa and LoKr with a whole w1, not {parts}"


def _why_unknown(name: str) -> str:
    parts = find_parts(name)
    if parts is None:
        return NO_LAYER
    if len(parts) > 1:
        return "musubi has q, k and v apart"
    return f"musubi takes names such as {_PREFIX}double_blocks_0_img_attn_proj"
