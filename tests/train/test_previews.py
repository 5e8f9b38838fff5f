"""Samples while training: those of the final sampler, at the right steps, and without a trace in the LoRA."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hv15.cache.batches import Stores, TrainingItem
from hv15.data.captions import caption_key
from hv15.errors import UserError
from hv15.lora.apply import apply_lora
from hv15.lora.files import read_lora
from hv15.models.latents import SCALING_FACTOR
from hv15.models.ready import set_up
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.models.weights.parked import parked
from hv15.models.weights.swap import BlockSwap
from hv15.project.metadata import product_metadata
from hv15.records.metadata import MADE_FROM
from hv15.records.paths import average_of
from hv15.sample import sampling
from hv15.sample.prompts import ImageFile, LoRAFile, SampleSpec
from hv15.train import previews as previews_module
from hv15.train.examples import Example
from hv15.train.loop import Trainer
from hv15.train.previews import Preview, PreviewPlan, movable, sampling_loras
from tests.train.world import CONFIG, metrics, run, settings, tiny_dit, tiny_stores, untimed, write_text

Data = tuple[Sequence[TrainingItem], Stores]
PROMPT, NEGATIVE = "a red circle", "blurred"
SPEC = SampleSpec(
    name="red",
    task="t2v",
    prompt=PROMPT,
    negative_prompt=NEGATIVE,
    height=48,
    width=64,
    frames=5,
    steps=2,
    guidance_scale=3.0,
    flow_shift=5.0,
    seed=7,
    fps=24.0,
    output_type="video",
    dtype="float32",
    quantize="none",
    vae_sample_size=0,
    vae_tile_overlap=0.25,
    variant="480p_t2v",
    lora_multiplier=1.0,
    image=None,
    loras=(),
    models={"dit": "tiny", "vae": "tiny", "image_encoder": "tiny"},
)
NAMES = ["red.step000002.mp4", "red.step000004.mp4"]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    items, stores = tiny_stores(tmp_path / "cache")
    for number, prompt in enumerate((PROMPT, NEGATIVE)):
        text = torch.randn(4 + number, 16, generator=torch.Generator().manual_seed(number))
        write_text(stores, caption_key(prompt), text, number)
    return items, stores


@pytest.fixture(autouse=True)
def no_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded is the latents file itself, with what the decoding is told in its metadata."""

    def copy(latents: Path, vae: Path, output: Path, spec: SampleSpec, **_: object) -> None:
        assert vae.name == "vae.safetensors"
        output.parent.mkdir(exist_ok=True)
        shutil.copy(latents, output)

    monkeypatch.setattr(previews_module, "decode_latents", copy)


def plan(root: Path, *specs: SampleSpec, condition: Path | None = None) -> PreviewPlan:
    previews = [Preview(spec.name, spec, condition) for spec in specs]
    return PreviewPlan(previews, "trained", "text", root, Path("vae.safetensors"), patch_conv=False)


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "train/previews").glob("*"))


def test_a_training_with_previews_gives_the_same_lora(tmp_path: Path, data: Data) -> None:
    options = {"max_train_steps": 5, "module_dropout": 0.3, "network_dropout": 0.2}
    plain = run(tmp_path / "plain", settings(**options), data=data)
    config = settings(**options, preview_every_n_steps=2, preview_at_first=True)
    sampled = run(tmp_path / "sampled", config, data=data, previews=plan(tmp_path, SPEC))
    assert sampled.read_bytes() == plain.read_bytes()
    assert untimed(metrics(tmp_path / "sampled")) == untimed(metrics(tmp_path / "plain"))
    assert made(tmp_path / "sampled") == ["red.step000000.mp4", *NAMES]
    records = metrics(tmp_path / "sampled", "preview")
    assert [(each["step"], each["name"], each["path"]) for each in records] == [
        (step, "red", f"previews/red.step{step:06d}.mp4") for step in (0, 2, 4)
    ]


@pytest.mark.parametrize(
    ("multiplier", "average"),
    [
        pytest.param(1.0, False, marks=pytest.mark.slow),
        (0.5, True),
        pytest.param(None, False, marks=pytest.mark.slow),
    ],
)
def test_it_is_the_final_sample_of_that_checkpoint(
    tmp_path: Path, data: Data, multiplier: float | None, average: bool
) -> None:
    """The same noise, guidance, schedule and LoRAs, so the same latents; with the average if that is asked for."""
    other = tmp_path / "other.safetensors"
    spec = replace(SPEC, lora_multiplier=multiplier)
    averaging = {"ema_decay": 0.9, "preview_average": True} if average else {}
    config = settings(max_train_steps=3, preview_every_n_steps=2, save_every_n_steps=2, **averaging)
    first = run(tmp_path / "first", settings(max_train_steps=2, seed=5), data=data)
    shutil.copy(first, other)
    spec = replace(spec, loras=(LoRAFile("other.safetensors", model_fingerprint(other), 0.7),))
    run(tmp_path / "one", config, data=data, previews=plan(tmp_path, spec))
    dit = tiny_dit()
    if multiplier is not None:
        kept = tmp_path / "one/train/checkpoints/lora-step000002.safetensors"
        apply_lora(dit, read_lora(average_of(kept) if average else kept)[0], multiplier)
    apply_lora(dit, read_lora(other)[0], 0.7)
    texts = data[1].texts
    text, negative = texts.read(caption_key(PROMPT)), texts.read(caption_key(NEGATIVE))
    expected = sampling.run(dit, spec, text, negative, None, None, device=torch.device("cpu"))
    found = load_file(tmp_path / "one/train/previews/red.step000002.mp4")["latents"]
    assert_close(found[None] * SCALING_FACTOR, expected, atol=1e-6, rtol=1e-6)
    (record,) = metrics(tmp_path / "one", "preview")
    assert record["ema_decay"] == (0.9 if average else None)
    assert ("ema_decay" in _made_from(tmp_path / "one/train/previews/red.step000002.mp4", tmp_path)) == average


def test_image_to_video_begins_with_the_image(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = tmp_path / "red.condition.safetensors"
    latents, vision = torch.full((4, 1, 3, 4), 0.25), torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    save_file({"latents": latents, "vision": vision}, condition)
    seen: list[tuple[Any, Any]] = []
    real = sampling.run

    def note(dit: Any, spec: Any, text: Any, negative: Any, first: Any, states: Any, **options: Any) -> Any:
        seen.append((first, states))
        return real(dit, spec, text, negative, first, states, **options)

    monkeypatch.setattr(previews_module, "run", note)
    spec = replace(SPEC, task="i2v", image=ImageFile("red.png", "f" * 64))
    config = settings("i2v", max_train_steps=2, preview_every_n_steps=1)
    run(tmp_path / "one", config, data=data, previews=plan(tmp_path, spec, condition=condition))
    first, states = seen[0]
    assert torch.equal(first, latents)
    assert torch.equal(states, vision)


def test_they_say_what_they_were_made_from(tmp_path: Path, data: Data) -> None:
    """As the final sample does, and after which step, so that neither is taken for the other."""
    config = settings(max_train_steps=3, preview_every_n_steps=2)
    run(tmp_path / "one", config, data=data, previews=plan(tmp_path, SPEC))
    told = _made_from(tmp_path / "one/train/previews/red.step000002.mp4", tmp_path)
    assert '"step": 2' in told
    assert '"trained": "trained"' in told


def _made_from(preview: Path, folder: Path) -> str:
    return product_metadata(shutil.copy(preview, folder / "x.safetensors"))[MADE_FROM]


def test_a_file_asks_for_samples(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Example.prediction, []
    ask = tmp_path / "one/train/sample-now"

    def losses(example: Example, dit: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            ask.touch()
        return real(example, dit)

    monkeypatch.setattr(Example, "prediction", losses)
    run(tmp_path / "one", settings(max_train_steps=5), data=data, previews=plan(tmp_path, SPEC))
    assert made(tmp_path / "one") == ["red.step000003.mp4"]
    assert not ask.exists()


def test_a_request_for_another_training_is_dropped(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that lies there from before, and one that comes when the last step is done."""
    ask, real = tmp_path / "one/train/sample-now", Trainer._read_back

    def asks_late(trainer: Trainer, queued: Any) -> Any:
        if queued.step == 2:
            ask.touch()
        return real(trainer, queued)

    run(tmp_path / "one", settings(max_train_steps=1), data=data, previews=plan(tmp_path, SPEC))
    ask.touch()
    monkeypatch.setattr(Trainer, "_read_back", asks_late)
    run(tmp_path / "one", settings(max_train_steps=3), data=data, previews=plan(tmp_path, SPEC))
    assert made(tmp_path / "one") == []
    assert not ask.exists()
    assert "no step was left" in caplog.text


@pytest.mark.parametrize("prompts", [True, False])
def test_it_tells_whether_it_can_make_samples(tmp_path: Path, data: Data, prompts: bool) -> None:
    ask = tmp_path / "one/train/sample-now"
    ask.parent.mkdir(parents=True)
    ask.touch()
    run(tmp_path / "one", settings(max_train_steps=2), data=data, previews=plan(tmp_path, SPEC) if prompts else None)
    assert [record["samples_on_request"] for record in metrics(tmp_path / "one", "start")] == [prompts]
    assert made(tmp_path / "one") == []
    assert not ask.exists(), "no later training finds it"


def test_one_preview_is_not_in_the_plural(tmp_path: Path, data: Data, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(
        tmp_path / "one", settings(max_train_steps=1, preview_every_n_steps=1), data=data, previews=plan(tmp_path, SPEC)
    )
    assert len(metrics(tmp_path / "one", "preview")) == 1
    assert "1 preview after step 1 in" in caplog.text


def test_a_problem_is_a_warning_and_the_training_continues(tmp_path: Path, data: Data) -> None:
    data[1].texts.remove(caption_key(PROMPT))  # type: ignore[attr-defined]
    config = settings(max_train_steps=3, preview_every_n_steps=2)
    output = run(tmp_path / "one", config, data=data, previews=plan(tmp_path, SPEC))
    assert output.exists()
    (record,) = metrics(tmp_path / "one", "warning")
    assert "previews after step 2 are missing" in record["message"]
    assert metrics(tmp_path / "one", "preview") == []


@pytest.mark.slow
def test_a_training_that_dies_while_it_samples_loses_no_step(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples take minutes, so a system that ends a process after a while may not wait for them."""
    config = settings(max_train_steps=3, preview_every_n_steps=2)  # no other state is due before the end
    expected = run(tmp_path / "whole", config, data=data, previews=plan(tmp_path, SPEC)).read_bytes()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(previews_module.Previews, "run", die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "one", config, data=data, previews=plan(tmp_path, SPEC))
    assert run(tmp_path / "one", config, data=data, previews=plan(tmp_path, SPEC)).read_bytes() == expected
    assert [record["step"] for record in metrics(tmp_path / "one", "start")] == [0, 2]
    assert [record["step"] for record in metrics(tmp_path / "one", "step")] == [1, 2, 3]
    assert [record["step"] for record in metrics(tmp_path / "one", "preview")] == [2]


def test_a_lora_that_cannot_be_used_leaves_the_training_as_it_was(tmp_path: Path) -> None:
    from hv15.lora import LoRANetwork

    dit = tiny_dit()
    network = LoRANetwork(dit, rank=2, alpha=2.0)
    spec = replace(SPEC, loras=(LoRAFile("none.safetensors", "f" * 64, 1.0),))
    with pytest.raises(UserError, match="none"), sampling_loras(dit, network, network.state_dict(), spec, tmp_path):
        pass
    layer = dit.get_submodule(network.module_names[0])
    assert len(layer._forward_hooks) == 1


class Moved(torch.nn.Module):
    """Notes where it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, place: torch.device | str) -> None:  # type: ignore[override]
        self.places.append(str(place))


@pytest.mark.parametrize(("device", "places"), [("cuda", ["cpu", "cuda"]), ("cpu", [])])
def test_blocks_leave_the_gpu_and_come_back(device: str, places: list[str]) -> None:
    blocks = [Moved(), Moved()]
    with suppress(UserError), parked(blocks, torch.device(device)):
        assert all(block.places == places[:1] for block in blocks)
        raise UserError("whatever happens meanwhile", hint="")
    assert all(block.places == places for block in blocks)


def test_swapped_blocks_stay_where_they_are() -> None:
    dit = tiny_dit(replace(CONFIG, num_blocks=5))
    assert movable(dit) == list(dit.double_blocks)
    set_up(dit, settings(blocks_to_swap=2, gradient_checkpointing=True).train, "cpu")
    (swap,) = dit.block_hooks
    assert isinstance(swap, BlockSwap)
    assert movable(dit) == [block for index, block in enumerate(dit.double_blocks) if index not in swap.indices]
