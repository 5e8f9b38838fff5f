"""Two encoders that fill one store at the same time encode everything once."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import torch

from hv15.cache.encoding import Encoding
from hv15.cache.texts import TextStateEncoder
from hv15.data.captions import caption_key

TEXTS = {caption_key(text): text for text in (f"a clip that shows {number}" for number in range(40))}


class SlowEncoder:
    """Stands for Qwen; each batch waits until the other one has encoded something too, or is done."""

    def __init__(self, turn: threading.Barrier) -> None:
        self.turn, self.seen = turn, list[str]()

    def encode(self, texts: list[str]) -> list[torch.Tensor]:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.turn.wait(timeout=0.2)
        self.seen += texts
        return [torch.ones(3, 4) for _ in texts]


def test_no_text_is_encoded_twice(tmp_path: Path) -> None:
    turn = threading.Barrier(2)
    encoders = [SlowEncoder(turn), SlowEncoder(turn)]

    def run(number: int) -> None:
        root = tmp_path / f"project {number}"
        encoding = Encoding("text", tmp_path / "store", root, {"model": "m"}, TEXTS, 1)
        worker = TextStateEncoder(
            encoding,
            load_text=lambda: encoders[number],  # type: ignore[arg-type, return-value]  # a stand-in
            load_glyphs=lambda: None,  # type: ignore[arg-type, return-value]  # no text has quotes
            glyph_width=4,
            dtype=None,
            batch_size=4,
        )
        worker.run(0).write(encoding.manifest_path(0))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [text for encoder in encoders for text in encoder.seen]
    assert sorted(seen) == sorted(TEXTS.values())
    for number in range(2):
        again = Encoding("text", tmp_path / "store", tmp_path / f"project {number}", {"model": "m"}, TEXTS, 1)
        assert again.is_complete(0)
