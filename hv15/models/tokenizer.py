"""Qwen2.5's tokenizer and the rows of token ids that the text encoder reads.

The tokenizer comes from a folder (`tokenizer.json`, or `vocab.json` + `merges.txt` as ComfyUI ships them) or from the
Hugging Face Hub or its local cache. Code from a model repository is never run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.choices import QWEN
from hv15.errors import UserError
from hv15.models.templates import MAX_TEXT_TOKENS, USER_MARKER, render_prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PAD = "<|endoftext|>"
_MARKS = ("<|im_start|>", "<|im_end|>", _PAD)
_HINT = (
    "set models.tokenizer to a folder with Qwen2.5-VL's tokenizer.json (or vocab.json, merges.txt and "
    f"tokenizer_config.json), or to the Hub name {QWEN}"
)


def load_qwen_tokenizer(source: str | Path) -> Tokenizer:
    """Load Qwen's tokenizer from a folder, a `tokenizer.json`, or the Hub ("owner/name") or its local cache.

    Raises:
        UserError: it does not exist, cannot be downloaded, or is not a tokenizer with Qwen's chat marks.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        tokenizer = _from_folder(path)
    elif path.is_file():
        tokenizer = _from_json(path)
    elif _is_hub_name(str(source)):
        tokenizer = _from_json(_download(str(source)))
    else:
        raise UserError.at(source, "no such tokenizer folder", hint=_HINT)
    tokenizer.no_padding()  # a tokenizer.json may set both, but we pad and cut rows ourselves
    tokenizer.no_truncation()
    missing = [mark for mark in _MARKS if tokenizer.token_to_id(mark) is None]
    if missing:
        raise UserError.at(source, f"not a Qwen2.5 tokenizer: it lacks {', '.join(missing)}", hint=_HINT)
    return tokenizer


class PromptTokenizer:
    """Turns prompts into rows of token ids: template, tokens, truncation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        (self.pad_id,) = tokenizer.encode(_PAD, add_special_tokens=False).ids
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.crop_start = self._crop_start()
        """Number of tokens in the constant part (system message and user mark): 108 with Qwen's own tokenizer."""

    def rows(self, prompts: list[str]) -> list[list[int]]:
        """Return the token ids of each prompt, including the constant part, cut to `crop_start` + 1000."""
        limit = self.crop_start + MAX_TEXT_TOKENS
        return [ids[:limit] for ids in self._encode([render_prompt(prompt) for prompt in prompts])]

    def lengths(self, prompts: list[str]) -> list[int]:
        """Return how many tokens each prompt has after the constant part, before it is cut to 1000."""
        rendered = [render_prompt(prompt) for prompt in prompts]
        found = self.tokenizer.encode_batch_fast(rendered, add_special_tokens=False)
        return [len(encoding.ids) - self.crop_start for encoding in found]

    def _crop_start(self) -> int:
        row, marker = self._encode([render_prompt(""), USER_MARKER])
        for start in range(len(row) - len(marker) + 1):
            if row[start : start + len(marker)] == marker:
                return start + len(marker)
        raise UserError("the tokenizer merges the chat marks of the prompt template with other text", hint=_HINT)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]


def _from_folder(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_vocabulary(folder)
    raise UserError.at(folder, "found neither tokenizer.json nor vocab.json and merges.txt", hint=_HINT)


def _from_json(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain Exception for every problem with the file
        raise UserError.at(path, f"not a tokenizer file: {error}", hint=_HINT) from error


def _from_vocabulary(folder: Path) -> Tokenizer:
    from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

    try:
        # the chat marks are in tokenizer_config.json in the same folder, not in vocab.json
        return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # as above
        raise UserError.at(folder, f"not a Qwen2.5 tokenizer: {error}", hint=_HINT) from error


def _is_hub_name(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError) as error:  # no such name, no such file, no connection and nothing in the cache
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name}: no such folder, and no such tokenizer on the Hugging Face Hub or in its local cache: {reason}",
            hint=_HINT,
        ) from error
