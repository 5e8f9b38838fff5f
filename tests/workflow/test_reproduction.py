"""What a reproduction takes from a dataset that has changed since."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hv15.project import Project
from hv15.records.trained_dataset import TrainedDataset, TrainedPair
from hv15.workflow.reproduction import those_of

RECORDED = [("a", "cat", "a cat"), ("b", "dog", "a dog"), ("c", "dog", "a good dog")]


def taken(*now: tuple[str, str, str]) -> list[str]:
    """The names of those clips of a dataset, as (name, content, caption), that a training of `RECORDED` is given."""
    dataset = TrainedDataset("now", [TrainedPair(*each, dataset="") for each in now])
    present = cast("Project", SimpleNamespace(dataset=SimpleNamespace(record=lambda: dataset)))
    recorded = TrainedDataset("then", [TrainedPair(*each, dataset="") for each in RECORDED])
    return [pair.name for pair in those_of(recorded, present).pairs]


def test_what_was_added_is_left_out_also_copies_of_what_was_there() -> None:
    assert taken(*RECORDED, ("d", "bird", "a bird"), ("e", "cat", "another cat")) == ["a", "b", "c"]


def test_renamed_clips_are_found_by_content_and_of_copies_those_with_their_captions() -> None:
    copies = [("e", "dog", "a bad dog"), ("f", "dog", "a good dog")]
    assert taken(*RECORDED[:2], *copies) == ["a", "b", "f"]
    assert taken(("z", "cat", "a cat"), *RECORDED[1:]) == ["z", "b", "c"]


def test_another_file_with_a_name_of_before_was_added() -> None:
    assert taken(("a", "bird", "a bird"), ("z", "cat", "a cat"), *RECORDED[1:]) == ["z", "b", "c"]


def test_an_edited_caption_is_no_other_clip() -> None:
    assert taken(("a", "cat", "something else"), *RECORDED[1:]) == ["a", "b", "c"]
