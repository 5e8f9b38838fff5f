"""Encodes each distinct text once: Qwen2.5-VL states and, for quoted text, ByT5 glyph states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hv15.cache.claims import Claims, rounds
from hv15.cache.encoding import Encoding
from hv15.models.templates import glyph_text
from hv15.progress import Progress
from hv15.records.manifest import Entry, Manifest

if TYPE_CHECKING:
    from hv15.models.glyphs import GlyphEncoder
    from hv15.models.text import TextEncoder


@dataclass
class TextStateEncoder:
    """Encodes the texts of a shard that are not in the store yet.

    Args:
        load_text, load_glyphs: called only if there is something to encode, one after the other, so that the two
            encoders are never in memory together.
        glyph_width: width of a glyph state, for texts without quotes.
        dtype: of the stored tensors; None keeps that of the encoder.
        batch_size: texts in a forward pass; affects only memory and speed.
    """

    encoding: Encoding[str]
    load_text: Callable[[], TextEncoder]
    load_glyphs: Callable[[], GlyphEncoder]
    glyph_width: int
    dtype: torch.dtype | None
    batch_size: int
    encoded: int = 0
    kept: int = 0

    def run(self, shard: int) -> Manifest:
        """Encode what is missing and return the shard's new manifest."""
        manifest = self.encoding.new_manifest(shard)
        wanted, store = self.encoding.by_shard[shard], self.encoding.store
        missing = {key: text for key, text in wanted.items() if not store.has(key)}
        self.kept += len(wanted) - len(missing)
        if missing:
            self._encode(missing)
        for key in wanted:
            manifest.put(key, Entry())
        return manifest

    def _encode(self, missing: dict[str, str]) -> None:
        glyphs = self._glyph_states(missing)
        encoder: TextEncoder | None = None
        # Texts of similar length share a batch, so that little padding is computed.
        order = {key: missing[key] for key in sorted(missing, key=lambda key: (len(missing[key]), key))}
        with (
            Claims(self.encoding.store.folder) as claims,
            Progress(len(order), "encode texts", unit="texts") as progress,
        ):
            for claimed in rounds(order, claims, self._is_done):
                texts = dict(claimed)
                if not texts:
                    continue
                encoder, keys = encoder or self.load_text(), list(texts)
                for start in range(0, len(keys), self.batch_size):
                    batch = keys[start : start + self.batch_size]
                    self._encode_batch(encoder, {key: texts[key] for key in batch}, glyphs)
                    progress.advance(len(batch))

    def _is_done(self, key: str, text: str) -> bool:
        """Whether another process has encoded the text in the meantime."""
        done = self.encoding.store.has(key)
        self.kept += done
        return done

    def _encode_batch(self, encoder: TextEncoder, texts: dict[str, str], glyphs: dict[str, torch.Tensor]) -> None:
        no_glyphs = torch.zeros(0, self.glyph_width)
        states = encoder.encode(list(texts.values()))
        for (key, words), text in zip(texts.items(), states, strict=True):
            item = {"text": text, "glyphs": glyphs.get(key, no_glyphs)}
            stored = {name: value.to(self.dtype or value.dtype) for name, value in item.items()}
            self.encoding.store.write(key, stored, {"text": words})
        self.encoded += len(texts)

    def _glyph_states(self, texts: dict[str, str]) -> dict[str, torch.Tensor]:
        """Return the glyph states [G, D] of the texts with quotes, on the CPU."""
        quoted = {key: text for key, text in texts.items() if glyph_text(text) is not None}
        if not quoted:
            return {}
        states = self.load_glyphs().encode(list(quoted.values()), batch_size=self.batch_size)
        return {key: value.cpu() for key, value in zip(quoted, states, strict=True)}
