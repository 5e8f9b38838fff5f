"""Text states of Qwen2.5-VL, from which the transformer reads a prompt.

- The states are the raw output of the layer before the last two (`hidden_states[-3]`). Those two, the final norm, the
  head and the vision tower are neither built nor read; of the 7B model, 26 of 28 layers and the embedding are.
- There is no key-value cache, since every prompt is read once.
- The layers are those of transformers. Sizes come from the file's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from hv15.choices import QWEN, WeightFormat
from hv15.errors import UserError
from hv15.models.encoder_files import fill, written_config, wrong_model
from hv15.models.tokenizer import PromptTokenizer, load_qwen_tokenizer
from hv15.models.weights.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer


LAYERS_LEFT_OUT = 2
"""The number of layers at the end of the checkpoint that are not used."""

# Longest first, because the first prefix that matches is removed. In-memory names of transformers >= 4.52, then the
# hub's (ComfyUI's file, the Qwen repository).
_PREFIXES = ("model.language_model.", "model.")
_NEVER_READ = ("visual.", "model.visual.", "lm_head.")
_HINT = (
    "set models.text_encoder to Qwen2.5-VL-7B: qwen_2.5_vl_7b.safetensors or qwen_2.5_vl_7b_fp8_scaled.safetensors of "
    f"ComfyUI, or the folder of {QWEN}"
)


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a Qwen2.5-VL text model; the defaults are those of the 7B model."""

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_layers: int = 28
    """Number of layers in the checkpoint, including the last two, which are not built."""
    num_kv_heads: int = 4
    head_dim: int = 128
    rope_theta: float = 1e6
    rope_sections: tuple[int, ...] = (16, 24, 24)
    """Channel pairs of a head for time, height and width; all three get the same position, as there is only text."""
    norm_eps: float = 1e-6


def load_text_encoder(
    path: str | Path,
    tokenizer: str | Path | Tokenizer,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    quantize: WeightFormat | None = None,
) -> TextEncoder:
    """Load Qwen2.5-VL as a text encoder from one file (hub, ComfyUI or transformers 5 naming) or a sharded folder.

    Args:
        tokenizer: a loaded tokenizer, or a source for `load_qwen_tokenizer`.
        dtype: None keeps the file's, and ComfyUI's fp8 weights in fp8. The official program uses float16.
        quantize: number format of the linear layers. With fp8, weights that are fp8 in the file stay as they are.

    Raises:
        UserError: the file is damaged or another model, or the tokenizer has more tokens than the model.
    """
    checkpoint = open_checkpoint(Path(path))
    config, prefix = read_text_config(checkpoint)
    source = load_qwen_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
    prompts = PromptTokenizer(source)
    if prompts.vocab_size > config.vocab_size:
        raise UserError.at(
            path,
            f"has {config.vocab_size} token embeddings, but the tokenizer has {prompts.vocab_size} tokens",
            hint="set models.tokenizer to the tokenizer of this text encoder",
        )
    with torch.device("meta"):
        model = build_text_model(config)
    names = {name: prefix + name for name in model.state_dict()}
    last = range(config.num_layers - LAYERS_LEFT_OUT, config.num_layers)
    unused = (*_NEVER_READ, f"{prefix}norm.", *(f"{prefix}layers.{i}." for i in last))
    fill(
        model,
        checkpoint,
        names,
        unused=unused,
        what="text encoder",
        dtype=dtype,
        device=device,
        quantize=quantize,
        quantised=lambda name: name.startswith("layers."),
    )
    model.rotary_emb = type(model.rotary_emb)(model.config).to(device)  # a table that is in no checkpoint; stays fp32
    return TextEncoder(model, prompts)


class PromptRows(Protocol):
    """The part of a tokenizer that the encoder needs (`hv15.models.tokenizer.PromptTokenizer`)."""

    @property
    def pad_id(self) -> int: ...

    @property
    def crop_start(self) -> int:
        """Number of tokens in the template's constant part."""

    def rows(self, prompts: list[str]) -> list[list[int]]:
        """Return the token ids of each prompt, including the constant part."""


class TextEncoder:
    """Encodes prompts into text states; frozen."""

    def __init__(self, model: nn.Module, tokenizer: PromptRows) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @torch.no_grad()
    def encode(self, prompts: list[str], *, batch_size: int | None = None) -> list[Tensor]:
        """Return the states of each prompt, [L_i, hidden], L_i <= 1000, in the model's dtype and on its device.

        The template's constant part is dropped; what follows the prompt (the assistant's turn) is kept.

        Args:
            batch_size: prompts encoded at a time, those of similar length together; None encodes all at once. It
                affects only rounding.
        """
        rows = self.tokenizer.rows(prompts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        states: list[Tensor] = [torch.empty(0)] * len(rows)
        size = batch_size or max(len(order), 1)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for i, state in zip(chosen, self._encode_batch([rows[i] for i in chosen]), strict=True):
                states[i] = state
        return states

    def _encode_batch(self, rows: list[list[int]]) -> list[Tensor]:
        # Padding is to the right of all valid tokens, so causal attention ignores it without a mask.
        longest = max(map(len, rows))
        padded = [row + [self.tokenizer.pad_id] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, device=self.model.get_parameter("embed_tokens.weight").device)  # (B, L)
        hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state  # (B, L, D)
        return [hidden[i, self.tokenizer.crop_start : len(row)].clone() for i, row in enumerate(rows)]


def build_text_model(config: TextConfig) -> nn.Module:
    """Build the layers that are used, without the final norm, on the current device, with random weights."""
    from transformers import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    model = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers - LAYERS_LEFT_OUT,
            num_attention_heads=config.hidden_size // config.head_dim,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": config.rope_theta,
                "mrope_section": list(config.rope_sections),
            },
            use_cache=False,
            bos_token_id=None,  # only needed to generate text
            eos_token_id=None,
        )
    )
    model.register_module("norm", nn.Identity())
    return model


def read_text_config(checkpoint: Checkpoint) -> tuple[TextConfig, str]:
    """Return the sizes of a Qwen2.5-VL checkpoint, read from its tensors, and the prefix of its text tensors.

    Head size, RoPE and epsilon come from a config.json beside the tensors; without it they are the 7B model's.

    Raises:
        UserError: it is another model, or the sizes contradict one another.
    """
    keys = checkpoint.keys()
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}embed_tokens.weight" in checkpoint), None)
    if prefix is None:
        raise wrong_model(checkpoint, "Qwen2.5-VL", _HINT)
    start = f"{prefix}layers."
    layers = {int(key.removeprefix(start).split(".")[0]) for key in keys if key.startswith(start)}
    try:
        vocab_size, hidden_size = checkpoint.shape(f"{prefix}embed_tokens.weight", 2)
        kv_rows, _ = checkpoint.shape(f"{start}0.self_attn.k_proj.weight", 2)
        intermediate_size, _ = checkpoint.shape(f"{start}0.mlp.gate_proj.weight", 2)
    except KeyError as error:
        raise wrong_model(checkpoint, "Qwen2.5-VL", _HINT) from error
    written = _written_sizes(checkpoint)
    head_dim = written.head_dim
    if len(layers) <= LAYERS_LEFT_OUT or hidden_size % head_dim or kv_rows % head_dim:
        raise UserError.at(
            checkpoint.path,
            f"{len(layers)} layers, width {hidden_size} and {kv_rows} key rows do not fit heads of {head_dim}",
            hint="if it is not the 7B model, put the model's config.json beside the file",
        )
    config = replace(
        written,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=max(layers) + 1,
        num_kv_heads=kv_rows // head_dim,
    )
    return config, prefix


def _written_sizes(checkpoint: Checkpoint) -> TextConfig:
    """Return head size, RoPE and epsilon from a config (hub or transformers 5); everything else is the 7B model's."""
    config = written_config(checkpoint, "qwen2_5_vl").part("text_config")
    rope = config
    for name in ("rope_parameters", "rope_scaling"):
        rope = rope.with_default(config.part(name))
    official = TextConfig()
    heads, width = config.integer("num_attention_heads", 0), config.integer("hidden_size", 0)
    return replace(
        official,
        head_dim=width // heads if heads and width else official.head_dim,
        rope_theta=rope.number("rope_theta", official.rope_theta),
        rope_sections=rope.integers("mrope_section", official.rope_sections),
        norm_eps=config.number("rms_norm_eps", official.norm_eps),
    )
