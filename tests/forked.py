"""Processes of tests, forked from one that has imported what they need: that takes longer than most of them work."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing import reduction
from multiprocessing.process import BaseProcess
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
"""No backward pass was run in its server: autograd has queues for those devices only that it knows at the first one."""
FORKS.set_forkserver_preload(
    [
        *("tests.train.world", "tests.train.test_resume", "tests.test_gpu_discipline"),
        *("tests.models.test_context_parallel", "tests.plan.test_several_gpus"),
    ]
)


class Stream:
    """A file descriptor that goes to a process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.descriptor),)


def _received(descriptor: Any) -> Stream:
    return Stream(descriptor.detach())


def forked(work: Callable[..., object], *words: object, stderr: int, **variables: str) -> BaseProcess:
    """Call a function of a module in a process of its own.

    Args:
        stderr: the descriptor that becomes its stderr.
        variables: are added to its environment.
    """
    process = FORKS.Process(target=_call, args=(work, words, Stream(stderr), variables))
    process.start()
    return process


def _call(work: Callable[..., object], words: tuple[object, ...], stderr: Stream, variables: Mapping[str, str]) -> None:
    os.dup2(stderr.descriptor, 2)
    os.close(stderr.descriptor)
    os.environ.update(variables)
    work(*words)
