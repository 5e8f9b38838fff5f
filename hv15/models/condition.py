"""The transformer's inputs besides the latents: text, glyph and image states, and how many of each are valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.errors import UserError

if TYPE_CHECKING:
    from hv15.models.dit_config import DiTConfig

_WIDTHS = {  # tensor of an encoded item -> the transformer's size that its channels must match, and the model's role
    "latents": ("latent_channels", "vae"),
    "text": ("text_dim", "text_encoder"),
    "glyphs": ("glyph_dim", "glyph_encoder"),
    "vision": ("vision_dim", "image_encoder"),
}


@dataclass(frozen=True)
class Condition:
    """The encoded prompt (and first image) of a batch.

    Lengths are Python integers, so that reading them never waits for the device. Tokens beyond a sample's length are
    padding: their values never matter.
    """

    text: Tensor
    """Qwen2.5-VL states [B, L, text_dim]."""
    text_lengths: list[int]
    """Valid text tokens of each sample, 1..L."""
    glyphs: Tensor
    """ByT5 states of quoted text [B, G, glyph_dim]; G may be 0."""
    glyph_lengths: list[int]
    """Valid glyph tokens of each sample, 0..G."""
    vision: Tensor | None = None
    """SigLIP states of the first frame [B, 729, vision_dim] for i2v; None for t2v."""
    vision_lengths: list[int] | None = None
    """Valid vision tokens of each sample; None if all are valid, even where all values are zero."""

    def __post_init__(self) -> None:
        batch, tokens = self.text.shape[:2]
        _check("text", self.text_lengths, batch, 1, tokens)
        _check("glyph", self.glyph_lengths, batch, 0, self.glyphs.shape[1])
        if self.vision is not None and self.vision_lengths is not None:
            _check("vision", self.vision_lengths, batch, 0, self.vision.shape[1])

    @property
    def batch(self) -> int:
        return self.text.shape[0]

    @property
    def lengths(self) -> tuple[int, ...]:
        """All numbers of valid tokens."""
        return (*self.text_lengths, *self.glyph_lengths, *(self.vision_lengths or ()))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, of any shapes."""
        return [self.text, self.glyphs, *([] if self.vision is None else [self.vision])]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Condition:
        """Return the same condition on another device or in another floating dtype.

        From pinned memory to a GPU it does not wait: the copy is queued before whatever uses it.
        """
        queued = torch.device(device).type != "cpu"  # a queued copy to the CPU could be read before it is complete
        return self._each(lambda tensor: tensor.to(device, dtype, non_blocking=queued))

    def pinned(self) -> Condition:
        """Return the same condition in pinned CPU memory, which a GPU can copy from without waiting."""
        return self._each(torch.Tensor.pin_memory)

    def copied(self) -> Condition:
        """Return a copy in memory of its own."""
        return self._each(torch.Tensor.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        vision = None if self.vision is None else change(self.vision)
        return replace(self, text=change(self.text), glyphs=change(self.glyphs), vision=vision)


def check_widths(config: DiTConfig, widths: Mapping[str, int]) -> None:
    """Check that the encoders' channels are those that the transformer expects.

    Args:
        widths: the known numbers of channels, by `latents`, `text`, `glyphs` and `vision`.

    Raises:
        UserError: a number of channels differs.
    """
    for name, width in widths.items():
        size, role = _WIDTHS[name]
        if width != getattr(config, size):
            raise UserError(
                f"models.{role} makes {name} of {width} channels, but models.dit takes {getattr(config, size)}",
                hint=f"correct models.{role} or models.dit: both must be models of HunyuanVideo 1.5. Encodings of the "
                "wrong model are made again",
            )


def widths_of(item: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of channels of each of an encoded item's tensors: latents [C, F, h, w], states [L, D]."""
    return {name: tensor.shape[0 if name == "latents" else -1] for name, tensor in item.items()}


def _check(name: str, lengths: Sequence[int], batch: int, least: int, most: int) -> None:
    if len(lengths) != batch or any(not least <= length <= most for length in lengths):
        raise ValueError(
            f"{name}_lengths is {list(lengths)}, but the batch has {batch} samples of {least} to {most} tokens"
        )


def pack(parts: list[tuple[Tensor, list[int]]]) -> tuple[Tensor, list[int]]:
    """Join token streams so that each sample's valid tokens come first, in the order of the parts.

    Args:
        parts: (tokens [B, N_i, D], valid tokens of each sample).

    Returns:
        Tokens [B, N, D] with N the longest sample's total (zeros behind shorter ones), and the totals.
    """
    batch = parts[0][0].shape[0]
    totals = [sum(lengths[i] for _, lengths in parts) for i in range(batch)]
    if all(min(lengths) == max(lengths) for _, lengths in parts):  # equal in all samples, as in every batch of one
        return torch.cat([tokens[:, : lengths[0]] for tokens, lengths in parts], dim=1), totals
    samples = [torch.cat([tokens[i, : lengths[i]] for tokens, lengths in parts]) for i in range(batch)]
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True), totals
