"""The three layouts in which the transformer is published, as tables: official, which hv15 uses, ComfyUI, diffusers.

A `Recipe` says how one tensor is made from tensors of another layout. The tables are for reading; the recipes for
writing are computed from those for reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hv15.choices import PublishedLayout
from hv15.models.weights.recipe import Recipe

COMFYUI_PREFIXES = ("model.diffusion_model.", "diffusion_model.")

_MARKS: dict[str, PublishedLayout] = {
    "double_blocks.0.img_attn_q.weight": "official",
    "double_blocks.0.img_attn_qkv.weight": "comfyui",
    "transformer_blocks.0.attn.add_q_proj.weight": "diffusers",
}

# Modules of the official layout and their diffusers names, first outside blocks, then inside.
_DIFFUSERS_MODULES = {
    "img_in.proj": "x_embedder.proj",
    "byt5_in.layernorm": "context_embedder_2.norm",
    "byt5_in.fc1": "context_embedder_2.linear_1",
    "byt5_in.fc2": "context_embedder_2.linear_2",
    "byt5_in.fc3": "context_embedder_2.linear_3",
    "vision_in.proj.0": "image_embedder.norm_in",
    "vision_in.proj.1": "image_embedder.linear_1",
    "vision_in.proj.3": "image_embedder.linear_2",
    "vision_in.proj.4": "image_embedder.norm_out",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    "time_in.mlp.0": "time_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_embed.timestep_embedder.linear_2",
    "time_r_in.mlp.0": "time_embed.timestep_embedder_r.linear_1",
    "time_r_in.mlp.2": "time_embed.timestep_embedder_r.linear_2",
    "cond_type_embedding": "cond_type_embed",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_DIFFUSERS_REFINER = {
    "norm1": "norm1",
    "self_attn_proj": "attn.to_out.0",
    "norm2": "norm2",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",
}
_DIFFUSERS_BLOCK = {
    "img_mod.linear": "norm1.linear",
    "img_attn_q": "attn.to_q",
    "img_attn_k": "attn.to_k",
    "img_attn_v": "attn.to_v",
    "img_attn_q_norm": "attn.norm_q",
    "img_attn_k_norm": "attn.norm_k",
    "img_attn_proj": "attn.to_out.0",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mod.linear": "norm1_context.linear",
    "txt_attn_q": "attn.add_q_proj",
    "txt_attn_k": "attn.add_k_proj",
    "txt_attn_v": "attn.add_v_proj",
    "txt_attn_q_norm": "attn.norm_added_q",
    "txt_attn_k_norm": "attn.norm_added_k",
    "txt_attn_proj": "attn.to_add_out",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
}
_REFINER = re.compile(r"txt_in\.individual_token_refiner\.blocks\.(\d+)\.(.+)")
_BLOCK = re.compile(r"double_blocks\.(\d+)\.(.+)")
_SPLIT = re.compile(r"(double_blocks\.\d+\.(?:img|txt)_attn)_([qkv])")


def reading_recipes(layout: PublishedLayout, official_keys: Iterable[str]) -> dict[str, Recipe]:
    """Return, for each official key, how it is made from the tensors of a file in `layout`."""
    make = {"official": _identity, "comfyui": _from_comfyui, "diffusers": _from_diffusers}[layout]
    return {key: make(key) for key in official_keys}


def writing_recipes(layout: PublishedLayout, official_keys: Iterable[str]) -> dict[str, Recipe]:
    """Return, for each key of a file in `layout`, how it is made from official tensors."""
    back: dict[str, Recipe] = {}
    parts: dict[str, dict[int, str]] = {}
    for key, recipe in reading_recipes(layout, official_keys).items():
        if recipe.count > 1:
            parts.setdefault(recipe.sources[0], {})[recipe.index] = key
            back[recipe.sources[0]] = Recipe(())  # reserves its position; replaced below when all parts are known
        elif len(recipe.sources) > 1:
            for index, source in enumerate(recipe.sources):
                back[source] = Recipe((key,), index, len(recipe.sources))
        else:
            back[recipe.sources[0]] = Recipe((key,), swap=recipe.swap)
    for source, pieces in parts.items():
        back[source] = Recipe(tuple(pieces[index] for index in sorted(pieces)))
    return back


def detect_dit_layout(keys: Iterable[str]) -> tuple[PublishedLayout, str] | None:
    """Return the layout and key prefix of the transformer among these keys; None if there is no transformer."""
    present = set(keys)
    for prefix in ("", *COMFYUI_PREFIXES):
        for mark, layout in _MARKS.items():
            if prefix + mark in present:
                return layout, prefix
    return None


def diffusers_module(module: str) -> str:
    """Return diffusers' name of an official module.

    Raises:
        KeyError: no such module. The refiner's fused qkv is not a module in diffusers, either.
    """
    if match := _BLOCK.fullmatch(module):
        return f"transformer_blocks.{match[1]}.{_DIFFUSERS_BLOCK[match[2]]}"
    if match := _REFINER.fullmatch(module):
        return f"context_embedder.token_refiner.refiner_blocks.{match[1]}.{_DIFFUSERS_REFINER[match[2]]}"
    return _DIFFUSERS_MODULES[module]


def _identity(key: str) -> Recipe:
    return Recipe((key,))


def _from_comfyui(key: str) -> Recipe:
    module, _, kind = key.rpartition(".")
    if match := _SPLIT.fullmatch(module):
        return Recipe((f"{match[1]}_qkv.{kind}",), "qkv".index(match[2]), 3)
    return Recipe((key,))


def _from_diffusers(key: str) -> Recipe:
    module, _, kind = key.rpartition(".")
    match = _REFINER.fullmatch(module)
    if match and match[2] == "self_attn_qkv":
        attention = f"context_embedder.token_refiner.refiner_blocks.{match[1]}.attn"
        return Recipe(tuple(f"{attention}.to_{part}.{kind}" for part in "qkv"))
    # diffusers stores (scale, shift) where the official final layer has (shift, scale)
    return Recipe((f"{diffusers_module(module)}.{kind}",), swap=module == "final_layer.adaLN_modulation.1")


_LOOKS = (
    ("lora_down", "a LoRA"),
    ("lora_A", "a LoRA"),
    ("lora_up", "a LoRA"),
    ("hada_w1", "a LoRA"),
    ("lokr_w1", "a LoRA"),
    ("single_transformer_blocks.", "the HunyuanVideo 1.0 transformer in diffusers' layout"),
    ("single_blocks.", "the HunyuanVideo 1.0 transformer"),
    ("double_blocks.", "the HunyuanVideo 1.5 transformer"),
    ("context_embedder_2.", "the HunyuanVideo 1.5 transformer in diffusers' layout"),
    ("blocks.0.cross_attn.", "the Wan transformer"),
    ("transformer_blocks.", "another transformer in diffusers' layout"),
    ("decoder.conv_in", "a VAE"),
    ("encoder.conv_in", "a VAE"),
    ("in_conv.conv.", "a latent upsampler of super resolution"),
    ("up.0.block.0.conv1.conv.", "a latent upsampler of super resolution"),
    ("vision_model.", "a SigLIP or CLIP image encoder"),
    ("visual.blocks.", "Qwen2.5-VL"),
    ("layers.0.self_attn.q_proj", "a language model"),
    ("encoder.block.0.layer.0.SelfAttention", "a T5 or ByT5 encoder"),
)


def looks_like(keys: Iterable[str]) -> str:
    """Say, for messages, what a checkpoint with these keys seems to be: "a VAE", or "an unknown model"."""
    present = list(keys)
    return next((name for mark, name in _LOOKS if any(mark in key for key in present)), "an unknown model")
