"""Finds texts that an encoder cuts off. Does not need torch: `hv15 check` uses it for every caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from hv15.data.captions import caption_key
from hv15.digest import short
from hv15.errors import UserError
from hv15.models.templates import MAX_GLYPH_TOKENS, MAX_TEXT_TOKENS, glyph_text
from hv15.remembered import Memory

if TYPE_CHECKING:
    from hv15.models.tokenizer import PromptTokenizer

VERSION = 1
"""Increased when the counting of tokens changes."""
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
        return f"{self.reason}: the end is cut off"

    @property
    def reason(self) -> str:
        """How long it is, and how much an encoder reads."""
        parts = []
        if self.tokens:
            parts.append(f"{self.tokens} tokens, but the text encoder reads only {MAX_TEXT_TOKENS}")
        if self.glyph_tokens:
            parts.append(f"{self.glyph_tokens} bytes in quotes, but the glyph encoder reads only {MAX_GLYPH_TOKENS}")
        return "; ".join(parts)


class TokenCounts:
    """Remembers how many tokens texts have: counting those of 50,000 long captions takes half a minute.

    Args:
        path: of the file; projects that share a store share it.
        tokenizer: identifies the tokenizer's content.
    """

    def __init__(self, path: Path, tokenizer: str) -> None:
        self._memory = Memory(path, VERSION, "the tokens of long captions are counted again")
        self._tokenizer = short(tokenizer)

    def of(self, texts: Iterable[str]) -> dict[str, int]:
        """Return the known counts of some texts."""
        counts = ((text, self._memory.entries.get(self._key(text))) for text in texts)
        return {text: count for text, count in counts if isinstance(count, int)}

    def learn(self, counts: Mapping[str, int]) -> None:
        """Keep counts for later. If the file cannot be written, they are counted again next time."""
        for text, count in counts.items():
            self._memory.learn(self._key(text), count)
        with suppress(UserError):
            self._memory.save()

    def _key(self, text: str) -> str:
        return f"{self._tokenizer} {caption_key(text)}"


def long_texts(
    texts: Iterable[str], load_tokenizer: Callable[[], PromptTokenizer], counts: TokenCounts | None = None
) -> dict[str, LongText]:
    """Return the texts that are too long for an encoder, with their lengths.

    A token has at least one byte, so most captions need not be tokenised to know that they fit.

    Args:
        texts: captions or prompts, as they are encoded; equal ones are examined once.
        load_tokenizer: called only if a text may be too long and its count is not known.
        counts: the counts known from earlier; new ones are added.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    texts = list(dict.fromkeys(texts))
    doubtful = [text for text in texts if _may_be_long(text)]
    tokens = counts.of(doubtful) if counts is not None else {}
    if missing := [text for text in doubtful if text not in tokens]:
        new = dict(zip(missing, load_tokenizer().lengths(missing), strict=True))
        tokens |= new
        if counts is not None:
            counts.learn(new)
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
