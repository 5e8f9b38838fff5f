"""An out-of-memory error of the GPU or the machine, said as one message; loads no torch.

Which settings help is planned where the project is known: `hv15.commands.plan.explain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hv15.errors import UserError

STAGES = {
    "encode:latents": "encode latents",
    "encode:texts": "encode texts",
    "sample:condition": "condition",
    "train:train": "train",
    "sample:denoise": "denoise",
    "sample:decode": "decode",
}
"""What the commands are called in a plan."""


class OutOfMemory(UserError):  # noqa: N818
    """Memory was not enough for a stage of a plan."""

    def __init__(self, stage: str, error: BaseException) -> None:
        words = {"train": "training", "denoise": "sampling"}.get(stage, stage)
        super().__init__(
            f"out of memory in {words}: {(str(error) or 'none is left on this machine').splitlines()[0]}",
            hint="`hv15 plan` says what each stage needs and which setting helps; what is saved is kept",
        )
        self.stage = stage


_SAID = (
    *("can't allocate memory", "not enough memory"),  # torch's allocator on the CPU
    "CUDA error: out of memory",  # the driver itself, as for pinned memory
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED"),  # the libraries
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, one of its libraries or Python says that the GPU or the machine has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def memory_advice(stage: str = "train") -> Iterator[None]:
    """Turn an out-of-memory error into an OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(stage, error) from error
