"""Which GPUs there are, and that each job gets one of its own: fake ones, real processes, real locks."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hv15 import gpus
from hv15.errors import UserError
from hv15.gpus import LOCAL_RANK, SLURM_JOB, VISIBLE, gpu_jobs, held_locks, is_taken, take_gpu, take_gpus

JOB = f"""
import logging, os, sys
from hv15.gpus import take_gpu
logging.basicConfig(stream=sys.stdout, format="%(message)s; ")
take_gpu(sys.argv[1])
print(os.environ.get("{VISIBLE}"), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing is locked, and this process holds nothing."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in (VISIBLE, LOCAL_RANK, SLURM_JOB):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "_held", held := list[int]())
    yield
    for descriptor in held:
        os.close(descriptor)


class Job:
    """A process that takes a GPU and keeps it until it is ended."""

    def __init__(self, device: str = "auto", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, device],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        while self.said.endswith(";"):
            self.said += " " + self.process.stdout.readline().strip()

    @property
    def sees(self) -> str:
        """What is left to torch."""
        return self.said.rpartition("; ")[2]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def started(device: str = "auto", **environment: str) -> Job:
        jobs.append(Job(device, **environment))
        return jobs[-1]

    yield started
    for job in jobs:
        job.kill()


def test_each_job_has_a_gpu_of_its_own_and_a_dead_one_gives_it_back(start: Callable[..., Job]) -> None:
    found = [start(CUDA_VISIBLE_DEVICES="2,5,GPU-1b2c") for _ in range(3)]
    assert [job.sees for job in found] == ["2", "5", "GPU-1b2c"]
    found[1].kill()
    assert start(CUDA_VISIBLE_DEVICES="2,5,GPU-1b2c").sees == "5"


def test_jobs_beyond_the_gpus_share_one_and_say_so(start: Callable[..., Job]) -> None:
    for _ in range(2):
        start(CUDA_VISIBLE_DEVICES="0,1")
    third = start(CUDA_VISIBLE_DEVICES="0,1")
    assert third.sees in ("0", "1")
    assert third.said == f"all 2 GPUs are taken by other jobs: GPU {third.sees} is shared; {third.sees}"


def test_a_gpu_that_is_set_by_number_is_taken_and_the_numbers_stay(start: Callable[..., Job]) -> None:
    """With one visible GPU, cuda:1 would not be there any more."""
    assert start("cuda:0", CUDA_VISIBLE_DEVICES="0,1").sees == "0,1"
    assert start("auto", CUDA_VISIBLE_DEVICES="0,1").sees == "1"
    assert start("cuda:7", CUDA_VISIBLE_DEVICES="0,1").said == "0,1", "which torch refuses"


def test_each_process_of_accelerate_has_the_gpu_of_its_number(start: Callable[..., Job]) -> None:
    ranks = [start(CUDA_VISIBLE_DEVICES="0,1,2", LOCAL_RANK=str(rank)) for rank in range(2)]
    assert [job.sees for job in ranks] == ["0,1,2", "0,1,2"]
    assert start(CUDA_VISIBLE_DEVICES="0,1,2").sees == "2"


@pytest.mark.parametrize(
    ("taken", "visible", "said"),
    [([], "0,1", ""), (["0"], "1,2", ""), (["0", "2"], "1,2|0,1", "all 3 GPUs are taken by other jobs: GPU [02] is")],
)
def test_several_gpus_for_one_job(
    taken: list[str],
    visible: str,
    said: str,
    start: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Free ones, as far as there are any; all that it takes are locked."""
    for name in taken:
        start(f"cuda:{name}", CUDA_VISIBLE_DEVICES="0,1,2")
    monkeypatch.setenv(VISIBLE, "0,1,2")
    take_gpus("auto", 2, "x is 2")
    assert re.fullmatch(visible, os.environ[VISIBLE])
    assert re.search(said, caplog.text) is not None
    assert bool(caplog.text) == bool(said)
    assert len(held_locks()) == (1 if said else 2)


@pytest.mark.parametrize(
    ("device", "visible", "message"),
    [
        ("auto", "0", "x is 2, which needs 2 GPUs on this machine, but this process may use 1"),
        ("cuda", "", "x is 2, which needs 2 GPUs on this machine, but this process may use 0"),
        ("cuda:1", "0,1,2", "runtime.device: cuda:1 is one GPU"),
    ],
)
def test_too_few_gpus_are_refused(device: str, visible: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    with pytest.raises(UserError, match=message):
        take_gpus(device, 2, "x is 2")
    assert held_locks() == ()


@pytest.mark.parametrize(("device", "visible"), [("cpu", "0,1"), ("auto", "")])
def test_several_processes_on_the_cpu_reserve_nothing(
    device: str, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    take_gpus(device, 2, "x is 2")
    assert (os.environ[VISIBLE], held_locks()) == (visible, ())


def test_slurm_jobs_number_gpus_of_their_own(start: Callable[..., Job]) -> None:
    """GPU 0 of one job may be another than GPU 0 of the next."""
    for job in ("7", "8"):
        assert [start(CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID=job).sees for _ in range(2)] == ["0", "1"]


def test_slurm_jobs_that_see_all_gpus_take_different_ones(start: Callable[..., Job]) -> None:
    """Where SLURM only counts GPUs, each job sees all of the node, by names that mean the same to all."""
    names = "GPU-1a,GPU-2b"
    taken = [start(CUDA_VISIBLE_DEVICES=names, SLURM_JOB_ID=job).sees for job in ("7", "8")]
    assert taken == names.split(",")


def test_a_look_at_a_gpu_does_not_take_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As the queue's worker looks twice a second, while the jobs of other projects begin."""
    monkeypatch.setenv(VISIBLE, "0,1")
    file = gpus._lock_file("0")
    file.touch()
    with file.open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        monkeypatch.setattr("hv15.gpus.time.sleep", lambda _: fcntl.flock(looker, fcntl.LOCK_UN))
        take_gpus("auto", 2, "x is 2")
    assert not caplog.text
    assert len(held_locks()) == 2


@pytest.mark.parametrize(
    ("device", "visible"),
    [("cpu", "0,1"), ("auto", ""), ("auto", "-1"), ("auto", "-1,0"), ("auto", None)],
)
def test_where_there_is_nothing_to_choose_nothing_is_changed(
    device: str, visible: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "_DRIVERS", ())
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    take_gpu(device)
    assert os.environ.get(VISIBLE) == visible
    assert gpus._held == []


def test_the_only_gpu_is_not_chosen_but_marked_as_taken(start: Callable[..., Job]) -> None:
    """A job that may use others as well leaves it alone."""
    assert not is_taken("GPU-b")
    alone = start(CUDA_VISIBLE_DEVICES="GPU-b")
    assert alone.said == "GPU-b"
    assert is_taken("GPU-b")
    assert not is_taken("GPU-a")
    assert start(CUDA_VISIBLE_DEVICES="GPU-b,GPU-a").sees == "GPU-a"
    assert start(CUDA_VISIBLE_DEVICES="GPU-b").said == "GPU-b", "nothing is said where there is no other"


def test_a_process_takes_one_gpu_however_often_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    take_gpu("auto")
    monkeypatch.setenv(VISIBLE, "0,1")
    take_gpu("auto")
    assert len(gpus._held) == 1


def test_locks_that_somebody_else_could_have_made_are_not_used(tmp_path: Path, start: Callable[..., Job]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"hv15-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    job = start(CUDA_VISIBLE_DEVICES="0,1")
    assert job.sees in ("0", "1")
    assert f"GPUs cannot be locked, so other jobs may use GPU {job.sees} as well: " in job.said
    assert "is not this user's" in job.said
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_temporary_folder_that_cannot_be_used_is_told(start: Callable[..., Job]) -> None:
    (Path(os.environ["TMPDIR"]) / f"hv15-{os.getuid()}").write_text("a file in its place")
    job = start(CUDA_VISIBLE_DEVICES="0,1")
    assert job.sees in ("0", "1")
    assert "taken by other jobs" not in job.said
    assert "GPUs cannot be locked" in job.said
    assert start("cuda:1", CUDA_VISIBLE_DEVICES="0,1").said == "0,1"


class Driver(ModuleType):
    """Stands in for pynvml."""

    def __init__(self, uuids: tuple[str, ...]) -> None:
        super().__init__("pynvml")
        self.uuids = uuids

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.uuids:
            raise OSError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.uuids[handle]


def test_without_a_choice_of_the_user_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_DRIVERS", ("/dev/null",))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(("GPU-a", "GPU-b")))
    assert gpus.gpus() == ["GPU-a", "GPU-b"]
    assert [gpu_jobs(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [2, 2, 1, 1]
    monkeypatch.setenv(VISIBLE, "1,0,1, 3")
    assert gpus.gpus() == ["1", "0", "3"]
    assert gpu_jobs("auto") == 3
    monkeypatch.delenv(VISIBLE)
    take_gpu("auto")
    assert os.environ[VISIBLE] == "GPU-a"


def test_a_driver_that_fails_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_DRIVERS", ("/dev/null",))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(()))
    assert gpus.gpus() == []
    assert gpu_jobs("auto") == 1


def test_no_torch_is_needed() -> None:
    words = "import sys, hv15.gpus; hv15.gpus.take_gpu('auto'); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", words], env={**os.environ, VISIBLE: "0,1"}, check=False).returncode == 0
    )
