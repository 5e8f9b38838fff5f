"""Captions that are longer than what an encoder reads are found, and the others are not tokenised."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from hv15.cache.long_texts import LongText, TokenCounts, long_texts
from hv15.models.templates import MAX_GLYPH_TOKENS, MAX_TEXT_TOKENS, glyph_ids, glyph_text
from hv15.models.tokenizer import PromptTokenizer
from tests.models.qwen_tokenizer import build_qwen_tokenizer


@pytest.fixture(scope="module")
def qwen() -> PromptTokenizer:
    return PromptTokenizer(build_qwen_tokenizer())


@pytest.mark.slow
def test_a_caption_of_3000_words(qwen: PromptTokenizer) -> None:
    text = "word " * 3000
    found = long_texts(["a red circle", text.strip(), text.strip()], lambda: qwen)
    assert list(found) == [text.strip()]
    assert found[text.strip()].tokens == 3000 + len(["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"])
    assert "3005 tokens, but the text encoder reads only 1000: the end is cut off" in str(found[text.strip()])


def test_short_captions_need_no_tokenizer() -> None:
    def never() -> PromptTokenizer:
        raise AssertionError("loaded")

    texts = ["", "a red circle", "ein roter Bär " * 5, "红" * 80, "x" * 300, "e\N{COMBINING ACUTE ACCENT}" * 300]
    assert long_texts(texts, never) == {}


def test_what_was_counted_is_remembered(qwen: PromptTokenizer, tmp_path: Path) -> None:
    """By text and tokenizer; a text that is short is no less remembered than a long one."""

    def never() -> PromptTokenizer:
        raise AssertionError("loaded")

    texts = ["word " * 3000, "word " * 300]
    found = long_texts(texts, lambda: qwen, TokenCounts(tmp_path / "tokens.json", "qwen"))
    assert list(found) == texts[:1]
    assert long_texts(texts, never, TokenCounts(tmp_path / "tokens.json", "qwen")) == found
    with pytest.raises(AssertionError, match="loaded"):
        long_texts([*texts, "words " * 300], never, TokenCounts(tmp_path / "tokens.json", "qwen"))
    with pytest.raises(AssertionError, match="loaded"):
        long_texts(texts, never, TokenCounts(tmp_path / "tokens.json", "another"))
    (tmp_path / "file").touch()
    assert long_texts(texts, lambda: qwen, TokenCounts(tmp_path / "file" / "tokens.json", "qwen")) == found


def test_the_limit_is_where_the_encoder_cuts(qwen: PromptTokenizer) -> None:
    """Compared with the rows that the encoder gets, for texts around the limit and of every script."""
    chooser = random.Random(5)
    alphabets = ["word ", "Bär ", "红色的圆", "が", "🦓", "\u0958", "a\n", "1234567890", "x"]
    texts = []
    for alphabet in alphabets:
        for count in (1, 50, 200, 300, 330, 400, 497, 990, 994, 995, 996, 1000, 1500, 2000):
            text = "".join(chooser.choice(alphabet) for _ in range(count)) if count % 2 else alphabet * count
            texts += [text, unicodedata.normalize("NFD", text)]
    found = long_texts(texts, lambda: qwen)
    for text, length in zip(texts, qwen.lengths(texts), strict=True):
        assert (text in found) == (length > MAX_TEXT_TOKENS), (text[:5], len(text), length)
        (row,) = qwen.rows([text])
        assert len(row) - qwen.crop_start == min(length, MAX_TEXT_TOKENS)
    assert 20 < len(found) < len(set(texts)) - 20


@pytest.mark.parametrize("quoted", ["x" * 240, "x" * 248, "Ä" * 125, "x" * 5000])
def test_quoted_texts_have_a_limit_of_their_own(qwen: PromptTokenizer, quoted: str) -> None:
    text = f'a sign "{quoted}"'
    found = long_texts([text], lambda: qwen)
    whole = glyph_text(text) or ""
    cut = len(whole.encode()) + 1 > len(glyph_ids(whole))
    assert (text in found and found[text].glyph_tokens > 0) == cut
    if cut and len(quoted) < 1000:
        assert found[text] == LongText(0, len(whole.encode()) + 1)
        assert f"bytes in quotes, but the glyph encoder reads only {MAX_GLYPH_TOKENS}" in str(found[text])
