"""Going on with a finished training by the commands: what is said, what is done, what the LoRA tells."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from hv15.project.metadata import read_metadata
from hv15.records.json_values import JsonObject, parse_object
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal


def made_from(project: Workbench) -> JsonObject:
    return parse_object(read_metadata(project.root / LORA)["hv15.made_from"])


def test_a_greater_length(done: Workbench) -> None:
    done.set(train={"max_train_steps": 3})
    why = ("why", "--target", LORA)
    assert done.does(*why).out == (
        "train the LoRA: train.max_train_steps 2 -> 3: the training continues after step 2\n"
    )
    done.train()
    steps = [json.loads(line) for line in done.paths.metrics.read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "step"] == [1, 2, 3]
    assert "up to date" in done.does(*why).out
    done.set(train={"max_train_steps": 1})  # there is a state after each step, and of these two are kept
    assert re.search(
        r"train.max_train_steps 3 -> 1\n  the training of 3 steps is kept in train-\w{8}\n", done.does(*why).out
    )
    done.set(train={"max_train_steps": 2, "save_precision": "bfloat16"})
    assert "\n  no step is trained again\n  the training of 3 steps is kept in train-" in done.does(*why).out


def test_another_setting_offers_to_go_on(done: Workbench) -> None:
    why = ("why", "--target", LORA)
    done.set(train={"learning_rate": 0.001})
    offer = "the training of 2 steps is kept in train-{}; to continue from it instead set train.continue_from: latest"
    assert re.search(offer.format(r"\w{8}"), done.does(*why).out)
    done.set(train={"optimizer_type": "Muon"})
    said = "set train.continue_from: latest, train.reset_optimizer: true and a greater train.max_train_steps\n"
    assert said in done.does(*why).out
    done.set(train={"max_train_steps": 9})
    assert "set train.continue_from: latest and train.reset_optimizer: true\n" in done.does(*why).out
    done.set(train={"network_dim": 4})
    assert "is kept in" in done.does(*why).out
    assert "continue_from" not in done.does(*why).out, "its weights would not fit"


@pytest.mark.slow
def test_from_the_latest_state(done: Workbench) -> None:
    done.set(train={"learning_rate": 0.001, "continue_from": "latest"})
    is_a_refusal(done.hv15("why"), ("after step 2, and steps count on, but the training has 2 steps in all",))
    done.set(train={"max_train_steps": 4})
    said = done.does("why", "--target", LORA).out
    assert "  another start (train.continue_from)\n  the training continues after step 2 of another one\n" in said
    done.train()
    before = made_from(done)
    for _ in range(2):
        assert "up to date" in done.does("why", "--target", LORA).out
        done.train()
    assert made_from(done) == before

    told = hv15("show", done.root / LORA).out
    digest = before["train"]["continue_from"]["state"]  # type: ignore[index,call-overload]  # JSON
    assert (
        "hv15.segments:\n"
        "  1. after step 0: new\n"
        f"  2. after step 2: from the state {digest[:8]} after step 2; train.max_train_steps 2 -> 4; "
        "train.learning_rate "
    ) in told
    config = yaml.safe_load(hv15("show", "--config", done.root / LORA).out)
    assert config["train"]["continue_from"] == digest
    done.write(config)
    assert "up to date" in done.does("why", "--target", LORA).out
    done.set(train={"learning_rate": 0.002})
    assert "the training continues after step 2 of another one" in done.does("why", "--target", LORA).out


@pytest.mark.slow
def test_each_training_is_printed_as_a_config_that_makes_it_again(done: Workbench) -> None:
    done.set(train={"learning_rate": 0.001, "continue_from": "latest", "max_train_steps": 4})
    done.train()
    lora = done.root / LORA
    whole = lora.read_bytes()
    texts = [hv15("show", lora, "--config", "--segment", number).out for number in (1, 2)]
    is_a_refusal(hv15("show", lora, "--segment", 1), ("--segment without --config",))
    said = hv15("show", lora, "--config", "--segment", 3)
    is_a_refusal(said, ("found 3, but 2 trainings made it one after the other", "give 1 to 2"))
    shutil.rmtree(done.root / "results")
    for text in texts:
        done.write(yaml.safe_load(text))
        done.does("encode", "latents")
        done.does("encode", "texts")
        done.train()
    assert lora.read_bytes() == whole


def test_what_does_not_fit_is_refused_beforehand(done: Workbench) -> None:
    done.set(train={"max_train_steps": 4, "continue_from": "latest", "optimizer_type": "Muon"})
    is_a_refusal(done.hv15("why"), ("train.continue_from", "the state is one of AdamW", "reset_optimizer: true"))
    done.set(train={"reset_optimizer": True})
    done.does("why")
    done.set(train={"network_dim": 4})
    is_a_refusal(done.hv15("why"), ("train.continue_from", "rank 2, but train.network_dim is 4"))


def test_what_is_not_there_is_refused(done: Workbench) -> None:
    for start, words in (
        ("clips", "clips is a folder without a state"),
        ("nothing.safetensors", "nothing.safetensors"),
        ("0" * 64, "no state in"),
        ("config.yaml", "not a safetensors file"),
    ):
        done.set(train={"continue_from": start})
        is_a_refusal(done.hv15("why"), ("train.continue_from: ", words))
