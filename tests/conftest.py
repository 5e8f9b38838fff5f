from __future__ import annotations

import gc
import os
import signal
import zlib
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

# Fuzz tests try the same examples each time, and a busy machine fails none of them.
settings.register_profile("hv15", derandomize=True, deadline=None)
settings.load_profile("hv15")

# Devices that this user has measured would change what is planned.
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"

# The user's queue is none of the tests' concern.
os.environ["HV15_QUEUE"] = "/nonexistent/queue"

# The models of the tests are tiny: a second thread costs them more than it gives, and results stay the same anywhere.
torch.set_num_threads(1)

# What is imported and collected stays. To look through it again and again for garbage takes long.
gc.disable()

# No test outlives a failure of power, so none waits for the disk.
os.fsync = lambda descriptor: None

# Under `nohup` what the tests start would ignore SIGHUP as well: a handler, unlike that, is not inherited. In the
# background of a script they would ignore Ctrl-C.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = "tests/workflow/"
"""The folder whose tests share a process that has imported Snakemake and the models, and projects on which everything
was made, which take as long as a third of its tests: one worker has all of them, from the beginning."""

LONGEST = (
    *("test_behaviour.py", "test_stress.py", "test_transformer.py", "test_inputs.py", "test_gpu_discipline.py"),
    *("test_interactive.py", "test_sample.py", "test_upsample.py", "test_full_size_files.py", "test_config_trouble.py"),
    *("test_charts_screen.py", "test_app.py", "test_config_screen.py", "test_sample_table.py", "test_snapshots.py"),
)
"""Files of twenty seconds and more: begun first, they do not keep one worker busy when all others are done."""

PARTS = {"test_snapshots.py": 2, "test_config_trouble.py": 2}
"""Files whose tests have little to share: into so many parts they are dealt out."""

FORKING = (
    *("test_transformer.py", "test_gpu_discipline.py", "test_context_parallel.py", "test_full_size_files.py"),
    *("test_processes.py", "test_resume.py", "test_unread_progress.py", "test_bitsandbytes.py"),
    "test_interactive_terminal.py",
)
"""Files that share the server of tests/forked.py, which takes as long to start as many of their tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (not item.nodeid.startswith(TOGETHER), item.path.name not in LONGEST))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    gc.freeze()  # pytest looks for garbage five times before it ends


class ByFile(LoadScopeScheduling):
    """Gives a file's tests to one worker: they share what is costly to make. Some are split, one folder is not."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if file.startswith(TOGETHER):
            return TOGETHER
        name = file.rpartition("/")[2]
        if name in FORKING:
            return FORKING[0]
        return f"{file}::{zlib.crc32(test.encode()) % PARTS.get(name, 1)}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)
