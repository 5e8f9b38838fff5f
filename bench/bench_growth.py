"""How the time of each command grows with the clips and the experiments of a project.

    python bench/bench_growth.py                                     everything: about an hour
    python bench/bench_growth.py plan --clips 100,10000 --experiments 0,10
    python bench/bench_growth.py index caption commands --clips 10000

plan      reading the workflow, the first plan, and the plan when nothing is to be done
index     the first reading of a dataset's files, in units of this machine's sha256
caption   one caption is edited: how long until its job begins, and until it is encoded
commands  hv15 check, status and gc of a finished project; the clips are real videos

Each row has medians: seconds, and in brackets the processor seconds of all processes, which other work on the machine
changes less. The tables are in Markdown, as docs/growth.md has them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from growth_project import CLIPS, make_everything, small_video, target, write_clips, write_config

from hv15.data.index import FileIndex
from hv15.data.media import MediaFile
from hv15.data.scan import survey
from hv15.home import workflow_folder
from hv15.project import Project

SNAKEMAKE = (sys.executable, "-m", "snakemake", "--cores", "1")
HV15 = (sys.executable, "-m", "hv15")
NOTHING = "Nothing to be done"
ENCODING = "Encoding captions and prompts"
"""What Snakemake prints when the job of an edited caption begins."""
LARGE_BYTES, LARGE_FILES = 100 << 20, 20
"""The files whose first reading is timed."""


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    wall_s: float
    cpu_s: float
    output: str = ""

    def __str__(self) -> str:
        return f"{_seconds(self.wall_s)} ({_seconds(self.cpu_s)})"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def run(*command: str | Path, root: Path) -> Spent:
    """Run a command to its end; one that fails is no measurement."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    spent = spent_since(begin, before)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return replace(spent, output=done.stdout + done.stderr)


def spent_since(begin: float, before: resource.struct_rusage) -> Spent:
    """What the processes took that have ended since a moment and what was used then."""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.perf_counter() - begin, cpu)


def median(measure: Callable[[], Spent], repeats: int) -> Spent:
    """The medians of several measurements."""
    found = [measure() for _ in range(repeats)]
    wall, cpu = (each.wall_s for each in found), (each.cpu_s for each in found)
    return Spent(statistics.median(wall), statistics.median(cpu), found[-1].output)


def snakemake(root: Path, *words: str) -> Spent:
    return run(*SNAKEMAKE, "-d", root, *words, root=workflow_folder())


def hv15(root: Path, *words: str) -> Spent:
    return run(*HV15, *words, root=root)


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_head(*names: str) -> None:
    print()
    print_row(*names)
    print_row(*("---" for _ in names))


# -- plans ------------------------------------------------------------------------------------------------------------


def measure_plans(folder: Path, options: argparse.Namespace) -> None:
    """Each number of clips with each number of experiments."""
    print_head("clips", "experiments", "jobs", "workflow read", "first plan", "nothing to do")
    for clips in options.clips:
        root = folder / str(clips)
        write_clips(root, range(clips))
        for experiments in options.experiments:
            for left in ("results", ".hv15", ".snakemake"):
                shutil.rmtree(root / left, ignore_errors=True)
            write_config(root, experiments)
            asked = target(experiments)
            read = median(lambda root=root: snakemake(root, "--list-rules"), options.repeats)
            plan = median(lambda root=root, asked=asked: snakemake(root, "-n", asked), options.repeats)
            jobs = next(line.split()[1] for line in plan.output.splitlines() if line.startswith("total "))
            make_everything(root, experiments)
            idle = median(lambda root=root, asked=asked: snakemake(root, "-n", asked), options.repeats)
            if NOTHING not in idle.output:
                raise SystemExit(f"something is to be done:\n{idle.output}")
            print_row(f"{clips:,}", experiments, f"{int(jobs):,}", read, plan, idle)


# -- the first reading ------------------------------------------------------------------------------------------------


def measure_index(folder: Path, options: argparse.Namespace) -> None:
    """Large files, then small ones, against plain sha256 of as many bytes, by processor seconds."""
    speed = sha256_speed()
    print(f"\nsha256: {speed / 1e6:,.0f} MB a processor second")
    print_head("files", "bytes", "first reading", "MB/s", "MB a processor second", "of sha256", "read again")
    large = folder / "large"
    write_large(large)
    measure_reading(large, speed)
    for clips in options.clips:
        small = folder / f"small-{clips}"
        write_clips(small, range(clips), os.urandom(4096))
        measure_reading(small, speed)


def sha256_speed() -> float:
    """Bytes a processor second."""
    block = os.urandom(64 << 20)
    return len(block) / statistics.median(spent_here(lambda: hashlib.sha256(block).digest()).cpu_s for _ in range(5))


def spent_here(work: Callable[[], object]) -> Spent:
    """What something takes in this process, with all of its threads."""
    before, begin = time.process_time(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - begin, time.process_time() - before)


def write_large(root: Path) -> None:
    folder = root / CLIPS
    folder.mkdir(parents=True)
    block = os.urandom(LARGE_BYTES)
    for number in range(LARGE_FILES):
        (folder / f"{number}.mp4").write_bytes(number.to_bytes(8, "big") + block)
        (folder / f"{number}.txt").write_text("a caption")


def measure_reading(root: Path, speed: float) -> None:
    """The files are in the machine's memory, so that not its disk is measured."""
    write_config(root)
    sources: list[MediaFile] = [*survey(Project(root / "config.yaml").settings.datasets[0], root).sources]
    for source in sources:
        Path(source.place).read_bytes()

    def read() -> None:
        FileIndex(root / "index.json").media_keys(sources)

    first, again = spent_here(read), spent_here(read)
    total = sum(source.size for source in sources)
    rate = total / first.cpu_s
    print_row(
        f"{len(sources):,}",
        f"{total / 1e6:,.0f} MB",
        first,
        f"{total / first.wall_s / 1e6:,.0f}",
        f"{rate / 1e6:,.0f}",
        f"{rate / speed:.2f}",
        again,
    )


# -- one edited caption -----------------------------------------------------------------------------------------------


def measure_caption(folder: Path, options: argparse.Namespace) -> None:
    print_head("clips", "until its job begins", "until it is encoded")
    for clips in options.clips:
        root = folder / f"caption-{clips}"
        write_clips(root, range(clips))
        write_config(root)
        make_everything(root)
        rounds = [edit_and_encode(root, clips // 2, f"round {number}") for number in range(options.repeats)]
        begun, encoded = (iter(values) for values in zip(*rounds, strict=True))
        print_row(f"{clips:,}", median(begun.__next__, options.repeats), median(encoded.__next__, options.repeats))


def edit_and_encode(root: Path, clip: int, words: str) -> tuple[Spent, Spent]:
    """Edit a caption; return what Snakemake takes until its job begins, and until its encoding is done."""
    (root / CLIPS / f"{clip:06}.txt").write_text(f"a clip with another caption, {words}")
    command = [*SNAKEMAKE, "-d", str(root), "--until", "encode_texts"]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    begun, output = None, ""
    with subprocess.Popen(
        command, cwd=workflow_folder(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if ENCODING in line and begun is None:
                used = psutil.Process(process.pid).cpu_times()
                begun = Spent(time.perf_counter() - begin, used.user + used.system)
    if process.returncode or begun is None:
        raise SystemExit(output)
    return begun, spent_since(begin, before)


# -- commands ---------------------------------------------------------------------------------------------------------


def measure_commands(folder: Path, options: argparse.Namespace) -> None:
    """What people call on a project that is done."""
    print_head("clips", "check, first", "check", "check, all touched", "status", "gc", "gc of a tenth")
    for clips in options.clips:
        root = folder / f"commands-{clips}"
        write_clips(root, range(clips), small_video())
        write_config(root)
        first = hv15(root, "check")
        check = median(lambda root=root: hv15(root, "check"), options.repeats)
        touched = median(lambda root=root: touch_and_check(root), options.repeats)
        make_everything(root)
        hv15(root, "run", "--follow")  # nothing is to be done; it leaves the record that `status` reads
        status = median(lambda root=root: hv15(root, "status"), options.repeats)
        collect = median(lambda root=root: hv15(root, "gc"), options.repeats)
        for clip in (root / CLIPS).iterdir():
            if clip.stem.endswith("0"):
                clip.unlink()
        unused = median(lambda root=root: hv15(root, "gc", "--unused"), options.repeats)
        print_row(f"{clips:,}", first, check, touched, status, collect, unused)


def touch_and_check(root: Path) -> Spent:
    for clip in (root / CLIPS).glob("*.mp4"):
        os.utime(clip)
    return hv15(root, "check")


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "plan": measure_plans,
    "index": measure_index,
    "caption": measure_caption,
    "commands": measure_commands,
}


def part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(PARTS)}")
    return name


def numbers(text: str) -> Sequence[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "parts", nargs="*", type=part, default=[*PARTS], help=f"{', '.join(PARTS)}; all if none is named"
    )
    parser.add_argument("--clips", type=numbers, default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--experiments", type=numbers, default=[0, 1, 10, 100], help="0: a config without any")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), options)


if __name__ == "__main__":
    main()
