"""Finds texts that an encoder cuts off. Does not need torch: `hv15 check` uses it for every caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import normalize

from hv15.models.templates import MAX_GLYPH_TOKENS, MAX_TEXT_TOKENS, glyph_text

if TYPE_CHECKING:
    from hv15.models.tokenizer import PromptTokenizer

_MARKS = 16
"""More than the number of tokens that the template adds after a prompt."""
_GROWTH = 3
"""The factor by which a text can grow when the tokenizer composes its letters and accents (NFC)."""


@dataclass(frozen=True)
class LongText:
    """The lengths of a text that is too long."""

    tokens: int
    """Number of tokens for the text encoder; 0 if it reads all of them."""
    glyph_tokens: int
    """Number of tokens for the glyph encoder, which reads quoted text; 0 if it reads all of them."""

    def __str__(self) -> str:
        parts = []
        if self.tokens:
            parts.append(f"{self.tokens} tokens, but the text encoder reads only {MAX_TEXT_TOKENS}")
        if self.glyph_tokens:
            parts.append(f"{self.glyph_tokens} bytes in quotes, but the glyph encoder reads only {MAX_GLYPH_TOKENS}")
        return "; ".join(parts) + ": the end is cut off"


def long_texts(texts: Iterable[str], load_tokenizer: Callable[[], PromptTokenizer]) -> dict[str, LongText]:
    """Return the texts that are too long for an encoder, with their lengths.

    A token has at least one byte, so most captions need not be tokenised to know that they fit.

    Args:
        texts: captions or prompts, as they are encoded.
        load_tokenizer: called only if a text may be too long.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    texts = list(dict.fromkeys(texts))
    doubtful = [text for text in texts if _may_be_long(text)]
    tokens = dict(zip(doubtful, load_tokenizer().lengths(doubtful), strict=True)) if doubtful else {}
    found: dict[str, LongText] = {}
    for text in texts:
        count, glyphs = tokens.get(text, 0), _glyph_tokens(text)
        long = LongText(count * (count > MAX_TEXT_TOKENS), glyphs * (glyphs > MAX_GLYPH_TOKENS))
        if long != LongText(0, 0):
            found[text] = long
    return found


def _may_be_long(text: str) -> bool:
    room = MAX_TEXT_TOKENS - _MARKS
    if len(text) * 4 * _GROWTH <= room:  # a character has at most four bytes
        return False
    return len(normalize("NFC", text).encode()) > room


def _glyph_tokens(text: str) -> int:
    """Count the bytes of the glyph encoder's input, and the end mark."""
    quoted = glyph_text(text)
    return len(quoted.encode()) + 1 if quoted is not None else 0
