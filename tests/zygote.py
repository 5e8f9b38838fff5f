"""A process that has imported what `snakemake` and `hv15` need, and forks itself for each call of them.

A whole-workflow test starts some ten programs, and each would spend most of its time importing Snakemake or torch.
The fork runs what a new process would run: the program's own entry point, with the caller's arguments, environment,
working folder and standard streams. The process listens on a socket in a test's own folder.

Signals to a caller do not reach the fork, so tests of signals start real programs.
"""

from __future__ import annotations

import array
import atexit
import gc
import json
import os
import re
import resource
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CLIENT = Path(__file__).with_name("zygote_client.py")
LIMITS = "HV15_TEST_LIMITS"
"""Environment variable: the most seconds of CPU time and MiB of memory that a call may add, as two numbers."""

IMPORTED = (
    *("snakemake.cli", "requests", "smart_open", "torch", "av", "numpy", "hv15.cli", "hv15.workflow", "hv15.models"),
    *("hv15.cache.latents", "hv15.data.encode", "hv15.lora.fit", "hv15.lora.conversion", "hv15.runs.job_shell"),
    *("hv15.commands.check", "hv15.commands.checks", "hv15.commands.project", "hv15.commands.runs", "hv15.train.run"),
)
"""What most calls need. Importing them must not start a thread, which would be missing after a fork."""
SNAKEMAKE, TORCH = "snakemake.cli", "torch"
ENCODERS = (
    *("accelerate", "transformers.models.qwen2.tokenization_qwen2", "transformers.models.siglip.modeling_siglip"),
    *("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.t5.modeling_t5"),
)
"""What real texts are encoded with takes as long to import as all else, and so does the trainer's package."""


@contextmanager
def zygote(folder: Path, more: Sequence[str] = (), *, imported: Sequence[str] = IMPORTED) -> Iterator[Path]:
    """Start the process and yield a folder with the commands `snakemake` and `hv15`, which call it.

    Args:
        more: further modules to import.
        imported: modules to import.
    """
    address = folder / "socket"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote", str(address), *imported, *more],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        for name in ("snakemake", "hv15"):
            write_command(folder / name, address, name)
        yield folder
    finally:
        process.stdin.close()  # that ends the process, also when the tests are killed
        process.wait()


def write_command(path: Path, address: Path, program: str) -> None:
    """Write a command that calls a program: `snakemake`, `hv15`, or the path of a Python file."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{CLIENT}" "{address}" "{program}" "$@"\n')
    path.chmod(0o755)


def serve(address: str, imported: Sequence[str]) -> None:
    """Answer calls until standard input ends."""
    for name in imported:
        __import__(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    if SNAKEMAKE in imported:
        sys.modules[SNAKEMAKE].get_argument_parser()  # finds the plugins
    if TORCH in imported:
        sys.modules[TORCH].set_num_threads(1)
    os.fsync = lambda descriptor: None  # no test outlives a failure of power
    for imported in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        imported.atexit = False  # what torch takes down at its end takes longer than many a fork
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        parent = os.getpid()
        _watch_standard_input(parent)
        while True:
            call, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(call)
            call.close()


def _watch_standard_input(process: int) -> None:
    """Fork a process that ends this one and its forks when standard input ends.

    (A thread might be in the middle of a fork.)
    """
    if os.fork() == 0:
        os.read(0, 1)
        os.killpg(process, signal.SIGKILL)  # this one as well


def _answer(call: socket.socket) -> None:
    """Run one program in this fork, send its exit status, and exit."""
    message, ancillary, _, _ = call.recvmsg(4, socket.CMSG_LEN(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    request = json.loads(_read(call, struct.unpack("<I", message)[0]))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request["folder"])
    hub = _hub_variables()
    os.environ.clear()
    os.environ.update(request["environment"])
    if _hub_variables() != hub:  # it has read them when it was imported
        for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
            del sys.modules[name]
    if limits := os.environ.get(LIMITS):
        _limit(*map(int, limits.split()))
    program, *sys.argv[1:] = request["words"]
    sys.argv[0] = program
    code = 1
    try:
        code = _run(program)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()  # Snakemake's limit of jobs per second, a second long, which it forgets to end
    threading._shutdown()  # type: ignore[attr-defined]  # as at a program's normal end: waits for its threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    call.sendall(struct.pack("<I", code & 255))
    os._exit(code & 255)


def _hub_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("HF_")}


def _limit(seconds: int, mib: int) -> None:
    """Let the kernel end this process when it computes longer, and refuse it more memory, whatever else runs here.

    Of memory, what can be written counts: not address space that is only reserved, nor files that are mapped.
    """
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert used is not None
    most = (int(used[1]) << 10) + (mib << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(program: str) -> int:
    if program == "snakemake":
        from snakemake.cli import main

        main()
        return 0
    if program == "hv15":
        from hv15.cli import main as hv15

        return int(hv15() or 0)
    runpy.run_path(program, run_name="__main__")
    return 0


def _read(call: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = call.recv(count - len(data))
        if not part:
            os._exit(1)
        data += part
    return data


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
