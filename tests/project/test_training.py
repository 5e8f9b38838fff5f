"""What a training depends on, and what it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hv15.cache.batches import LossRule
from hv15.cache.encoding import mask_key
from hv15.config import TrainSettings, digest_view
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.data.captions import caption_key
from hv15.digest import digest
from hv15.environment import OVERRIDES_VARIABLE
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.training import training_items, validation_items
from hv15.records import formats
from hv15.records.manifest import EncodedClip, Entry
from hv15.spans import Span
from tests.project.conftest import MakeProject, add_clip, moved
from tests.workflow.stub_hv15 import write_safetensors


def spec_of(project: Project) -> str:
    return digest(project.training_spec)


@pytest.mark.parametrize(
    ("section", "counts"),
    [
        ({"train": {"learning_rate": 0.3}}, True),
        ({"train": {"seed": 7}}, True),
        ({"train": {"quantize": "int8"}}, True),
        ({"train": {"optimizer_args": {"weight_decay": 0.5}}}, True),
        ({"train": {"blocks_to_swap": 1}}, False),
        ({"train": {"gradient_checkpointing": False}}, False),
        ({"train": {"state_every_n_steps": 7}}, False),
        ({"cache": {"vae_sample_size": 128}}, True),
        ({"cache": {"fp8_vl": True}}, True),
        ({"cache": {"workers": 1, "shards": 5, "latent_batch": 3}}, False),
        ({"sample": {"prompts": [{"prompt": "another"}], "with_base": True}}, False),
        ({"convert": {"formats": ["official"]}}, False),
        ({"runtime": {"device": "cpu"}}, False),
        ({"task": "i2v", "sample": {"prompts": []}}, True),
    ],
    ids=str,
)
def test_what_counts(section: dict[str, Any], counts: bool, open_project: MakeProject) -> None:
    assert (spec_of(open_project(**section)) != spec_of(open_project())) == counts


def test_every_setting_of_the_training_counts_or_is_marked(open_project: MakeProject) -> None:
    told = open_project().training_spec["train"]
    assert isinstance(told, dict)
    fields = TrainSettings.model_fields
    counts = (Affects.PAST, Affects.NETWORK, Affects.FUTURE, Affects.LENGTH)
    silent = {name for name in fields if affects(TrainSettings, name) not in counts}
    demands = {
        name: extra.get("only_with") for name in fields if isinstance(extra := fields[name].json_schema_extra, dict)
    }
    waiting = {name: either for name, either in demands.items() if either and name not in told and name not in LATER}
    assert told.keys() | silent | waiting.keys() | LATER.keys() == fields.keys() | {"batches_per_step"}
    assert not told.keys() & LATER.keys()
    assert "network_weights" in told
    for name, either in waiting.items():
        for demand in either:
            choices = {other: values[0] for other, values in demand.items()}
            assert name in digest_view(TrainSettings().model_copy(update=choices)), (name, choices)


@pytest.mark.parametrize(
    ("section", "counts"),
    [
        ({"gradient_accumulation_steps": 4}, False),
        ({"num_processes": 4}, False),
        ({"gradient_accumulation_steps": 2, "num_processes": 2, "num_machines": 2}, False),
        ({"gradient_accumulation_steps": 4, "num_processes": 2}, True),
    ],
)
def test_of_the_processes_only_the_batches_of_a_step_count(
    section: dict[str, int], counts: bool, open_project: MakeProject
) -> None:
    four = open_project(train={"num_processes": 4})
    assert (spec_of(open_project(train=section)) != spec_of(four)) == counts


LATER: dict[str, dict[str, Any]] = {
    "network_type": {"network_type": "dora"},
    "network_dim_patterns": {"network_dim_patterns": {"img": 4}},
    "network_alpha_patterns": {"network_alpha_patterns": {"img": 4}},
    "lokr_factor": {"network_type": "lokr", "lokr_factor": 4},
    "lokr_full_matrix": {"network_type": "lokr", "lokr_full_matrix": True},
    "layers": {"layers": "mlp"},
    "layer_blocks": {"layer_blocks": [0, 1]},
    "dim_from_weights": {"network_weights": "a.safetensors", "dim_from_weights": True},
    "base_weights": {"base_weights": [{"path": "a.safetensors"}]},
    "ema_decay": {"ema_decay": 0.9},
}
"""Settings that earlier trainings did not have: at their defaults they are not told, so those stay valid."""


@pytest.mark.parametrize("setting", LATER)
def test_a_later_setting_counts_when_it_is_set(setting: str, open_project: MakeProject, root: Path) -> None:
    write_safetensors(root / "a.safetensors", {"name": "a"})
    without = {name: value for name, value in LATER[setting].items() if name != setting}
    assert spec_of(open_project(train=LATER[setting])) != spec_of(open_project(train=without))


def test_the_order_of_patterns_counts(open_project: MakeProject) -> None:
    """The first that matches gives the rank; jobs get the settings of the command line in the same order."""
    patterns = {"img_attn": 8, "attn": 4}
    turned = dict(reversed(patterns.items()))
    assert spec_of(open_project(train={"network_dim_patterns": patterns})) != spec_of(
        open_project(train={"network_dim_patterns": turned})
    )
    project = open_project()
    project.overrides["train"] = {"network_dim_patterns": patterns}
    for given in (patterns, turned):
        project.overrides["train"] = {"network_dim_patterns": given}
        passed = json.loads(project.environment[OVERRIDES_VARIABLE])["train"]["network_dim_patterns"]
        assert [*passed.items()] == [*given.items()]


def test_base_loras_count_by_content_and_strength(open_project: MakeProject, root: Path) -> None:
    write_safetensors(root / "a.safetensors", {"name": "a"})
    shutil.copy(root / "a.safetensors", root / "b.safetensors")
    write_safetensors(root / "c.safetensors", {"name": "c"})
    specs = [
        spec_of(open_project(train={"base_weights": [{"path": f"{name}.safetensors", "multiplier": multiplier}]}))
        for name, multiplier in (("a", 1.0), ("b", 1.0), ("b", 0.5), ("c", 1.0))
    ]
    assert specs[0] == specs[1]
    assert len(set(specs)) == 3


def test_it_holds_no_name_and_no_place(open_project: MakeProject, tmp_path: Path) -> None:
    project = open_project()
    text, before = json.dumps(project.training_spec), spec_of(project)
    assert "clips" not in text
    assert "cat" not in text
    assert str(tmp_path) not in text
    assert spec_of(moved(project, tmp_path / "elsewhere")) == before


def test_a_format_number_makes_it_another_training(open_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    before = spec_of(open_project())
    monkeypatch.setattr(formats, "TRAINING", formats.TRAINING + 1)
    assert spec_of(open_project()) != before


def test_a_lora_to_start_from_counts_by_its_content(open_project: MakeProject, root: Path) -> None:
    write_safetensors(root / "a.safetensors", {"name": "a"})
    shutil.copy(root / "a.safetensors", root / "b.safetensors")
    start = [spec_of(open_project(train={"network_weights": f"{name}.safetensors"})) for name in "ab"]
    assert start[0] == start[1] != spec_of(open_project())
    write_safetensors(root / "b.safetensors", {"name": "b"})
    assert spec_of(open_project(train={"network_weights": "b.safetensors"})) != start[0]


def test_a_lora_that_is_missing_is_named_by_its_setting(open_project: MakeProject) -> None:
    project = open_project(train={"network_weights": "gone.safetensors"})
    with pytest.raises(UserError, match=r"train\.network_weights: .*gone\.safetensors"):
        _ = project.training_spec


def test_the_dataset_is_told_by_digest_and_size(open_project: MakeProject, root: Path) -> None:
    project = open_project()
    assert project.training_spec["dataset"] == {"digest": project.dataset.digest, "size": 2}
    add_clip(root, "fox")
    assert open_project().training_spec["dataset"]["size"] == 3  # type: ignore[index,call-overload]  # JSON


# -- what it reads --------------------------------------------------------------------------------------------------


def entries_of(project: Project, *clips: EncodedClip) -> dict[str, Entry]:
    return {pair.source_key: Entry(clips=clips) for pair in project.dataset.pairs}


def test_every_clip_comes_with_its_caption_and_its_datasets_weight(open_project: MakeProject) -> None:
    dataset = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    project = open_project(
        datasets=[{**dataset, "num_repeats": 3, "batch_size": 2, "loss_weight": 0.5, "end_step": 9}, dataset]
    )
    first, second = EncodedClip("k1", 0, 9, 64, 96), EncodedClip("k2", 9, 5, 64, 96)
    items = training_items(project.dataset, entries_of(project, first, second), {})
    items = [item for item in items if item.dataset == project.dataset.identities[0]]
    assert len(items) == 4
    assert {(item.loss_weight, item.span) for item in items} == {(0.5, Span(0, 9))}
    assert {(item.clip, item.shape) for item in items} == {("k1", (3, 4, 6)), ("k2", (2, 4, 6))}
    assert {item.caption for item in items} == {pair.caption for pair in project.dataset.pairs}
    assert {(item.repeats, item.batch_size, item.dataset) for item in items} == {(3, 2, project.dataset.identities[0])}


def test_a_clip_with_several_texts_has_the_keys_of_all(open_project: MakeProject, root: Path) -> None:
    for name in ("cat", "dog", "fox", "owl"):
        add_clip(root, name, f"a {name}\n{name}")
    dataset = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9], "caption_variants": True}
    project = open_project(datasets=[dataset], train={"validation": {"fraction": 0.3}})
    clip = EncodedClip("k1", 0, 9, 64, 96)
    entries = {pair.source_key: Entry(clips=(clip,)) for pair in project.dataset.all_pairs}
    for item in training_items(project.dataset, entries, {}):
        name = Path(item.name).stem
        assert item.variants == (caption_key(f"a {name}"), caption_key(name))
        assert item.caption == item.variants[0]
    assert {item.variants for item in validation_items(project.dataset, entries, {})} == {()}


def test_what_was_left_out_is_no_item(open_project: MakeProject) -> None:
    project = open_project()
    [left_out, kept] = project.dataset.pairs
    entries = {
        left_out.source_key: Entry(skipped="broken"),
        kept.source_key: Entry(clips=(EncodedClip("k", 0, 9, 64, 64),)),
    }
    assert [item.caption for item in training_items(project.dataset, entries, {})] == [kept.caption]


def test_a_clip_comes_with_its_mask(open_project: MakeProject, root: Path) -> None:
    """A clip whose mask cannot be used is left out, and not trained without it."""
    plain = spec_of(open_project())
    (root / "clips/cat.mask.png").write_bytes(b"a mask")
    (root / "clips/dog.mask.png").write_bytes(b"another")
    project = open_project()
    [left_out, kept] = project.dataset.pairs
    clip = EncodedClip("k", 0, 9, 64, 64)
    masks = {left_out.mask_source_key: Entry(skipped="broken"), kept.mask_source_key: Entry(clips=(clip,))}
    assert project.masks.needed.keys() == masks.keys()
    (item,) = training_items(project.dataset, entries_of(project, clip), masks)
    assert (item.caption, item.mask) == (kept.caption, mask_key(kept.mask, "k"))
    assert spec_of(project) != plain
    own = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    assert spec_of(open_project(datasets=[own | {"use_masks": False}])) == plain
    (root / "clips/dog.mask.png").write_bytes(b"a mask")
    assert spec_of(open_project()) not in (spec_of(project), plain)
    assert len(open_project().masks.needed) == 2  # of equal bytes, but of two clips


def test_regularisation_is_trained_and_never_validated(open_project: MakeProject, root: Path) -> None:
    for name in ("fox", "owl", "pig"):
        add_clip(root, name, folder="others")
    own = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    reg = {**own, "video_directory": "others", "is_reg": True}
    project = open_project(datasets=[own, reg], train={"validation": {"fraction": 0.5}})
    assert {pair.dataset for pair in project.dataset.validation_pairs} == {0}
    trained = [pair.dataset for pair in project.dataset.pairs]
    assert (trained.count(0), trained.count(1)) == (1, 3)
    items = training_items(project.dataset, entries_of(project, EncodedClip("k", 0, 9, 64, 64)), {})
    assert sorted(item.loss.targets_prior for item in items) == [False, True, True, True]
    plain = open_project(datasets=[own, {**reg, "reg_target": "clips"}])
    items = training_items(plain.dataset, entries_of(plain, EncodedClip("k", 0, 9, 64, 64)), {})
    assert {item.loss for item in items} == {LossRule(), LossRule(is_reg=True)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reg_target": "clips"}, "reg_target: has no effect without is_reg"),
        ({"is_reg": True}, "datasets: all are regularisation"),
        ({"is_reg": True, "masked_prior_preservation_weight": 1}, "has no effect with is_reg"),
        ({"unmasked_weight": 1.5}, "unmasked_weight"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str, open_project: MakeProject) -> None:
    own = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    with pytest.raises(UserError, match=words):
        open_project(datasets=[own | settings])


def test_no_clip_is_an_error(open_project: MakeProject) -> None:
    project = open_project()
    with pytest.raises(UserError, match="no clip is left to train on") as caught:
        training_items(project.dataset, entries_of(project), {})
    assert "hv15 report" in caught.value.hint


def test_what_is_not_encoded_yet_is_counted(open_project: MakeProject) -> None:
    with pytest.raises(UserError, match="2 of 2 latents are not encoded yet"):
        open_project().training_items()
