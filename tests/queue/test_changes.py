"""What people change in a queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.queue import changes
from hv15.records.json_values import RecordError
from hv15.records.queue import Queue, QueuedState, read_queue
from tests.queue.made_up import order, project, queue, states

THREE = queue(project(1), project(2), project(3))


def test_numbers_are_given_once() -> None:
    found = changes.add(Queue(), [project(root="/a"), project(root="/b")])
    assert states(found) == {1: "waiting", 2: "waiting"}
    again = changes.add(changes.remove(found, [2]), [project(root="/c")])
    assert states(again) == {1: "waiting", 3: "waiting"}
    assert again.projects[0].added > 1.7e9


def test_what_waits_for_the_same_is_not_added_again_but_another_request_is() -> None:
    found = changes.add(queue(project(1, "/a")), [project(root="/a"), project(root="/a", targets=("samples",))])
    assert [each.targets for each in found.projects] == [(), ("samples",)]


def test_what_runs_is_added_again_and_what_has_ended_makes_room() -> None:
    """Its config may have been edited since the run began."""
    before = queue(project(1, "/a", QueuedState.RUNNING), project(2, "/b", QueuedState.FAILED))
    found = changes.add(before, [project(root="/a"), project(root="/b")])
    assert states(found) == {1: "running", 3: "waiting", 4: "waiting"}


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("first", [2, 1, 3]),
        ("up", [2, 1, 3]),
        ("down", [1, 3, 2]),
        ("last", [1, 3, 2]),
        (1, [2, 1, 3]),
        (2, [1, 2, 3]),
        (3, [1, 3, 2]),
        (99, [1, 3, 2]),
    ],
)
def test_moving(to: int | changes.Step, expected: list[int]) -> None:
    assert order(changes.move(THREE, 2, to)) == expected


def test_the_ends_of_the_queue_stay_its_ends() -> None:
    assert order(changes.move(THREE, 1, "up")) == [1, 2, 3]
    assert order(changes.move(THREE, 3, "down")) == [1, 2, 3]


def test_moving_leaves_what_does_not_wait_where_it_is() -> None:
    mixed = queue(project(1), project(2, state=QueuedState.RUNNING), project(3), project(4))
    found = changes.move(mixed, 4, "first")
    assert [each.number for each in found.projects] == [4, 2, 1, 3]
    with pytest.raises(UserError, match="2 is running"):
        changes.move(mixed, 2, "first")
    with pytest.raises(UserError, match="9 is gone"):
        changes.move(mixed, 9, "first")


def test_names_are_numbers_folders_or_config_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = queue(project(1, tmp_path / "a"), project(2, tmp_path / "b"), project(3, tmp_path / "a"))
    assert changes.named(found, ["2", "a"]) == [2, 1, 3]
    assert changes.named(found, ["b/config.yaml"]) == [2]
    with pytest.raises(UserError, match=r"^c: is not in the queue\n"):
        changes.named(found, ["1", "c"])


def test_a_running_project_is_not_removed() -> None:
    found = queue(project(1, state=QueuedState.RUNNING), project(2))
    with pytest.raises(UserError, match=r"1 \(/projects/1\) is running") as caught:
        changes.remove(found, [1, 2])
    assert "hv15 queue stop 1" in caught.value.hint


def test_clearing_and_trying_again() -> None:
    ended = (QueuedState.DONE, QueuedState.FAILED, QueuedState.STOPPED)
    failed = project(2, state=ended[1], reason="no memory", cure="buy some", run="r", started=1.0, ended=2.0)
    found = queue(project(1, state=ended[0]), failed, project(3, state=ended[2]), project(4))
    assert order(changes.clear(found)) == [4] == [each.number for each in changes.clear(found).projects]
    again = changes.retry(found, [2])
    assert order(again) == [4, 2]
    new = again.projects[-1]
    assert (new.reason, new.cure, new.run, new.started, new.ended) == ("", "", "", None, None)
    with pytest.raises(UserError, match=r"4 .* is waiting"):
        changes.retry(found, [4])


def test_the_order_in_which_it_is_shown() -> None:
    found = queue(
        project(1, state=QueuedState.DONE, ended=10.0),
        project(2, state=QueuedState.FAILED, ended=20.0),
        project(3),
        project(4, state=QueuedState.RUNNING),
        project(5),
    )
    assert [each.number for each in found.in_order()] == [4, 3, 5, 2, 1]
    assert [found.place(each) for each in found.waiting] == [1, 2]


def test_only_the_last_of_very_many_that_ended_are_kept() -> None:
    many = [project(number, state=QueuedState.DONE, ended=float(number)) for number in range(1, 500)]
    found = changes.without_oldest(queue(project(500), *many))
    assert [each.number for each in found.projects] == [500, *range(300, 500)]


def test_it_is_read_back_as_it_was_written() -> None:
    found = queue(project(1, targets=("a b",), visible="", devices=("GPU-1",), started=3.0), at_once=3, paused=True)
    assert read_queue(found.as_json()) == found
    with pytest.raises(RecordError, match="version 2"):
        read_queue({**found.as_json(), "version": 2})
