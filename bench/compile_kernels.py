"""Compiles the Triton kernels for GPUs that need not be there, at the real width: what would fail on a GPU fails here.

    python bench/compile_kernels.py [CAPABILITY ...]      # 7.5, 8.0, 9.0 and 12.0

It needs Triton, which brings NVIDIA's assembler, and no GPU. A kernel that is compiled may still be wrong or slow:
`tests/models/test_triton_kernels.py` compares numbers, and `hv15 selftest` shows both on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hv15.models import triton_kernels
from hv15.models.dit_config import DiTConfig
from hv15.models.pass_kernels import LARGEST_RANK

SIZES = DiTConfig()
CAPABILITIES = ("7.5", "8.0", "9.0", "12.0")
"""T4, A100, H100, RTX 5090."""
NUMBERS = {"fp32": LARGEST_RANK // 4, "bf16": LARGEST_RANK}
"""Number format -> the largest rank that a pass adds in it."""
TENSORS = {"x", "weight", "out", "grad", "d_x", "gate", "y", "d_y", "hidden", "up"}
FP32_TENSORS = {"rope", "scale", "sums"}
FLOATS = {"eps", "factor"}
"""Names of arguments; the others are integers."""

Constants = Mapping[str, bool | int]


def variants(largest_rank: int) -> Iterator[tuple[str, Constants]]:
    """Each kernel with its constants; an argument that is 1 is a constant to Triton."""
    heads = {"HEADS": triton.next_power_of_2(SIZES.num_heads), "WIDTH": SIZES.head_dim}
    for name in ("_head_norm", "_head_norm_backward"):
        for rotates in (True, False):
            yield name, {**heads, "ROTATES": rotates}
        yield name, {"HEADS": 1, "WIDTH": SIZES.head_dim, "ROTATES": True, "tokens": 1, "heads": 1}
    summed = dict(zip(("ROWS", "COLUMNS"), triton_kernels.SUMMED, strict=True))
    yield "_gated_sum_backward", summed
    yield "_gated_sum_backward", {**summed, "tokens": 1, "parts": 1}
    tile = {"TOKENS": triton_kernels.TOKENS, "COLUMNS": triton_kernels.COLUMNS}
    for name in ("_gelu", "_gelu_backward", "_gated_low_rank"):
        yield name, {**tile, "RANK": 16, "rank": 1, "hidden_row": 1}
        for rank in (16, largest_rank):
            yield name, {**tile, "RANK": rank}


def compile_one(name: str, number: str, constants: Constants, capability: str) -> int:
    """Compile a kernel; return the bytes of shared memory that a block of threads takes."""
    kernel: Any = getattr(triton_kernels, name)
    kinds = {
        **dict.fromkeys(kernel.arg_names, "i32"),
        **{each: f"*{number}" for each in kernel.arg_names if each in TENSORS},
        **{each: "*fp32" for each in kernel.arg_names if each in FP32_TENSORS},
        **{each: "fp32" for each in kernel.arg_names if each in FLOATS},
        **dict.fromkeys(constants, "constexpr"),
    }
    places = {(kernel.arg_names.index(each),): value for each, value in constants.items()}
    target = GPUTarget("cuda", int(capability.replace(".", "")), 32)
    made = triton.compile(ASTSource(fn=kernel, signature=kinds, constexprs=places), target=target)
    return int(made.metadata.shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capabilities", nargs="*", default=CAPABILITIES, metavar="CAPABILITY")
    given = parser.parse_args()
    print(f"Triton {triton.__version__}; bytes of shared memory")
    for capability in given.capabilities:
        for number, rank in NUMBERS.items():
            if number == "bf16" and float(capability) < 8:
                continue
            for name, constants in variants(rank):
                words = ", ".join(f"{each} {value}" for each, value in constants.items())
                shared = compile_one(name, number, constants, capability)
                print(f"{capability:5} {number} {name:20} {shared:6}  {words}", flush=True)


if __name__ == "__main__":
    main()
