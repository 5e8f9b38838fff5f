"""What `train:` accepts: the rules across fields, and the values that are made from others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hv15.config import TrainSettings, digest_view
from hv15.config.training.optimizer import CLASSES
from tests.config.conftest import Problems


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


@pytest.mark.parametrize("name", ["loss_weight", "start_step", "end_step"])
def test_what_is_not_trained_on_has_no_weight_and_no_schedule(name: str) -> None:
    with pytest.raises(ValidationError, match="is only for datasets that are trained on") as caught:
        train(validation={"datasets": [{"video_directory": "a", name: 2}]})
    assert caught.value.errors()[0]["loc"] == ("validation", "datasets", 0, name)


def test_an_average_of_an_average_is_refused() -> None:
    with pytest.raises(ValidationError, match="has no use with AdamWScheduleFree"):
        train(optimizer_type="AdamWScheduleFree", ema_decay=0.9)
