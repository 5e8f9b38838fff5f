from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.cache.claims import MOST, Claims, rounds


def drain(each: Iterator[Iterator[tuple[str, int]]]) -> list[list[str]]:
    return [[key for key, _ in claimed] for claimed in each]


def test_a_claim_keeps_others_out_until_it_falls(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a")
    assert not second.take("a")
    assert second.take("b")
    first.release()
    assert second.take("a")


def test_no_claim_is_left_behind(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.take("a")
    claims.release()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_falls_with_its_process(tmp_path: Path) -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        Claims(tmp_path).take("a")
        os.write(write, b"x")
        os.kill(os.getpid(), 9)
    os.read(read, 1)
    os.waitpid(child, 0)
    assert Claims(tmp_path).take("a")


def test_all_jobs_are_done_in_rounds_of_a_limited_size(tmp_path: Path) -> None:
    jobs = {f"{number:04}": number for number in range(MOST + 5)}
    assert [len(each) for each in drain(rounds(jobs, Claims(tmp_path), lambda *_: False))] == [MOST, 5]


def test_what_another_process_does_is_left_to_it(tmp_path: Path) -> None:
    """The other process claims `b`, encodes it while we sleep, and releases it: we see that it is done."""
    other, done = Claims(tmp_path), set[str]()
    other.take("b")

    def sleep(_: float) -> None:
        done.add("b")
        other.release()

    found = drain(rounds({"a": 1, "b": 2, "c": 3}, Claims(tmp_path), lambda key, _: key in done, sleep))
    assert found == [["a", "c"], [], []]


def test_what_another_process_gave_up_is_done_here(tmp_path: Path) -> None:
    other = Claims(tmp_path)
    other.take("a")
    found = drain(rounds({"a": 1}, Claims(tmp_path), lambda *_: False, lambda _: other.release()))
    assert found == [[], ["a"]]


def test_a_store_that_cannot_be_claimed_in_is_used_without_claims(tmp_path: Path) -> None:
    (tmp_path / ".claims").write_text("in the way")
    assert Claims(tmp_path).take("a")
    assert Claims(tmp_path).take("a")


def test_claims_fall_when_the_work_fails(tmp_path: Path) -> None:
    """Also in a process that keeps running: another process can take over the work at once."""

    def work() -> None:
        with Claims(tmp_path) as claims:
            assert claims.take("a")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        work()
    assert Claims(tmp_path).take("a")
