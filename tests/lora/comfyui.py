"""What ComfyUI does with a LoRA file for HunyuanVideo 1.5, restated from its behaviour in the fewest words.

Its model keeps q, k, v in one matrix under names of its own. A LoRA tensor counts when its name is a known spelling of
a weight's name; whatever else stands in the file is skipped with a warning. The change is up @ down * alpha / rank, or
up @ down without alpha. With magnitudes of rows, the changed weight is multiplied by magnitude / norm of the row of the
weight before the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Spelling in checkpoints -> ComfyUI's own, in the order in which it replaces them.
_RENAMES = {
    "txt_in.t_embedder.mlp.0.": "txt_in.t_embedder.in_layer.",
    "txt_in.t_embedder.mlp.2.": "txt_in.t_embedder.out_layer.",
    "txt_in.c_embedder.linear_1.": "txt_in.c_embedder.in_layer.",
    "txt_in.c_embedder.linear_2.": "txt_in.c_embedder.out_layer.",
    "_mod.linear.": "_mod.lin.",
    "_attn_qkv.": "_attn.qkv.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.2.",
    "_attn_proj.": "_attn.proj.",
    "_in.mlp.2.": "_in.out_layer.",
    "_in.mlp.0.": "_in.in_layer.",
}


def weight_name(checkpoint_key: str) -> str:
    """The name in ComfyUI's model of a weight of its checkpoint."""
    for spelling, own in _RENAMES.items():
        checkpoint_key = checkpoint_key.replace(spelling, own)
    return checkpoint_key


def changes(file: Mapping[str, Tensor], checkpoint_keys: Iterable[str]) -> tuple[dict[str, Tensor], set[str]]:
    """{checkpoint key: change in float64}, and the tensors that ComfyUI skips."""
    found, used = {}, set()
    for key in checkpoint_keys:
        module = weight_name(key).removesuffix(".weight")
        for name in (f"diffusion_model.{module}", "lora_unet_" + module.replace(".", "_")):
            for up, down in (("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight")):
                if f"{name}.{up}" in file:
                    factors = file[f"{name}.{up}"].double(), file[f"{name}.{down}"].double()
                    alpha = file.get(f"{name}.alpha")
                    strength = alpha.item() / factors[1].shape[0] if alpha is not None else 1.0
                    found[key] = factors[0] @ factors[1] * strength
                    used |= {f"{name}.{up}", f"{name}.{down}", f"{name}.alpha"} & file.keys()
            if f"{name}.hada_w1_a" in file:
                parts = [file[f"{name}.hada_w{i}_{j}"].double() for i in (1, 2) for j in "ab"]
                strength = file[f"{name}.alpha"].item() / parts[1].shape[0]
                found[key] = (parts[0] @ parts[1]) * (parts[2] @ parts[3]) * strength
                used |= {f"{name}.hada_w{i}_{j}" for i in (1, 2) for j in "ab"} | {f"{name}.alpha"}
            if f"{name}.lokr_w1" in file:
                w2, strength = file.get(f"{name}.lokr_w2"), 1.0
                if w2 is None:
                    w2 = file[f"{name}.lokr_w2_a"].double() @ file[f"{name}.lokr_w2_b"].double()
                    strength = file[f"{name}.alpha"].item() / file[f"{name}.lokr_w2_b"].shape[0]
                found[key] = torch.kron(file[f"{name}.lokr_w1"].double(), w2.double()) * strength
                used |= {f"{name}.{part}" for part in ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha")}
            if f"{name}.diff" in file:
                found[key] = file[f"{name}.diff"].double()
                used.add(f"{name}.diff")
    return found, set(file) - used


def changed(file: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """{checkpoint key: changed weight in float64} of all weights at strength 1, and the tensors that ComfyUI skips."""
    found, skipped = changes(file, weights)
    result = {key: weight.double() + found.get(key, 0.0) for key, weight in weights.items()}
    for key, weight in weights.items():
        module = weight_name(key).removesuffix(".weight")
        for name in (f"diffusion_model.{module}", "lora_unet_" + module.replace(".", "_")):
            if (magnitude := file.get(f"{name}.dora_scale")) is not None:
                assert magnitude.shape == (len(weight), 1)  # else it would take other norms
                result[key] *= magnitude.double() / weight.double().norm(dim=1, keepdim=True)
                skipped.discard(f"{name}.dora_scale")
    return result, skipped
