"""A tiny byte-level BPE tokenizer in Qwen2.5's form: the same splitting rule, chat marks and order of ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import atomic_path, write_json
from hv15.models.templates import render_prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""They come after the vocabulary, in Qwen's order (where their ids start at 151643)."""

BASE_TOKENS = 512
"""256 bytes, and the merges learnt from `_TEXTS`."""

VOCABULARY = BASE_TOKENS + len(SPECIAL_TOKENS)

# Qwen2.5's rule for splitting text into words before merging
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEXTS = (
    "a red circle moving right on a black background",
    "a green square moving left on a white background",
    "a blue triangle moving up on a gray background",
    "a yellow ring moving down on an orange background, the word",
    "purple cyan pink brown star cross standing still turning growing shrinking slowly quickly",
)


def build_tokenizer() -> Tokenizer:
    """Return the tokenizer, which is always the same."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_TOKENS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    template = render_prompt("")
    for mark in SPECIAL_TOKENS:
        template = template.replace(mark, "\n")
    tokenizer.train_from_iterator([template, *_TEXTS], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer folder in transformers' format: `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_path(folder / "tokenizer.json") as temporary:
        build_tokenizer().save(str(temporary))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(folder / "tokenizer_config.json", config)
