"""The mark at each setting says what an edit of it does to a training: compared with what is decided after the edit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from hv15.config import FieldInfo, Settings, fields
from hv15.config.after_edit import AFTER_EDIT
from hv15.config.section import Affects
from hv15.project import Project
from hv15.records.training import TrainingRecord
from hv15.train.folder import choose
from hv15.train.past import past_of
from hv15.workflow.outcome import outcome
from tests.project.conftest import MakeProject, add_clip
from tests.project.setting_edits import EDITS, FILES, NOT_VALIDATED, OTHER_START, START, Sections
from tests.workflow.project import merge
from tests.workflow.stub_hv15 import write_safetensors, write_state

READ_BY_A_TRAINING = ("task", "models", "datasets", "cache", "train")
FIELDS: dict[str, FieldInfo] = {
    field.path: field
    for field in fields(Settings)
    if not field.is_section and field.path.partition(".")[0].removesuffix("[]") in READ_BY_A_TRAINING
}
PLAIN = {"video_directory": "second", "resolution": [64, 64], "target_frames": [5]}
DONE, LENGTH = 4, 8
CONTINUES = {
    *(Affects.SPEED, Affects.WATCHING, Affects.MEASURING, Affects.PUBLISHING, Affects.SAMPLING),
    *(Affects.FUTURE, Affects.LENGTH),
}
TRAINS_NOTHING = CONTINUES - {Affects.FUTURE, Affects.LENGTH}
WITHOUT_OTHER_CONTENT = {"models.directory", "cache.directory"}
"""Places that hold what the workflow itself makes: the same everywhere."""


def two_of_each_kind(paths: Iterable[str], *, among: str = "", too: str = "") -> list[ParameterSet]:
    """Cases, those of a section (whose path begins with `among`) beyond two with the same mark only by `-m slow`."""
    seen: Counter[object] = Counter()
    cases = []
    for path in paths:
        kind = path.rpartition(".")[0], FIELDS[path].affects
        seen[kind] += 1
        is_slow = seen[kind] > 2 and path.startswith(among) and path != too
        cases.append(pytest.param(path, marks=pytest.mark.slow if is_slow else ()))
    return cases


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder with all that the edits read."""
    folder = tmp_path / "project"
    for name in ("cat", "dog"):
        lines = f"{{trigger}}, a {name}, that runs\n{{trigger}}, a {name}, that sleeps"
        add_clip(folder, name, lines)
        (folder / f"clips/{name}.caption").write_text("another")
        add_clip(folder, f"other {name}", folder="others")
        add_clip(folder, f"bare {name}", folder="bare")
        (folder / f"bare/bare {name}.txt").unlink()
        for pictures in ("images", "pictures"):
            (folder / pictures).mkdir(exist_ok=True)
            (folder / pictures / f"{name}.png").write_bytes(f"{pictures} {name}".encode())
            (folder / pictures / f"{name}.txt").write_text("a picture")
    add_clip(folder, "owl", folder="clips/inside")
    for name in ("eel", "elk", "emu"):
        add_clip(folder, name, folder="second")
    (folder / "clips/cat.mask.png").write_bytes(b"a mask")
    rows = {"a": "clips/cat.mp4", "b": "others/other cat.mp4", "c": "images/cat.png", "d": "pictures/cat.png"}
    for name, path in rows.items():
        row = {f"{'video' if 'mp4' in path else 'image'}_path": path, "caption": "a row"}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    for name in (START, OTHER_START):
        write_safetensors(folder / name, {"name": name})
    for path in FILES.values():
        for name in (path, f"models/other.{path.removeprefix('models/')}"):
            if name.endswith(".safetensors"):
                write_safetensors(folder / name, {"name": name})
            else:
                (folder / name).mkdir(parents=True)
                (folder / name / "tokenizer.json").write_text(json.dumps(name))
    write_state(folder / "theirs", TrainingRecord({}, {}), 2)
    return folder


def with_training(before: Project) -> Project:
    """Leave a state of a training, as if it had been stopped."""
    record = TrainingRecord(past_of(before.settings.train, before.training_spec), before.settings.dump())
    write_state(before.paths.training, record, DONE)
    record.write(before.paths.training)
    return before


def continues(after: Project) -> bool:
    """Whether the training of a project goes on with what is there."""
    train = after.settings.train
    found = choose(after.paths.training, TrainingRecord(past_of(train, after.training_spec), {}).digest, LENGTH)
    return found.source == after.paths.training and found.step == DONE


def both(before: Sections, after: Sections) -> tuple[Sections, Sections]:
    base = merge({"train": {"max_train_steps": LENGTH}, "datasets": [PLAIN]}, before)
    return base, merge(base, after)


def test_there_is_an_edit_of_every_setting_and_every_setting_has_a_mark() -> None:
    refused = {f"train.validation.datasets[].{name}" for name in NOT_VALIDATED}
    assert EDITS.keys() == FIELDS.keys() - refused
    assert [path for path, field in FIELDS.items() if field.affects not in AFTER_EDIT] == []
    assert AFTER_EDIT.keys() == {*Affects} - {Affects.APART}


@pytest.mark.parametrize("path", two_of_each_kind(EDITS, among="train.validation.datasets[]"))
def test_the_mark_says_what_an_edit_does(path: str, root: Path, open_project: MakeProject) -> None:
    mark = FIELDS[path].affects
    assert mark is not None
    old, new = both(EDITS[path].before, EDITS[path].after)
    before = with_training(open_project(**old))
    spec = before.training_spec
    after = open_project(**new)
    expected = mark in CONTINUES or path in WITHOUT_OTHER_CONTENT
    assert continues(after) == expected
    assert (after.training_spec == spec) == (mark in TRAINS_NOTHING or path in WITHOUT_OTHER_CONTENT)
    said = outcome(after, after.training_spec)
    assert ("continues after step 4" in said.begin) == expected
    assert bool(said.kept) != expected


GOES_ON = [
    path
    for path, field in FIELDS.items()
    if field.affects in {Affects.PAST, Affects.WEIGHT, Affects.CAPTION, Affects.PLACE, Affects.STEP}
    and path not in WITHOUT_OTHER_CONTENT
]


@pytest.mark.parametrize("path", two_of_each_kind(GOES_ON, too="train.optimizer_type"))
def test_with_continue_from_it_goes_on(path: str, root: Path, open_project: MakeProject) -> None:
    old, new = both(EDITS[path].before, EDITS[path].after)
    with_training(open_project(**old))
    offered = f"train.continue_from: latest{', train.reset_optimizer' if path == 'train.optimizer_type' else ''}"
    if path not in ("models.dit", "models.source", "models.variant", "models.revision"):  # another model
        after = open_project(**new)
        assert offered.partition(",")[0] in outcome(after, after.training_spec).kept
    after = open_project(**merge(new, {"train": {"continue_from": "latest"}}))
    assert outcome(after, after.training_spec).begin == "the training continues after step 4 of another one"


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.affects == Affects.NETWORK])
def test_without_the_same_network_no_state_is_offered(path: str, root: Path, open_project: MakeProject) -> None:
    old, new = both(EDITS[path].before, EDITS[path].after)
    with_training(open_project(**old))
    after = open_project(**new)
    said = outcome(after, after.training_spec).kept
    assert said
    assert "continue_from" not in said


HALF: dict[str, Any] = {"validation": {"fraction": 0.4, "every_n_steps": 2, "patience": 3}}


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("train.max_train_steps", {"lr_scheduler": "cosine"}, {"max_train_steps": 9}, False),
        ("train.max_train_steps", {"lr_warmup_steps": 0.25}, {"max_train_steps": 9}, False),
        ("train.validation.every_n_steps", HALF, {"validation": {"every_n_steps": 4}}, False),
        ("train.validation.samples", HALF, {"validation": {"samples": 18}}, False),
        ("train.validation.noise_levels", HALF, {"validation": {"noise_levels": "even"}}, False),
        ("train.validation.at_first", HALF, {"validation": {"at_first": True}}, False),
        ("train.validation.keep_best", HALF, {"validation": {"keep_best": True}}, True),
        (
            "train.num_processes",
            {"gradient_accumulation_steps": 2},
            {"gradient_accumulation_steps": 1, "num_processes": 2},
            True,
        ),
    ],
)
def test_what_the_words_of_a_mark_leave_open(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], expected: bool, root: Path, open_project: MakeProject
) -> None:
    """Their second half: "unless ...", "with ...", "another product of ..."."""
    before, after = both({"train": old}, {"train": new})
    with_training(open_project(**before))
    assert continues(open_project(**after)) == expected


def test_the_same_content_in_another_place_is_the_same_training(root: Path, open_project: MakeProject) -> None:
    old, _ = both({}, {})
    with_training(open_project(**old))
    shutil.copytree(root / "second", root / "moved")
    moved = merge(old, {"datasets": [{**PLAIN, "video_directory": "moved"}]})
    assert continues(open_project(**moved))
