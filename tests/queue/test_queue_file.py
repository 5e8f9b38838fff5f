"""The file of the queue: where it is, and that no change of it is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.queue import queue_file
from hv15.queue.queue_file import QueueFile, queue_folder
from hv15.records.queue import Queue
from tests.queue.made_up import project, queue

ADDS = """
import sys
from pathlib import Path
from hv15.queue import changes
from hv15.queue.queue_file import QueueFile
from hv15.records.queue import QueuedProject
file, name = QueueFile(Path(sys.argv[1])), sys.argv[2]
print(flush=True)
sys.stdin.readline()
for number in range(40):
    entry = QueuedProject(number=0, config=Path(f"/{name}/{number}/config.yaml"))
    file.change(lambda queue: changes.add(queue, [entry]))
"""


@pytest.fixture
def file(tmp_path: Path) -> QueueFile:
    return QueueFile(tmp_path / "state")


def test_it_is_in_the_folder_for_state_and_each_machine_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(queue_file.VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    assert queue_folder() == tmp_path / "hv15" / "queue" / "node7"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert queue_folder() == Path("/home/somebody/.local/state/hv15/queue/node7")
    monkeypatch.setenv(queue_file.VARIABLE, str(tmp_path / "other"))
    assert queue_folder() == tmp_path / "other"


def test_it_is_empty_before_it_is_there_and_looking_makes_nothing(file: QueueFile) -> None:
    assert file.read() == Queue()
    assert not file.folder.exists()
    file.change(lambda found: found)
    assert not file.path.exists(), "nothing has changed"
    assert file.folder.stat().st_mode & 0o777 == 0o700


def test_two_programs_that_add_at_the_same_time_lose_nothing(file: QueueFile) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", ADDS, file.folder, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in "ab"
    ]
    for each in writers:
        assert each.stdout is not None
        each.stdout.readline()
    for each in writers:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.close()
    assert [each.wait() for each in writers] == [0, 0]
    found = file.read()
    assert sorted(each.number for each in found.projects) == [*range(1, 81)]
    assert {str(each.root) for each in found.projects} == {f"/{name}/{number}" for name in "ab" for number in range(40)}


def test_a_change_that_fails_changes_nothing_and_lets_go(file: QueueFile) -> None:
    file.change(lambda _: queue(project(1)))

    def fail(_: Queue) -> Queue:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        file.change(fail)
    assert file.change(lambda found: found) == queue(project(1))


def test_somebody_who_does_not_let_go_is_named(file: QueueFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_file, "LOCK_S", 0.0)
    held = file.take_lock()
    with pytest.raises(UserError, match=r"queue\.lock: another program has held the queue"):
        file.change(lambda found: found)
    os.close(held)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not JSON"), ('{"version": 2}', "is of version 2"), ('{"version": 1, "projects": 3}', "expected a list")],
)
def test_a_damaged_or_newer_file_is_named_and_left_alone(file: QueueFile, text: str, said: str) -> None:
    file.folder.mkdir()
    file.path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        file.change(lambda _: Queue(paused=True))
    assert str(file.path) in caught.value.message
    assert "move it" in caught.value.hint
    assert file.path.read_text() == text


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    file = QueueFile(tmp_path / "state")
    with pytest.raises(UserError, match=r"state/queue\.json: cannot be read") as caught:
        file.read()
    assert queue_file.VARIABLE in caught.value.hint
    with pytest.raises(UserError, match=r"state/queue\.lock: cannot be written"):
        file.change(lambda found: found)


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv(queue_file.VARIABLE)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError, match="no home folder") as caught:
        queue_folder()
    assert queue_file.VARIABLE in caught.value.hint


def test_a_link_in_place_of_the_lock_is_refused(file: QueueFile, tmp_path: Path) -> None:
    file.folder.mkdir()
    (tmp_path / "mine").write_text("precious")
    file.lock.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="it is a link"):
        file.change(lambda found: found)
    assert (tmp_path / "mine").read_text() == "precious"
