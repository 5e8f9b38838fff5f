"""What each section accepts: the rules across fields, and the values that are made from others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hv15.choices import roles_of
from hv15.config import DatasetSettings, PromptSettings, SampleSettings, Settings, TrainSettings, digest_view, fields
from hv15.config.sample import automatic_name
from hv15.config.section import check_frames, check_size
from hv15.config.training.optimizer import CLASSES
from tests.config.conftest import Load, Problems


@pytest.mark.parametrize("count", [1, 5, 9, 81, 121, 129])
def test_frame_counts_of_the_form_4k_plus_1_pass(count: int) -> None:
    assert check_frames(count) == count


@pytest.mark.parametrize(("count", "nearest"), [(2, "1 and 5"), (4, "1 and 5"), (8, "5 and 9"), (120, "117 and 121")])
def test_other_frame_counts_name_the_two_nearest(count: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"the nearest are {nearest}$"):
        check_frames(count)


def test_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 10001"):
        check_frames(0)
    with pytest.raises(ValueError, match="expected 1 to 10001"):
        check_frames(-3)


@pytest.mark.parametrize(
    ("size", "nearest"), [(850, "848 and 864"), (15, "16"), (0, "16"), (-16, "16"), (17, "16 and 32")]
)
def test_sizes_off_the_grid_name_the_nearest(size: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"nearest: {nearest}$"):
        check_size(size)
    assert check_size(848) == 848


def train(**values: Any) -> TrainSettings:
    return TrainSettings.model_validate(values)


def test_epochs_replace_the_default_steps_and_both_together_are_refused(problems: Problems) -> None:
    assert (train().max_train_steps, train().max_train_epochs) == (1600, None)
    assert (train(max_train_epochs=4).max_train_steps, train(max_train_epochs=4).max_train_epochs) == (None, 4)
    both = problems("train:\n  max_train_steps: 10\n  max_train_epochs: 2")
    assert both == ["config.yaml:5:21 train.max_train_epochs: max_train_steps is also set: keep one of them"]
    neither = problems("train: {max_train_steps: null}")
    assert neither == ["config.yaml:3:26 train.max_train_steps: is required unless max_train_epochs is set"]


@pytest.mark.parametrize(("given", "kept"), [(0, 0), (100, 100), (0.05, 0.05), (20.0, 20), ("0.1", 0.1), ("30", 30)])
def test_a_warm_up_is_a_number_of_steps_or_a_part_of_the_training(given: Any, kept: float) -> None:
    found = train(lr_warmup_steps=given).lr_warmup_steps
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize("given", [-1, -0.5, 1.5])
def test_other_warm_ups_are_refused(given: float) -> None:
    with pytest.raises(ValidationError, match="expected a whole number of steps, or a fraction"):
        train(lr_warmup_steps=given)


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"min_timestep": 500, "max_timestep": 500}, "min_timestep", "expected less than max_timestep"),
        ({"preserve_distribution_shape": True}, "preserve_distribution_shape", "has no effect without min_timestep"),
        (
            {"min_timestep": 999.9, "preserve_distribution_shape": True},
            "preserve_distribution_shape",
            "shift hardly ever draws timesteps from 999.9 to 1000",
        ),
        (
            {"timestep_sampling": "sigma", "max_timestep": 0.5, "preserve_distribution_shape": True},
            "preserve_distribution_shape",
            "sigma hardly ever draws timesteps from 0 to 0.5",
        ),
        ({"save_last_n_steps": 2}, "save_last_n_steps", "has no effect without save_every_n_steps"),
        ({"max_train_steps": 10, "lr_warmup_steps": 11}, "lr_warmup_steps", "expected at most max_train_steps"),
        ({"learning_rate_patterns": {"(img": 1e-5}}, "learning_rate_patterns", "'(img' is not a regular expression"),
        ({"optimizer_type": "Prodigy", "learning_rate": 1e-4}, "learning_rate", "finds the rate itself and multiplies"),
        ({"optimizer_type": "prodigy", "loraplus_lr_ratio": 4}, "loraplus_lr_ratio", "has no effect on Prodigy"),
        ({"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "cosine"}, "lr_scheduler", "use constant"),
        ({"optimizer_type": "AdamWScheduleFree", "scale_weight_norms": 1}, "scale_weight_norms", "cannot be used with"),
        ({"loraplus_lr_ratio": 0}, "loraplus_lr_ratio", "greater than 0"),
        ({"lr_scheduler_power": 2}, "lr_scheduler_power", "no effect with lr_scheduler constant, only with polynomial"),
        ({"lr_scheduler": "rex", "lr_decay_steps": 5}, "lr_decay_steps", "only with warmup_stable_decay"),
        (
            {"lr_scheduler": "warmup_stable_decay"},
            "lr_decay_steps",
            "is required with lr_scheduler warmup_stable_decay",
        ),
        (
            {"lr_scheduler": "cosine_with_min_lr"},
            "lr_scheduler_min_lr_ratio",
            "is required with lr_scheduler cosine_wi",
        ),
        (
            {"lr_scheduler": "rex", "lr_scheduler_min_lr": 1e-5, "lr_scheduler_min_lr_ratio": 0.1},
            "lr_scheduler_min_lr",
            "lr_scheduler_min_lr_ratio is also set: keep one of them",
        ),
        ({"lr_scheduler": "rex", "lr_scheduler_min_lr": 1e-3}, "lr_scheduler_min_lr", "expected at most learning_rate"),
        (
            {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.95, "lr_warmup_steps": 0.1},
            "lr_decay_steps",
            "after the warm-up only 1440 steps are left",
        ),
        ({"include_patterns": ["ok", "(img"]}, "include_patterns", "'(img' is not a regular expression"),
        ({"network_alpha": 0}, "network_alpha", "greater than 0"),
        ({"network_dropout": 1}, "network_dropout", "less than 1"),
        ({"network_dim_patterns": {"(img": 4}}, "network_dim_patterns", "'(img' is not a regular expression"),
        ({"network_type": "loha", "network_dropout": 0.1}, "network_dropout", "needs network_type lora or dora"),
        ({"lokr_factor": 4}, "lokr_factor", "has no effect without network_type: lokr"),
        ({"network_type": "lokr", "lokr_factor": 1}, "lokr_factor", "expected at least 2, or -1"),
        ({"layer_blocks": [9, 3]}, "layer_blocks", "expected the first block before the last"),
        ({"dim_from_weights": True}, "dim_from_weights", "needs network_weights"),
        (
            {"dim_from_weights": True, "network_weights": "a.safetensors", "layers": "mlp"},
            "layers",
            "has no effect with dim_from_weights",
        ),
        ({"i2v_prob": 1.01}, "i2v_prob", "less than or equal to 1"),
        ({"max_timestep": 1001}, "max_timestep", "less than or equal to 1000"),
    ],
)
def test_training_settings_that_contradict_are_refused_at_the_field(
    values: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        train(**values)
    (error,) = caught.value.errors()
    assert error["loc"] == (where,)
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ({"include_patterns": ["ok", "(img"]}, ("include_patterns",), "'(img' is not a regular expression"),
        ({"strength_by": [{"factor": 0}]}, ("strength_by", 0), "expected blocks, steps, or both"),
        ({"strength_by": [{"blocks": [1, 2]}]}, ("strength_by", 0, "factor"), "Field required"),
        ({"strength_by": [{"blocks": [9, 3], "factor": 0}]}, ("strength_by", 0, "blocks"), "the first block before"),
        (
            {"strength_by": [{"steps": [0.5, 0.5], "factor": 0}]},
            ("strength_by", 0, "steps"),
            "the begin before the end",
        ),
        ({"strength_by": [{"steps": [0, 25], "factor": 0}]}, ("strength_by", 0, "steps", 1), "less than or equal to 1"),
    ],
)
def test_where_a_lora_acts_is_refused_at_the_field(
    given: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        SampleSettings.model_validate({"loras": [{"path": "a.safetensors", **given}]})
    (error,) = caught.value.errors()
    assert error["loc"] == ("loras", 0, *where)
    assert message in error["msg"]


def test_optimizer_arguments_keep_their_kinds() -> None:
    given = {"weight_decay": 0.1, "betas": [0.9, 0.99], "nesterov": True, "ns_steps": 5, "name": "match", "eps": "1e-9"}
    kept = train(optimizer_args=given).optimizer_args
    assert kept == {**given, "betas": (0.9, 0.99), "eps": 1e-9}
    assert kept["nesterov"] is True
    assert isinstance(kept["ns_steps"], int)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("adamw8bit", "AdamW8bit"),
        ("ADAMW", "AdamW"),
        ("muon", "Muon"),
        ("prodigyplus.ProdigyPlusScheduleFree", "ProdigyPlusScheduleFree"),
        ("bitsandbytes.optim.AdamW8bit", "AdamW8bit"),
        ("pytorch_optimizer.SOAP", "pytorch_optimizer.SOAP"),
    ],
)
def test_an_optimizer_has_one_name(given: str, kept: str) -> None:
    assert train(optimizer_type=given).optimizer_type == kept


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_is_known_in_any_case(name: str) -> None:
    for given in (name, name.lower(), name.upper(), CLASSES[name].upper()):
        assert train(optimizer_type=given).optimizer_type == name


def test_the_default_rate_is_that_of_the_optimizer() -> None:
    assert train(optimizer_type="adamw").learning_rate == 1e-4
    assert train(optimizer_type="prodigy").learning_rate == 1
    assert train(optimizer_type="ProdigyPlusScheduleFree", learning_rate=0.5).learning_rate == 0.5


def test_rates_of_layers_are_rates_or_factors() -> None:
    given = {"txt_": "0.5x", "img_mlp": 2e-5, "_mod": "0", "q$": ".25X", "k$": "1e-1x"}
    found = train(learning_rate=2e-4, learning_rate_patterns=given).layer_rates
    assert found == pytest.approx({"txt_": 1e-4, "img_mlp": 2e-5, "_mod": 0.0, "q$": 5e-5, "k$": 2e-5})


def test_what_another_schedule_reads_is_in_no_digest() -> None:
    plain = digest_view(train())
    assert "lr_scheduler_power" not in plain
    assert digest_view(train(lr_scheduler="polynomial"))["lr_scheduler_power"] == 1.0
    assert digest_view(train(optimizer_type="adamw8bit")) == plain


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        train().seed = 3  # type: ignore[misc]


def dataset(**values: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"video_directory": "clips", **values})


def test_one_number_means_a_square_and_one_window() -> None:
    assert dataset(resolution=512).resolution == (512, 512)
    assert dataset(resolution=[960, 544]).resolution == (960, 544)
    assert dataset(target_frames=25).target_frames == (25,)


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"image_directory": "stills"}, (), "found both image_directory and video_directory"),
        ({"video_directory": None}, (), "found none"),
        ({"target_frames": [9, 9]}, ("target_frames",), "only once"),
        ({"target_frames": []}, ("target_frames",), "at least 1 item"),
        ({"enable_bucket": False, "resolution": [960, 540]}, ("resolution",), "e.g. [960, 528]"),
        ({"background": "white"}, ("background",), "expected a colour"),
        ({"background": "#12345"}, ("background",), "expected a colour"),
        ({"background": None}, ("background",), "put the colour in quotes"),
        ({"caption_extension": "txt"}, ("caption_extension",), "'.txt'"),
        ({"source_fps": 0}, ("source_fps",), "greater than or equal to 0.01"),
        ({"video_directory": " "}, ("video_directory",), "the path is empty"),
        ({"video_directory": "${HV15_NOT_SET:-}"}, ("video_directory",), "the path is empty"),
        ({"video_directory": "a\0b"}, ("video_directory",), "zero byte"),
        ({"video_directory": "~nobody-of-this-name/x"}, ("video_directory",), "no such home folder"),
    ],
)
def test_dataset_settings_that_contradict_are_refused_at_the_field(
    values: dict[str, Any], where: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        dataset(**values)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]


def test_video_settings_on_images_are_refused_each() -> None:
    with pytest.raises(ValidationError) as caught:
        dataset(video_directory=None, image_directory="stills", target_frames=[9], frame_sample=2)
    assert [error["loc"] for error in caught.value.errors()] == [("target_frames",), ("frame_sample",)]


def test_a_dataset_knows_its_source_and_kind() -> None:
    assert (dataset().source, dataset().kind) == ("clips", "video")
    images = dataset(video_directory=None, image_jsonl_file="stills.jsonl")
    assert (images.source, images.kind) == ("stills.jsonl", "image")


def test_colours_are_kept_in_one_spelling() -> None:
    assert dataset(background="#FFaa00").background == "#ffaa00"


def test_a_prompt_without_a_name_gets_one_from_its_words() -> None:
    prompt = PromptSettings.model_validate({"prompt": 'A red "STOP" sign, slowly turning; in the rain and the wind'})
    assert prompt.name == automatic_name(prompt.prompt)
    assert prompt.name.startswith("a-red-stop-sign-slowly-turning-in-the-ra-")
    other = PromptSettings.model_validate({"prompt": prompt.prompt + "."})
    assert other.name != prompt.name
    assert automatic_name("你好").startswith("prompt-")
    assert automatic_name("x", "a.png") != automatic_name("x", "b.png")


def test_a_prompt_in_a_block_of_yaml_is_the_same_prompt(load: Load) -> None:
    """A YAML block ends with a line break, which the text encoder would see."""
    block = load("sample:\n  prompts:\n    - prompt: >\n        a cat\n        sleeps\n")
    assert block.sample == load("sample: {prompts: [{prompt: a cat sleeps}]}").sample


@pytest.mark.parametrize("name", ["a b", "../a", "a.b", ".a", "-a", "ä", "a" * 101])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="for file names"):
        PromptSettings.model_validate({"prompt": "x", "name": name})


def test_two_prompts_of_one_name_are_refused_also_by_case(problems: Problems) -> None:
    """Some disks do not distinguish A from a."""
    lines = problems("sample:\n  prompts:\n    - {name: cat, prompt: one}\n    - {name: Cat, prompt: two}")
    assert lines == [
        "config.yaml:6:14 sample.prompts[1].name: 'Cat' is also the name of prompts[0]: give each prompt its own name"
    ]


def test_every_setting_of_a_prompt_takes_the_values_of_the_section() -> None:
    listed = {field.path: field for field in fields(SampleSettings)}
    shared = set(PromptSettings.model_fields) & set(SampleSettings.model_fields)
    assert len(shared) == 14
    for name in shared:
        assert listed[f"prompts[].{name}"].type == listed[name].type
        assert listed[f"prompts[].{name}"].default is None


def test_each_task_needs_its_images_and_files(problems: Problems) -> None:
    text = "task: i2v\ndatasets: [{video_directory: clips}]\nmodels: {vae: v, text_encoder: t, glyph_encoder: g}\n"
    lines = problems(text + "sample: {prompts: [{prompt: a cat}]}", base=False)
    assert [line.split(": ")[0] for line in lines] == [
        "config.yaml:3:1 models.dit",
        "config.yaml:3:1 models.image_encoder",
        "config.yaml:4:20 sample.prompts[0].image_path",
    ]
    (line,) = problems("sample: {prompts: [{prompt: a cat, image_path: a.png}]}")
    assert line.endswith("is set, but task is t2v: remove it, or set task: i2v")


def test_super_resolution_needs_its_models_only_where_it_is_on(problems: Problems, load: Load) -> None:
    models = "models: {dit: d, vae: v, text_encoder: t, glyph_encoder: g}\n"

    def found(sample: str) -> list[str]:
        return problems(f"{models}sample: {{{sample}}}", base=False)

    (transformer, upsampler) = found("sr: auto, prompts: [{prompt: a cat}]")
    assert transformer.endswith(
        "models.sr_dit: is missing: sample.sr is auto, which needs its path (or models.source hub)"
    )
    assert "models.upsampler: is missing" in upsampler
    assert len(found("prompts: [{prompt: a cat, sr: 720p}]")) == 2
    small = load(f"{models}sample: {{sr: 720p, prompts: [{{prompt: a cat, sr: off}}]}}", base=False)
    assert small.roles == roles_of("t2v")


def test_all_samples_are_enlarged_by_the_same_models(problems: Problems) -> None:
    prompts = "[{prompt: a, sr: 720p}, {prompt: b, sr: 1080p}, {prompt: c, sr: auto}, {prompt: d, sr: 'off'}]"
    models = "models: {source: hub, variant: 480p_t2v}\n"
    (line,) = problems(f"{models}datasets: [{{video_directory: clips}}]\nsample: {{prompts: {prompts}}}", base=False)
    assert "sample.prompts[0].sr: found 720p, but others become 1080p" in line


def test_a_download_needs_a_variant_and_takes_no_paths(problems: Problems, load: Load) -> None:
    text = "datasets: [{video_directory: clips}]\nmodels: "
    assert problems(text + "{source: hub}", base=False) == [
        "config.yaml:2:1 models.variant: models.source is hub: set the checkpoint to download, e.g. 720p_t2v"
    ]
    (line,) = problems(text + "{source: hub, variant: 720p_t2v, vae: my.safetensors}", base=False)
    assert line.startswith("config.yaml:2:47 models.vae: is not used with models.source hub")
    assert load(text + "{source: hub, variant: 720p_t2v}", base=False).models.missing_files(roles_of("t2v")) == []


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_devices_by_name(load: Load, device: str) -> None:
    assert load(f"runtime: {{device: '{device}'}}").runtime.device == device


def test_other_devices_are_refused(problems: Problems) -> None:
    assert "expected auto, cpu, cuda" in problems("runtime: {device: gpu0}")[0]


def test_the_least_config_has_every_section() -> None:
    settings = Settings.model_validate({"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]})
    assert settings.task == "t2v"
    assert settings.convert.formats == ("comfyui",)
    assert settings.cache.vae_sample_size == 0


def test_several_gpus_do_not_draw_dropout_masks_together(problems: Problems) -> None:
    assert train(context_parallel=2, rank_dropout=0.1).context_parallel == 2
    [found] = problems("train: {context_parallel: 2, network_dropout: 0.1}")
    assert "train.context_parallel: needs network_dropout: 0" in found
    assert problems("sample: {context_parallel: 0}")


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"fraction": 0.1, "datasets": [{"video_directory": "a"}]}, "datasets", "fraction is also set"),
        ({"fraction": 0.1, "every_n_steps": 5, "every_n_epochs": 1}, "every_n_epochs", "every_n_steps is also set"),
        ({"every_n_steps": 5}, "every_n_steps", "has no effect without fraction or datasets"),
        ({"keep_best": True}, "keep_best", "has no effect without fraction or datasets"),
        ({"noise_levels": "even"}, "noise_levels", "has no effect without fraction or datasets"),
        ({"fraction": 0.1, "patience": 2}, "patience", "needs every_n_steps or every_n_epochs"),
        ({"fraction": 0.6}, "fraction", "less than or equal to 0.5"),
    ],
)
def test_validations_that_contradict_are_refused_at_the_field(values: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        train(validation=values)
    (error,) = caught.value.errors()
    assert error["loc"] == ("validation", where)
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("datasets", "length", "where", "message"),
    [
        ([{"end_step": 5, "start_step": 5}, {}], {}, (0, "end_step"), "found 5, expected more than start_step (5)"),
        ([{"start_step": 9}, {}], {"max_train_steps": 9}, (0, "start_step"), "the training has 9 steps"),
        ([{"start_step": 9}], {"max_train_epochs": 9}, (), "none of them takes part in steps 1 to 9"),
        ([{"end_step": 3}, {"start_step": 5}], {}, (), "none of them takes part in steps 4 to 5"),
        ([{"end_step": 3}, {"end_step": 8}], {"max_train_steps": 9}, (), "none of them takes part from step 9 on"),
        ([{"end_step": 8}], {"max_train_epochs": 1}, (), "none of them takes part from step 9 on"),
    ],
)
def test_datasets_that_leave_steps_empty_are_refused(
    datasets: list[dict[str, Any]], length: dict[str, int], where: tuple[str | int, ...], message: str
) -> None:
    folders = [{"video_directory": str(number), **each} for number, each in enumerate(datasets)]
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"models": {"source": "demo"}, "datasets": folders, "train": length})
    (error,) = caught.value.errors()
    assert error["loc"] == ("datasets", *where)
    assert message in error["msg"]


def test_datasets_may_follow_each_other() -> None:
    follow = [{"video_directory": "a", "end_step": 5}, {"video_directory": "b", "start_step": 5}]
    ends = [{"video_directory": "a", "end_step": 5}]
    for datasets, steps in ((follow, 9), (ends, 5)):
        Settings.model_validate(
            {"models": {"source": "demo"}, "datasets": datasets, "train": {"max_train_steps": steps}}
        )


@pytest.mark.parametrize("name", ["loss_weight", "start_step", "end_step"])
def test_what_is_not_trained_on_has_no_weight_and_no_schedule(name: str) -> None:
    with pytest.raises(ValidationError, match="is only for datasets that are trained on") as caught:
        train(validation={"datasets": [{"video_directory": "a", name: 2}]})
    assert caught.value.errors()[0]["loc"] == ("validation", "datasets", 0, name)


def test_an_average_of_an_average_is_refused() -> None:
    with pytest.raises(ValidationError, match="has no use with AdamWScheduleFree"):
        train(optimizer_type="AdamWScheduleFree", ema_decay=0.9)
