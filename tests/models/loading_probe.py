"""Load one model file in a process of its own and tell the peak of its memory.

A small file of the same kind is loaded before, so that libraries and their caches are not counted.
"""

from __future__ import annotations

import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from hv15.demo.tokenizer import build_tokenizer
from hv15.models import load_dit, load_text_encoder
from tests.forked import FORKS
from tests.models.sparse_files import sized_dit, sparse_checkpoint


def probe(model: str, path: Path, *, dtype: str | None = None, quantize: str | None = None) -> dict[str, Any]:
    """Run the probe; sizes in bytes, all above what the process held before.

    Args:
        model: dit, or qwen.

    Returns:
        `final`: of the model's tensors; `peak`: of the process; `read`: from files; `seconds`.
    """
    with ProcessPoolExecutor(1, FORKS) as pool:
        return pool.submit(_loaded, model, path, dtype, quantize).result()


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    assert found
    return 1024 * int(found[1])


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def _loaded(kind: str, path: Path, dtype: str | None, quantize: str | None) -> dict[str, Any]:
    torch.set_num_threads(1)
    kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype) if dtype else None, "quantize": quantize}
    with tempfile.TemporaryDirectory() as folder:
        load_dit(sparse_checkpoint(Path(folder) / "small.safetensors", sized_dit(128, 1)), **kwargs)
    if kind == "qwen":
        import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401
    tokenizer = build_tokenizer()

    before, read, start = _status("VmRSS"), _bytes_read(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    if kind == "dit":
        model: Any = load_dit(path, **kwargs)
    else:
        model = load_text_encoder(path, tokenizer, **kwargs).model
    seconds = time.perf_counter() - start
    return {
        "final": sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        "peak": _status("VmHWM") - before,
        "read": _bytes_read() - read,
        "seconds": round(seconds, 1),
    }
