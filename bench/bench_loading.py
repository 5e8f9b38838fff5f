"""Peak memory of loading full-size model files, as a ratio to what stays in memory.

    python bench/bench_loading.py [--only fp8] [--blocks 54] [--folder /tmp]

The files are sparse: true headers of the published files (16.7 GB apparent size in bfloat16), and data that take no
disk and are zeros when read. Each is loaded in a process of its own, on the CPU; the peak is the kernel's, above
what the process held before. "read" is what was read of the file: of Qwen 26 of 28 layers and the embedding. As much
memory as "peak" must be free: 16 GiB for bfloat16. On a CPU nf4 takes minutes; --blocks 8 makes that bearable.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.models import sparse_files
from tests.models.loading_probe import probe
from tests.models.sparse_files import Shapes, data_bytes, diffusers_folder, qwen_folder, sparse_checkpoint

# What is loaded: model, dtype, quantize.
CASES: dict[str, tuple[str, str | None, str | None]] = {
    "official bf16, as it is": ("dit", None, None),
    "official fp32 to bf16": ("dit", "bfloat16", None),
    "official bf16 to fp8": ("dit", "bfloat16", "fp8"),
    "official bf16 to int8": ("dit", "bfloat16", "int8"),
    "official bf16 to nf4": ("dit", "bfloat16", "nf4"),
    "comfyui fp16 to bf16": ("dit", "bfloat16", None),
    "comfyui fp16 to fp8": ("dit", "bfloat16", "fp8"),
    "comfyui fp8 scaled, as it is": ("dit", "bfloat16", "fp8"),
    "comfyui fp8 scaled to nf4": ("dit", "bfloat16", "nf4"),
    "diffusers bf16 shards, as they are": ("dit", None, None),
    "diffusers bf16 shards to fp8": ("dit", "bfloat16", "fp8"),
    "qwen bf16, as it is": ("qwen", None, None),
    "qwen bf16 shards to fp16": ("qwen", "float16", None),
    "qwen bf16 to fp8": ("qwen", None, "fp8"),
}


def make(name: str, folder: Path, blocks: int) -> tuple[Path, int]:
    """The file or folder of a case, and the bytes of its tensors."""
    if name.startswith("qwen"):
        shapes = sparse_files.qwen()
        if "shards" in name:
            return qwen_folder(folder / "qwen"), data_bytes(shapes)
        return sparse_checkpoint(folder / "qwen.safetensors", shapes), data_bytes(shapes)
    if name.startswith("diffusers"):
        shapes = _some_blocks(sparse_files.diffusers_dit(), "transformer_blocks", blocks)
        return diffusers_folder(folder / "transformer", shapes), data_bytes(shapes)
    if "fp8 scaled" in name:
        shapes = sparse_files.comfyui_fp8_dit()
    elif name.startswith("comfyui"):
        shapes = sparse_files.comfyui_dit()
    else:
        shapes = sparse_files.official_dit("F32" if "fp32" in name else "BF16")
    shapes = _some_blocks(shapes, "double_blocks", blocks)
    return sparse_checkpoint(folder / "dit.safetensors", shapes), data_bytes(shapes)


def _some_blocks(shapes: Shapes, name: str, count: int) -> Shapes:
    """The same file with its first blocks only."""
    left_out = tuple(f"{name}.{number}." for number in range(count, 54))
    return {key: entry for key, entry in shapes.items() if not key.startswith(left_out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains it")
    parser.add_argument("--blocks", type=int, default=54, help="of the transformer: fewer for less memory and time")
    parser.add_argument("--folder", type=Path, help="where the sparse files are written (the system's)")
    options = parser.parse_args()
    print(f"{'':36} {'file':>9} {'read':>9} {'stays':>9} {'peak':>9} {'peak/stays':>10} {'seconds':>8}")
    for name, (model, dtype, quantize) in CASES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path, size = make(name, Path(folder), options.blocks)
            found = probe(model, path, dtype=dtype, quantize=quantize)
        sizes = " ".join(f"{value / 2**30:8.2f}G" for value in (size, found["read"], found["final"], found["peak"]))
        print(f"{name:36} {sizes} {found['peak'] / found['final']:10.3f} {found['seconds']:8.1f}", flush=True)


if __name__ == "__main__":
    main()
