"""Folders of models whose small files are wrong, and what must be said about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from torch import zeros

from tests.hostile.entry import Hostile

CONFIG = """
models: {source: files, dit: model, vae: none, text_encoder: none, glyph_encoder: none, tokenizer: tokenizer}
datasets: [{video_directory: clips}]
"""


def _files(files: dict[str, str | bytes], *said: str) -> Hostile:
    def make(folder: Path) -> None:
        for name in ("model", "tokenizer", "clips"):
            (folder / name).mkdir()
        (folder / "config.yaml").write_text(CONFIG)
        save_file({"x": zeros(1)}, folder / "model/a.safetensors")
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return Hostile(make, ("check", "."), said)


def _index(content: str, said: str) -> Hostile:
    return _files({"model/model.safetensors.index.json": content}, "model.safetensors.index.json: ", said)


def _shards(name: Callable[[int], str]) -> str:
    return json.dumps({"weight_map": {f"tensor{n}": name(n) for n in range(20_000)}})


INPUTS = {
    "index: lists": _index("[" * 10**6, "not a shard index"),
    "index: half a character": _files(
        {"model/model.safetensors.index.json": '{"weight_map": {"a": "\\ud800"}}'}, "1 of 1 shards missing: \\ud800"
    ),
    "index: no map": _index("{}", "not a shard index: it has no weight_map"),
    "index: a number": _index('{"weight_map": {"a": 1}}', "not a shard index"),
    "index: another folder": _index(
        '{"weight_map": {"a": "../../outside/notes.txt"}}', "names a file of another folder"
    ),
    "index: the root": _index('{"weight_map": {"a": "/etc/passwd"}}', "names a file of another folder"),
    "index: 20,000 shards": _index(
        _shards(lambda n: f"{n}.safetensors"), "names 20,000 shards; at most 1,000 are read"
    ),
    "index: nothing in a name": _files(
        {"model/model.safetensors.index.json": '{"weight_map": {"a": "a\\u0000"}}'}, "1 of 1 shards missing: a\u2400"
    ),
    "config.json: lists": _files({"model/config.json": "[" * 10**6}, "model: not the HunyuanVideo 1.5 transformer"),
    "tokenizer: lists": _files({"tokenizer/tokenizer.json": "[" * 10**6}, "tokenizer.json: not a tokenizer file: "),
    "tokenizer: no tokens": _files({"tokenizer/tokenizer.json": "{}"}, "tokenizer.json: not a tokenizer file: "),
    "tokenizer: bytes": _files({"tokenizer/tokenizer.json": b"\xff\xfe\x00"}, "tokenizer.json: not a tokenizer file: "),
}
