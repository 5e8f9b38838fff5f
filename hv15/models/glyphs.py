"""ByT5 states of quoted text, from which the transformer knows how to spell it: Glyph-SDXL-v2's ByT5-small encoder.

- Only the quoted texts of a prompt are encoded; a prompt without quotes needs no ByT5
  (`hv15.models.templates.glyph_text` tells which, without torch or the model).
- The tokens are bytes, so there is no tokenizer file.
- It runs in float32 unless told otherwise, as in the official program: it is small, and T5 overflows in float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.models.encoder_files import fill, wrong_model
from hv15.models.templates import glyph_ids, glyph_text
from hv15.models.weights.checkpoint import Checkpoint, open_checkpoint

_PAD = 0
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # names of one tensor; a file may hold both
_NEVER_READ = ("decoder.", "lm_head.")  # of a folder that holds the whole T5
_BYTE_VOCABULARY = 259  # padding, end, unknown, 256 bytes
_HINT = "set models.glyph_encoder to Glyph-SDXL-v2's ByT5 encoder: byt5_small_glyphxl_fp16.safetensors of ComfyUI"


@dataclass(frozen=True)
class GlyphConfig:
    """Sizes of a T5 encoder; the defaults are those of Glyph-SDXL-v2's ByT5-small."""

    vocab_size: int = 1510
    hidden_size: int = 1472
    intermediate_size: int = 3584
    num_layers: int = 12
    num_heads: int = 6
    head_dim: int = 64
    distances: int = 32
    """Number of relative distances that attention tells apart."""


def load_glyph_encoder(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> GlyphEncoder:
    """Load the glyph encoder from one file or a Hugging Face folder (T5 names); sizes come from the tensors.

    Args:
        dtype: None means float32.

    Raises:
        UserError: the file is damaged or is another model. google/byt5-small is: its vocabulary lacks the glyph tokens.
    """
    checkpoint = open_checkpoint(Path(path))
    config = read_glyph_config(checkpoint)
    with torch.device("meta"):
        model = build_glyph_model(config)
    embedding = _embedding(checkpoint)
    names = {name: embedding if name == "embed_tokens.weight" else f"encoder.{name}" for name in model.state_dict()}
    unused = (*_NEVER_READ, *_EMBEDDINGS)
    fill(model, checkpoint, names, unused=unused, what="glyph encoder", dtype=dtype or torch.float32, device=device)
    return GlyphEncoder(model)


def glyph_width(path: str | Path) -> int:
    """Return the width of the glyph states, 1472, from the file's header. Without quoted text, states are [0, width].

    Raises:
        UserError: wrong or damaged file.
    """
    checkpoint = open_checkpoint(Path(path))
    return checkpoint.shape(_embedding(checkpoint), 2)[1]


class GlyphEncoder:
    """Prompts to the states of their quoted texts; frozen."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def encode(self, prompts: list[str], *, batch_size: int = 16) -> list[Tensor]:
        """Return the states of each prompt's quoted texts, [G_i, width], G_i <= 256; G_i = 0 without quotes.

        Args:
            batch_size: prompts encoded at a time, those of similar length together; it affects only rounding.
        """
        weight = self.model.get_parameter("embed_tokens.weight")
        states = [weight.new_empty(0, weight.shape[1]) for _ in prompts]
        rows = {i: glyph_ids(text) for i, prompt in enumerate(prompts) if (text := glyph_text(prompt)) is not None}
        order = sorted(rows, key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for i, state in zip(chosen, self._encode_batch([rows[i] for i in chosen]), strict=True):
                states[i] = state
        return states

    def _encode_batch(self, rows: list[list[int]]) -> list[Tensor]:
        longest = max(map(len, rows))
        padded = [row + [_PAD] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, device=self.model.get_parameter("embed_tokens.weight").device)  # (B, G)
        mask = ids != _PAD if min(map(len, rows)) < longest else None
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, G, D)
        return [hidden[i, : len(row)].clone() for i, row in enumerate(rows)]


def build_glyph_model(config: GlyphConfig) -> nn.Module:
    """Build the T5 encoder on the current device, with random weights; input token ids [B, G]."""
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    return T5Stack(
        T5Config(
            vocab_size=config.vocab_size,
            d_model=config.hidden_size,
            d_kv=config.head_dim,
            d_ff=config.intermediate_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            relative_attention_num_buckets=config.distances,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def read_glyph_config(checkpoint: Checkpoint) -> GlyphConfig:
    """Read the sizes of the T5 encoder that a checkpoint describes.

    Raises:
        UserError: the tensors that its sizes are read from are missing, or belong to another T5.
    """
    keys = checkpoint.keys()
    blocks = {int(key.split(".")[2]) for key in keys if key.startswith("encoder.block.")}
    try:
        vocabulary, width = checkpoint.shape(_embedding(checkpoint), 2)
        inner, _ = checkpoint.shape("encoder.block.0.layer.0.SelfAttention.q.weight", 2)
        distances, heads = checkpoint.shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2)
        hidden, _ = checkpoint.shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2)
    except KeyError as error:
        raise wrong_model(checkpoint, "a ByT5 encoder", _HINT) from error
    official = GlyphConfig()
    if vocabulary < _BYTE_VOCABULARY or (width == official.hidden_size and vocabulary != official.vocab_size):
        raise UserError.at(
            checkpoint.path,
            f"{vocabulary} tokens, but Glyph-SDXL-v2's ByT5 has {official.vocab_size} (bytes, colours and fonts)",
            hint=_HINT,
        )
    return GlyphConfig(vocabulary, width, hidden, max(blocks) + 1, heads, inner // heads, distances)


def _embedding(checkpoint: Checkpoint) -> str:
    """Return the name under which a T5 file holds its token embeddings."""
    for key in _EMBEDDINGS:
        if key in checkpoint:
            return key
    raise wrong_model(checkpoint, "a ByT5 encoder", _HINT)
