"""Load one model file in a process of its own and print the peak of its memory as JSON.

`python -m tests.models.loading_probe dit FILE --dtype bfloat16 --quantize fp8`

A small file of the same kind is loaded before, so that libraries and their caches are not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def probe(model: str, path: Path, *, dtype: str | None = None, quantize: str | None = None) -> dict[str, Any]:
    """Run the probe; sizes in bytes, all above what the process held before.

    Returns:
        `final`: of the model's tensors; `peak`: of the process; `read`: from files; `seconds`.
    """
    words = [sys.executable, "-m", "tests.models.loading_probe", model, str(path)]
    words += ["--dtype", dtype] if dtype else []
    words += ["--quantize", quantize] if quantize else []
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    assert found
    return 1024 * int(found[1])


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=("dit", "qwen"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--dtype")
    parser.add_argument("--quantize")
    options = parser.parse_args()

    import torch

    from hv15.demo.tokenizer import build_tokenizer
    from hv15.models import load_dit, load_text_encoder
    from tests.models.sparse_files import sized_dit, sparse_checkpoint

    torch.set_num_threads(1)
    kwargs: dict[str, Any] = {"dtype": getattr(torch, options.dtype) if options.dtype else None}
    kwargs["quantize"] = options.quantize
    with tempfile.TemporaryDirectory() as folder:
        load_dit(sparse_checkpoint(Path(folder) / "small.safetensors", sized_dit(128, 1)), **kwargs)
    if options.model == "qwen":
        import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401
    tokenizer = build_tokenizer()

    before, read, start = _status("VmRSS"), _bytes_read(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    if options.model == "dit":
        model: Any = load_dit(options.path, **kwargs)
    else:
        model = load_text_encoder(options.path, tokenizer, **kwargs).model
    seconds = time.perf_counter() - start
    result = {
        "final": sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        "peak": _status("VmHWM") - before,
        "read": _bytes_read() - read,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
