"""The exact strings that the text encoders see. Does not need torch, as planning uses them too.

A single different character would give embeddings that the model was not trained with, so these match the official
program exactly; the tests compare them with strings and token ids taken from it.
"""

from __future__ import annotations

import re

# The official source breaks this literal with backslashes, so its indentation became part of the string.
_ITEM_GAP = " " * 9

SYSTEM_VIDEO = _ITEM_GAP.join(
    (
        "You are a helpful assistant. Describe the video by detailing the following aspects:",
        "1. The main content and theme of the video.",
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
        "4. background environment, light, style and atmosphere.",
        "5. camera angles, movements, and transitions used in the video.",
    )
)
"""System message of every prompt, also for single images: the official pipeline has no other."""

USER_MARKER = "<|im_start|>user\n"
"""Ends the constant part of the template, whose states are dropped."""

MAX_TEXT_TOKENS = 1000
"""Text states kept after the constant part, in tokens; the end of a longer prompt is cut off."""

MAX_GLYPH_TOKENS = 256
"""Most ByT5 tokens (bytes and the end mark) that are kept of the quoted texts."""

# A newline inside the quotes ends the match, as in the official program.
_QUOTED = re.compile(r"\"(.*?)\"|“(.*?)”")

_BYTE_OFFSET = 3  # ByT5 ids 0, 1, 2 are padding, end and unknown; byte b is b + 3
_END = 1


def render_prompt(prompt: str) -> str:
    """Return the chat text for Qwen2.5-VL; an empty prompt becomes a single space."""
    return (
        f"<|im_start|>system\n{SYSTEM_VIDEO}<|im_end|>\n{USER_MARKER}{prompt or ' '}<|im_end|>\n<|im_start|>assistant\n"
    )


def glyph_text(prompt: str) -> str | None:
    """Return the text that ByT5 reads for a prompt: its quoted texts, in order, each once. None if nothing is quoted.

    >>> glyph_text('a sign "OPEN" and a note “再见”')
    'Text "OPEN". Text "再见". '
    """
    texts = [straight or curly for straight, curly in _QUOTED.findall(prompt)]
    if not texts:
        return None
    return "".join(f'Text "{text}". ' for text in dict.fromkeys(texts))


def glyph_ids(text: str) -> list[int]:
    """Return the ByT5 token ids of a text: its UTF-8 bytes and the end mark, at most `MAX_GLYPH_TOKENS`."""
    data = text.encode()[: MAX_GLYPH_TOKENS - 1]
    return [byte + _BYTE_OFFSET for byte in data] + [_END]
