"""Makes tiny random models in the file layouts of the real ones, so that nothing has to be downloaded.

They show that everything works together, not good results: their weights are scaled so that states, latents and
velocities have about unit variance and pixels stay in range, as with the real models. Equal seeds give equal files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.demo.layout import DEMO_FILES
from hv15.demo.tokenizer import VOCABULARY, save_tokenizer
from hv15.models.dit import DiT
from hv15.models.dit_config import DiTConfig
from hv15.models.dit_files import save_dit
from hv15.models.upsamplers import Upsampler720, Upsampler720Config
from hv15.models.vae import VAE, VAEConfig, save_vae
from hv15.models.weights.checkpoint import load_into
from hv15.models.weights.writer import write_checkpoint
from hv15.records.json_values import JsonObject
from hv15.records.metadata import MODEL_SIZES

Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)

DIT = DiTConfig(
    hidden_size=96,
    num_heads=4,
    num_blocks=4,
    rope_dims=(4, 10, 10),
    text_dim=64,
    glyph_dim=48,
    glyph_hidden=64,
    vision_dim=32,
)
ENLARGING = replace(DIT, meanflow=True, low_resolution=True)
UPSAMPLER = Upsampler720Config(channels=DIT.latent_channels, hidden=8, blocks=1)
VAE_SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)

# Named as in transformers' config.json. The files include them, because not all sizes follow from the tensors.
TEXT: JsonObject = {
    "vocab_size": -(-VOCABULARY // 16) * 16,  # more rows than tokens, as in the real model
    "hidden_size": DIT.text_dim,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "mrope_section": [2, 3, 3],
}
GLYPHS: JsonObject = {
    "vocab_size": 1510,
    "d_model": DIT.glyph_dim,
    "d_kv": 12,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
VISION: JsonObject = {
    "hidden_size": DIT.vision_dim,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": 40,  # 5 x 5 tokens
}

# Factors on the standard deviation 1/sqrt(inputs) of the weights of some layers; the first match applies.
_GAINS = (
    ("_mod.linear.weight", 0.3),  # DiT: shifts, scales and gates well below 1, but not 0
    ("adaLN_modulation.1.weight", 0.3),
    (".conv2.conv.weight", 0.5),  # VAE: the last layer of a residual branch
    ("attn_1.proj_out.weight", 0.5),
    ("img_attn_proj.weight", 2.0),  # its inputs are averages over many tokens, which are small
    ("txt_attn_proj.weight", 2.0),
    ("o_proj.weight", 0.5),
    ("out_proj.weight", 0.5),
    ("SelfAttention.q.weight", 0.3),  # T5 does not divide by the root of the head size
)


def make_demo_models(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write all demo models and the tokenizer into a folder; return the path of each role.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    paths = {role: folder / Path(name).name for role, name in DEMO_FILES.items()}
    save_dit(_filled(DiT, DIT, seed), paths["dit"], dtype=torch.bfloat16)
    save_vae(_demo_vae(seed), paths["vae"], dtype=torch.float16)
    save_dit(_filled(DiT, ENLARGING, seed), paths["sr_dit"], dtype=torch.bfloat16)
    upsampler = _filled(Upsampler720, UPSAMPLER, seed).half().state_dict()
    write_checkpoint(paths["upsampler"], upsampler, upsampler.__getitem__, {"format": "pt"})
    write_encoders(folder, seed)
    return paths


def write_encoders(folder: Path, seed: int = 0) -> None:
    """Write the three encoders and the tokenizer: random, but equal for equal seeds.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = {role: folder / Path(name).name for role, name in DEMO_FILES.items()}
    _write_encoder(paths["text_encoder"], _text_shapes(), TEXT, torch.bfloat16, seed)
    _write_encoder(paths["glyph_encoder"], _glyph_shapes(), {}, torch.float16, seed)
    _write_encoder(paths["image_encoder"], _vision_shapes(), VISION, torch.float16, seed)
    save_tokenizer(paths["tokenizer"])


def draw(name: str, shape: torch.Size | tuple[int, ...], seed: int) -> Tensor:
    """Draw one fp32 tensor of this shape; it depends only on its name, its shape and the seed."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1
    values = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number))
    if name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * values  # norms
    if len(shape) == 1:
        return 0.1 * values  # biases
    if "embed" in name or name == "shared.weight":
        return values if name.endswith(("embed_tokens.weight", "shared.weight")) else 0.5 * values
    gain = next((gain for end, gain in _GAINS if name.endswith(end)), 1.0)
    return values * gain / math.sqrt(math.prod(shape[1:]))


def _filled(build: Callable[[Config], Model], config: Config, seed: int) -> Model:
    with torch.device("meta"):
        model = build(config)
    load_into(model, ((name, draw(name, value.shape, seed)) for name, value in model.state_dict().items()))
    return model


def _demo_vae(seed: int) -> VAE:
    """Make a random VAE whose latents have mean 0 and variance 1 and whose pixels have a standard deviation of 0.4."""
    vae = _filled(VAE, VAE_SIZES, seed)
    generator = torch.Generator().manual_seed(seed)
    colours = 2 * torch.randn(4, 3, 2, 4, 4, generator=generator)
    smooth = F.interpolate(colours, size=(5, 48, 48), mode="trilinear", align_corners=True)
    flat = F.interpolate(colours[..., :2, :2], size=(5, 48, 48), mode="nearest")
    clips = torch.cat([smooth, flat]).tanh()
    latents = torch.randn(2, VAE_SIZES.latent_channels, 2, 3, 3, generator=generator)
    with torch.no_grad():
        for _ in range(2):  # twice, because a shortcut around the encoder's last layer is not scaled
            _standardise(vae.encoder.conv_out.conv, vae.encode(clips), 1.0)
        _standardise(vae.decoder.conv_out.conv, vae.decode(latents), 0.4)
    return vae


def _standardise(conv: nn.Conv3d, outputs: Tensor, spread: float) -> None:
    """Scale and shift a layer's first channels to standardise its outputs; rounded, to be equal on all machines."""
    channels = outputs.shape[1]
    deviation, mean = torch.std_mean(outputs, dim=(0, 2, 3, 4))
    factor = (spread / deviation).round(decimals=2)
    assert conv.bias is not None
    conv.weight[:channels] *= factor[:, None, None, None, None]
    conv.bias[:channels] = ((conv.bias[:channels] - mean) * factor).round(decimals=2)


def _write_encoder(
    path: Path, shapes: Mapping[str, torch.Size], config: JsonObject, dtype: torch.dtype, seed: int
) -> None:
    described = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    metadata = {"format": "pt", **({MODEL_SIZES: json.dumps(config)} if config else {})}
    write_checkpoint(path, described, lambda name: draw(name, shapes[name], seed).to(dtype), metadata)


def _text_shapes() -> dict[str, torch.Size]:
    """Return all text tensors of a Qwen2.5-VL file with the hub's names, including those that the encoder ignores."""
    from transformers import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    rope: JsonObject = {
        "rope_type": "default", "rope_theta": TEXT["rope_theta"], "mrope_section": TEXT["mrope_section"]
    }  # fmt: skip
    sizes = {key: value for key, value in TEXT.items() if key not in rope}
    sizes |= {"bos_token_id": None, "eos_token_id": None}
    with torch.device("meta"):
        model = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig.from_dict({**sizes, "rope_parameters": rope}))
    shapes = {f"model.{name}": value.shape for name, value in model.state_dict().items()}
    return shapes | {"lm_head.weight": shapes["model.embed_tokens.weight"]}


def _glyph_shapes() -> dict[str, torch.Size]:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    with torch.device("meta"):
        model = T5Stack(T5Config.from_dict({**GLYPHS, "is_encoder_decoder": False}))
    shapes = {f"encoder.{name}": value.shape for name, value in model.state_dict().items()}
    return {"shared.weight": shapes.pop("encoder.embed_tokens.weight"), **shapes}


def _vision_shapes() -> dict[str, torch.Size]:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    with torch.device("meta"):
        model = SiglipVisionModel(SiglipVisionConfig.from_dict(VISION))
    return {f"vision_model.{name}": value.shape for name, value in model.state_dict().items()}
