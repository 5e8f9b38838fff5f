"""A project and its experiments: what they share, and the settings that a command's options change."""

from __future__ import annotations

import pytest

from hv15.errors import UserError
from hv15.project.request import SampleRequest
from hv15.project.request import open_project as open_request
from hv15.records.json_values import JsonObject
from tests.project.conftest import MakeProject, add_clip

RANK = {"train.network_dim": 8}


def test_equal_datasets_and_encodings_are_one_object(open_project: MakeProject) -> None:
    base = open_project(experiments={"rank": RANK, "repeats": {"datasets[0].num_repeats": 2}})
    rank, repeats = base.experiment("rank"), base.experiment("repeats")
    assert rank.dataset is base.dataset
    assert base.latents is rank.latents
    assert base.texts is rank.texts
    assert repeats.dataset is not base.dataset
    assert base.latents is repeats.latents, "it needs the same clips"
    assert rank.training_spec["dataset"] == base.training_spec["dataset"] != repeats.training_spec["dataset"]
    assert rank.paths.manifests("text") != base.paths.manifests("text")
    assert rank.experiment("") is base


def test_whoever_needs_more_encodes_in_its_own_folder(open_project: MakeProject) -> None:
    words = {"sample.prompts": [{"name": "a", "prompt": "new words"}]}
    base = open_project(experiments={"words": words, "twice": words, "rank": RANK})
    first = base.experiment("words")
    assert first.texts.manifests_root == first.paths.manifests("text")
    assert base.texts.manifests_root == base.paths.manifests("text")
    assert base.experiment("twice").texts is first.texts
    assert base.texts is base.experiment("rank").texts
    assert base.latents is first.latents


def test_what_another_run_has_encoded_is_known(open_project: MakeProject) -> None:
    base = open_project(experiments={"words": {"sample.prompts": [{"name": "a", "prompt": "new words"}]}})
    other = base.experiment("words").texts
    for shard in range(other.shards):
        manifest = other.new_manifest(shard)
        for key in other.by_shard[shard]:
            manifest.entries[key] = {}
        manifest.write(other.manifest_path(shard))
    again = open_project(experiments={"other": {"sample.prompts": [{"name": "a", "prompt": "new words"}]}})
    assert again.experiment("other").texts.known.keys() == other.needed.keys()
    assert again.texts.known.keys() == other.needed.keys()


def test_models_of_super_resolution_are_made_for_the_experiment_that_enlarges(open_project: MakeProject) -> None:
    large: JsonObject = {"sample.prompts": [{"name": "one", "prompt": "a", "sr": "auto"}]}
    base = open_project(models={"source": "demo"}, experiments={"large": large, "rank": RANK})
    assert base.experiment("rank").models is base.models
    assert not base.models.made("sr_dit")
    assert [file.name for file in base.experiment("large").models.made("sr_dit")] == ["sr_dit.safetensors"]


def test_an_experiment_may_have_other_clips(open_project: MakeProject) -> None:
    base = open_project()
    add_clip(base.root, "elk", folder="others")
    others: JsonObject = {"datasets": [{"video_directory": "others", "resolution": [64, 64], "target_frames": [5]}]}
    base = open_project(experiments={"others": others})
    other = base.experiment("others")
    assert other.dataset.digest != base.dataset.digest
    assert other.latents.manifests_root == other.paths.manifests("latents")


def test_options_of_a_command_win_over_the_experiment(open_project: MakeProject) -> None:
    base = open_project(
        sample={"flow_shift": 9.0, "guidance_scale": 2.0},
        experiments={"fast": {"sample.infer_steps": 4, "sample.flow_shift": 3, "train.seed": 5}},
    )
    request = SampleRequest(prompts=("a cat",), sample={"flow_shift": 5.0}, experiment="fast")
    opened = open_request(base.config, {}, request)
    (spec,) = opened.samples.values()
    assert (spec.steps, spec.flow_shift, spec.guidance_scale) == (4, 5.0, 2.0)
    assert opened.paths.run == "fast"
    wrong = SampleRequest(prompts=("a cat",), sample={"flow_shift": -5.0}, experiment="fast")
    with pytest.raises(UserError, match=r"^--shift: found -5"):
        open_request(base.config, {}, wrong)
