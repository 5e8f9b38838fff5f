"""`hv15 queue`: what it accepts, refuses and says. No worker is started here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15 import gpus
from hv15.cli import parse
from hv15.commands import queue as commands
from hv15.commands.options.queue import QueueList
from hv15.errors import USER_ERROR
from hv15.gpus import VISIBLE
from hv15.queue.queue_file import VARIABLE, QueueFile
from hv15.records.queue import QueuedState
from hv15.runs import control
from tests.commands.workbench import hv15
from tests.queue.made_up import keep, order, project, queue, run_by_hand, states

CONFIG = """\
models: {source: demo}
sample: {video_size: [64, 64], video_length: 5, prompts: [{name: one, prompt: a}]}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueFile:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(commands, "ensure_worker", lambda file: 4711 if file.read().has_work else None)
    monkeypatch.chdir(tmp_path)
    return QueueFile(tmp_path / "state")


def make(tmp_path: Path, *names: str, config: str = CONFIG) -> list[Path]:
    folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
        (folder / "config.yaml").write_text(config)
    return folders


def test_an_empty_queue_says_how_to_fill_it() -> None:
    assert hv15("queue").out == "the queue is empty; `hv15 queue add PROJECT...` adds projects\n"
    assert json.loads(hv15("queue", "--json").out)["projects"] == []
    assert parse(["queue", "list", "--json"]) == parse(["queue", "--json"]) == QueueList(json=True)


def test_projects_are_added_in_their_order_and_shown(file: QueueFile, tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    said = hv15("queue", "add", "a", "b/config.yaml")
    assert said.out.splitlines()[:2] == [f"added as 1: {tmp_path / 'a'}", f"added as 2: {tmp_path / 'b'}"]
    assert [each.config for each in file.read().waiting] == [tmp_path / "a/config.yaml", tmp_path / "b/config.yaml"]
    heading, columns, first, second = hv15("queue").out.splitlines()
    assert heading == "one after the other; worker: pid 4711"
    assert columns.split() == ["no.", "state", "since", "took", "GPU", "project"]
    assert first.split()[:3] == ["1", "waiting", "(1)"]
    assert second.endswith(str(tmp_path / "b"))
    assert hv15("queue", "add", "b").out.startswith("waits already as 2")
    assert hv15("queue", "add", "b", "./b", "--unchecked").out.count("waits already as 2") == 1
    assert order(file.read()) == [1, 2]


def test_a_project_is_known_by_any_path_to_it(file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = make(tmp_path, "a", "b")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(other)
    hv15("queue", "add", "../a")
    assert [each.config for each in file.read().waiting] == [folder / "config.yaml"], "b may be deleted"
    assert hv15("queue", "add", "../b/../a", ".").out.startswith("waits already as 1")
    hv15("queue", "remove", "../link")
    hv15("queue", "remove", "../b")
    assert file.read().projects == ()


def test_targets_follow_the_projects(file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [folder] = make(tmp_path, "a")
    hv15("queue", "add", "a", "samples", "--target", "results/x", "--snakemake", "--cores", "1", "--config", "x=1")
    monkeypatch.chdir(folder)
    hv15("queue", "add", "samples")
    hv15("queue", "add")
    one, two, three = file.read().projects
    assert (one.targets, one.snakemake) == (("samples", "results/x"), ("--cores", "1", "--config", "x=1"))
    assert (two.config, two.targets) == (folder / "config.yaml", ("samples",))
    assert three.targets == ()


def test_what_cannot_be_run_is_refused_and_nothing_is_added(file: QueueFile, tmp_path: Path) -> None:
    make(tmp_path, "a")
    [broken] = make(tmp_path, "b", config=CONFIG.replace("video_length", "video_lenght"))
    said = hv15("queue", "add", "a", "b")
    assert said.code == USER_ERROR
    assert "1 of 2 projects cannot be run, so none was added" in said.err
    assert f"{broken / 'config.yaml'}:2:" in said.err
    assert "video_length" in said.err
    said = hv15("queue", "add", "nowhere", "a", "b")
    assert "2 of 3 projects cannot be run, so none was added" in said.err
    assert "nowhere: no such file" in said.err
    assert f"{broken / 'config.yaml'}:2:" in said.err
    said = hv15("queue", "add", "a", "--snakemake", "-n")
    assert "a dry run" in said.err
    assert not file.path.exists()


def test_what_comes_later_is_not_looked_for(file: QueueFile, tmp_path: Path) -> None:
    """Such as the LoRA of a project before it."""
    [folder] = make(tmp_path, "b", config=CONFIG.replace("prompts:", "loras: [{path: ../a/x.safetensors}], prompts:"))
    assert hv15("queue", "add", "b").code == USER_ERROR
    assert hv15("queue", "add", "b", "--unchecked").code == 0
    assert [each.root for each in file.read().waiting] == [folder]
    make(tmp_path, "c", config="task: nonsense\n")
    assert "nonsense" in hv15("queue", "add", "c", "--unchecked").err, "a config that cannot be read is no use later"


def test_moving_removing_clearing_retrying(file: QueueFile, tmp_path: Path) -> None:
    failed = project(4, tmp_path / "d", QueuedState.FAILED, reason="no memory", cure="buy some", ended=1.0)
    keep(file, queue(project(1, tmp_path / "a"), project(2, tmp_path / "b"), project(3, tmp_path / "c"), failed))
    assert "4    failed" in hv15("queue", "move", "3", "first").out
    assert order(file.read()) == [3, 1, 2]
    hv15("queue", "move", "c", "3")
    assert order(file.read()) == [1, 2, 3]
    assert "is no place" in hv15("queue", "move", "3", "0").err
    said = hv15("queue").out
    assert "  4: no memory\n     what to do: buy some; then `hv15 queue retry 4`\n" in said
    hv15("queue", "retry")
    assert order(file.read()) == [1, 2, 3, 4]
    hv15("queue", "remove", "1", "c")
    assert order(file.read()) == [2, 4]
    assert hv15("queue", "remove", "1").code == USER_ERROR
    keep(file, queue(project(1, state=QueuedState.DONE), project(2)))
    hv15("queue", "clear")
    assert states(file.read()) == {2: "waiting"}


def test_pausing_and_resuming(file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[Path] = []
    monkeypatch.setattr(control, "stop", stopped.append)
    keep(file, queue(project(1, tmp_path / "a", QueuedState.RUNNING, run="r"), project(2)))
    assert hv15("queue", "pause").out.startswith("paused: `hv15 queue resume` continues it; one after the other")
    assert stopped == []
    hv15("queue", "pause", "--stop")
    assert stopped == [tmp_path / "a"]
    assert [(each.again, str(each.state)) for each in file.read().projects] == [(True, "running"), (False, "waiting")]
    hv15("queue", "resume")
    assert file.read().paused is False


def test_stopping_what_runs(file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[Path] = []
    monkeypatch.setattr(control, "stop", stopped.append)
    keep(file, queue(project(1, tmp_path / "a", QueuedState.RUNNING, run="r"), project(2)))
    assert "is about to begin or has just ended" in hv15("queue", "stop", "a").err
    assert "1: is looked at, then begins" in hv15("queue").out
    with run_by_hand(tmp_path / "a", "r"):
        assert "asked to save and stop" in hv15("queue", "stop", "a").out
    assert stopped == [tmp_path / "a"]
    assert "2: does not run" in hv15("queue", "stop", "2").err


def test_how_many_run_at_the_same_time(file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "b")
    monkeypatch.setattr(gpus, "_installed", list)
    assert "there is no GPU" in hv15("queue", "mode", "--per-device").err
    assert "give --at-once" in hv15("queue", "mode").err
    assert "exclude one another" in hv15("queue", "mode", "--per-device", "--at-once", "2").err
    assert "--at-once 0" in hv15("queue", "mode", "--at-once", "0").err
    assert not file.path.exists()
    assert "2 at the same time" in hv15("queue", "add", "a", "--at-once", "2").out
    assert file.read().at_once == 2
    monkeypatch.setattr(gpus, "_installed", lambda: ["GPU-a"])
    assert "one on each GPU" in hv15("queue", "mode", "--per-device").out
    monkeypatch.setenv(VISIBLE, "3,4")
    hv15("queue", "add", "b")
    assert [each.visible for each in file.read().projects] == [None, "3,4"]


def test_a_project_that_trains_on_two_gpus_gets_two(file: QueueFile, tmp_path: Path) -> None:
    make(tmp_path, "a", config=CONFIG + "train: {num_processes: 2}\n")
    hv15("queue", "add", "a", "--unchecked")
    assert [each.gpus for each in file.read().projects] == [2]


def test_why_a_project_waits(file: QueueFile, tmp_path: Path) -> None:
    keep(file, queue(project(1, tmp_path / "a")))
    with run_by_hand(tmp_path / "a"):
        assert "1: a run that was started by hand is in progress" in hv15("queue").out
        [found] = json.loads(hv15("queue", "--json").out)["projects"]
        assert (found["place"], found["number"], found["state"]) == (1, 1, "waiting")
        assert found["note"].startswith("a run that was started by hand")
    make(tmp_path, "b")
    keep(file, queue(project(1, tmp_path / "a", QueuedState.RUNNING, run="r"), project(2, tmp_path / "a")))
    with run_by_hand(tmp_path / "a", "r"):
        assert "2: the same project is running as 1: waits for its end" in hv15("queue").out
    keep(file, queue(project(1, tmp_path / "a"), project(2, tmp_path / "b")))
    assert "in the queue: waits at place 2;" in hv15("status", "b").out


def test_names_of_others_start_no_line_of_their_own(file: QueueFile) -> None:
    keep(file, queue(project(1, "/x\n2    done", QueuedState.FAILED, reason="a\nb\x1b[2J", cure="c\nd")))
    assert not [line for line in hv15("queue").out.splitlines() if line.startswith(("2", "b", "d"))]
