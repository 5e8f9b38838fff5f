"""On other systems than Linux every entrance ends in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OTHER = """
import sys
if sys.argv[1] == "win32":  # modules that its Python does not have
    sys.modules.update(dict.fromkeys(("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")))
sys.platform = sys.argv[1]
"""
COMMAND = OTHER + "from hv15 import cli; sys.exit(cli.main(sys.argv[2:]))"
SNAKEMAKE = "from snakemake.cli import main\n" + OTHER + "main(sys.argv[2:])"


def on(platform: str, code: str, *words: str, cwd: Path) -> tuple[int, str]:
    """Run a program as if this were another system; return its exit code and what it printed."""
    line = [sys.executable, "-c", code, platform, *words]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, env=None)
    return done.returncode, done.stdout + done.stderr


ELSEWHERE = "run it on a Linux machine or in a container"
SENTENCES = {
    "win32": "error: hv15 needs Linux, and this is Windows\n  hint: run it inside WSL2\n",
    "darwin": f"error: hv15 needs Linux, and this is macOS\n  hint: {ELSEWHERE}\n",
    "freebsd14": f"error: hv15 needs Linux, and this is freebsd14\n  hint: {ELSEWHERE}\n",
}
COMMANDS = (("run",), ("train", "--out", "x"), ("tui", "--demo"), ("new", "x"))
QUICK = {("win32", "run"), ("darwin", "train"), ("freebsd14", "new"), ("win32", "tui")}


@pytest.mark.parametrize(
    ("platform", "sentence", "words"),
    [
        pytest.param(
            *(platform, sentence, words),
            id=f"{words[0]}-{platform}",
            marks=() if (platform, words[0]) in QUICK else pytest.mark.slow,
        )
        for words in COMMANDS
        for platform, sentence in SENTENCES.items()
    ],
)
def test_a_command(platform: str, sentence: str, words: tuple[str, ...], tmp_path: Path) -> None:
    assert on(platform, COMMAND, *words, cwd=tmp_path) == (2, sentence)
    assert not any(tmp_path.iterdir())


def test_help_is_there_on_any_system(tmp_path: Path) -> None:
    code, said = on("win32", COMMAND, "--help", cwd=tmp_path)
    assert (code, "usage: hv15" in said) == (0, True)


@pytest.mark.slow
def test_snakemake_itself(tmp_path: Path) -> None:
    code, said = on("darwin", SNAKEMAKE, "-s", str(REPOSITORY / "Snakefile"), "-n", cwd=tmp_path)
    assert code == 1
    assert "hv15 needs Linux, and this is macOS" in said
    assert "Traceback" not in said
