"""Out-of-memory errors of the GPU or the machine, as one kind of error. Loads no torch.

`hv15.commands.plan.explain`, which knows the project, adds the settings that help.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from hv15.errors import UserError

StageName = Literal[
    "encode latents", "encode texts", "condition", "train", "denoise", "decode", "upsample", "decode large"
]
"""The stages that compute with a model, as a plan of memory calls them. The last two are those of super resolution."""


_WORDS: dict[StageName, str] = {
    "train": "training",
    "denoise": "sampling",
    "upsample": "super resolution",
    "decode large": "decode at the large size",
}


class OutOfMemory(UserError):  # noqa: N818
    """Memory was not enough for a stage of a plan."""

    def __init__(self, stage: StageName, error: BaseException) -> None:
        words = _WORDS.get(stage) or stage
        super().__init__(
            f"out of memory in {words}: {in_words(error)}",
            hint="`hv15 plan` says what each stage needs and which setting helps; what is saved is kept",
        )
        self.stage = stage


MACHINE_MEMORY_HINT = "close other programs, or use a machine with more memory; what is finished is kept"
"""What helps where no setting does."""

_SAID = (
    *("can't allocate memory", "not enough memory"),  # torch's allocator on the CPU
    *("Cannot allocate memory", "std::bad_alloc"),  # the system, as safetensors and others pass it on
    "CUDA error: out of memory",  # the driver itself, as for pinned memory
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED"),  # the libraries
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, one of its libraries or Python says that the GPU or the machine has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    foreign = isinstance(error, Exception) and not isinstance(error, UserError)
    return foreign and any(words in str(error) for words in _SAID)


def in_words(error: BaseException) -> str:
    """Return what such an error says, in one line."""
    return (str(error) or "none is left on this machine").splitlines()[0]


def without_stage(error: BaseException) -> UserError:
    """Return the error for a person where it is of no stage of a plan."""
    return UserError(f"out of memory: {in_words(error)}", hint=MACHINE_MEMORY_HINT)


@contextmanager
def memory_advice(stage: StageName = "train") -> Iterator[None]:
    """Turn an out-of-memory error into an OutOfMemory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(stage, error) from error
