"""What the model is shown: conditions, captions, draws, target."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.cache.batches import MicroBatch, Stores, TrainingItem
from hv15.config.train import TrainSettings
from hv15.models import Condition, DiT
from hv15.train.examples import EMPTY_CAPTION, Example, ExampleReader
from hv15.train.losses import mean_square
from hv15.train.timesteps import SigmaRule
from hv15.train.weighting import LossWeight
from tests.train.world import CONFIG, VISION_TOKENS, tiny_dit, tiny_stores

pytestmark = pytest.mark.numeric

SCALE = 1.03682  # of the published VAE config


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[TrainingItem], Stores]:
    return tiny_stores(tmp_path)


def reader(stores: Stores, i2v_prob: float = 1.0, caption_dropout: float = 0.0) -> ExampleReader:
    options = TrainSettings()
    weight = LossWeight.from_settings(options)
    return ExampleReader(stores, 7, SigmaRule(options), weight, i2v_prob, caption_dropout)


def batch(*items: TrainingItem, first: int = 0) -> MicroBatch:
    return MicroBatch(0, items, first)


class Spy:
    """Stands in for a transformer: records its inputs and returns zeros."""

    config = CONFIG
    dtype = torch.float32

    def __call__(self, x: Tensor, timestep: Tensor, cond: Condition, timestep_r: Tensor | None = None) -> Tensor:
        self.x, self.timestep, self.cond = x, timestep, cond
        return torch.zeros_like(x[:, : CONFIG.latent_channels])


def shown(example: Example) -> tuple[Spy, Tensor]:
    spy = Spy()
    return spy, mean_square(example.error(spy))  # type: ignore[arg-type]


def test_all_that_goes_to_a_gpu_is_pinned_first(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a GPU: memory can be pinned only where one is."""
    items, stores = data
    example = reader(stores)(batch(items[0]))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = example.pinned()
    for name in ("x0", "noise", "sigma", "weight", "first_frame"):
        assert torch.equal(getattr(pinned, name), getattr(example, name) + 1)
    for name in ("text", "glyphs", "vision"):
        assert torch.equal(getattr(pinned.condition, name), getattr(example.condition, name) + 1)
    assert pinned.condition.text_lengths == example.condition.text_lengths


def test_i2v_shows_the_scaled_first_latent_its_mask_and_the_image_features(data: Any) -> None:
    items, stores = data
    spy, _ = shown(reader(stores)(batch(items[0])))
    stored = stores.latents.read(items[0].clip)
    condition, mask = spy.x[0, 4:8], spy.x[0, 8]
    assert_close(condition[:, 0], SCALE * stored["latents"][:, 0])
    assert not condition[:, 1:].any()
    assert mask[0].eq(1).all()
    assert not mask[1:].any()
    assert spy.cond.vision is not None
    assert torch.equal(spy.cond.vision[0], stored["vision"])


def test_t2v_ignores_image_features_that_are_stored(data: Any) -> None:
    items, stores = data
    spy, _ = shown(reader(stores, i2v_prob=0.0)(batch(items[0])))
    assert not spy.x[:, 4:].any()
    assert spy.cond.vision is None


def test_a_still_image_is_never_its_own_condition(data: Any) -> None:
    items, stores = data
    still = items[2]
    assert still.shape[0] == 1
    spy, _ = shown(reader(stores)(batch(still)))
    assert not spy.x[:, 4:].any()
    assert spy.cond.vision is None


def test_i2v_prob_chooses_sample_by_sample(data: Any) -> None:
    items, stores = data
    same = [items[0], items[3]]
    examples = [reader(stores, i2v_prob=0.4)(batch(*same, first=2 * i)) for i in range(150)]
    with_image = torch.cat([example.first_frame for example in examples])
    assert 0.3 < with_image.mean() < 0.5
    mixed = next(example for example in examples if example.first_frame.tolist() == [0, 1])
    spy, _ = shown(mixed)
    assert not spy.x[0, 4:].any()
    assert spy.x[1, 8, 0].eq(1).all()
    assert mixed.condition.vision_lengths == [0, VISION_TOKENS]


def test_input_target_and_timestep(data: Any) -> None:
    items, stores = data
    example = reader(stores, i2v_prob=0.0)(batch(items[0], items[3], first=5))
    spy, losses = shown(example)
    x0 = SCALE * torch.stack([stores.latents.read(item.clip)["latents"] for item in (items[0], items[3])])
    sigma = example.sigma.view(2, 1, 1, 1, 1)
    assert_close(spy.x[:, :4], (1 - sigma) * x0 + sigma * example.noise)
    assert_close(spy.timestep, 1000 * example.sigma)
    assert_close(losses, (example.noise - x0).square().flatten(1).mean(1))  # the answer was zero
    assert spy.timestep.dtype == torch.float32


def test_a_sample_is_weighted_by_its_sigma(data: Any) -> None:
    items, stores = data
    weight = LossWeight.from_settings(TrainSettings(weighting_scheme="cosmap"))
    example = replace(reader(stores), loss_weight=weight)(batch(items[0], items[3], first=5))
    assert_close(example.weight, torch.tensor([weight(sigma) for sigma in example.sigma.tolist()]))
    assert torch.equal(reader(stores)(batch(items[0])).weight, torch.ones(1))


def test_a_sample_is_weighted_by_its_dataset(data: Any) -> None:
    """On top of its weight by sigma; the recorded loss has neither."""
    items, stores = data
    read = replace(reader(stores), loss_weight=LossWeight.from_settings(TrainSettings(weighting_scheme="cosmap")))
    plain, weighted = read(batch(items[0], items[3])), read(batch(items[0], replace(items[3], loss_weight=0.25)))
    assert_close(weighted.weight, plain.weight * torch.tensor([1.0, 0.25]))


def test_a_sample_has_its_draws_in_any_batch(data: Any) -> None:
    """Two ranks with one sample each see what one rank with two sees."""
    items, stores = data
    read = reader(stores, i2v_prob=0.5, caption_dropout=0.5)
    for first in range(6):
        both = read(batch(items[0], items[3], first=first))
        alone = read(batch(items[3], first=first + 1))
        assert torch.equal(both.noise[1], alone.noise[0])
        assert both.sigma[1] == alone.sigma[0]
        assert both.first_frame[1] == alone.first_frame[0]
        assert both.condition.text_lengths[1] == alone.condition.text_lengths[0]
    assert not torch.equal(both.noise[0], both.noise[1])


def test_a_batch_gives_the_losses_of_its_samples(data: Any) -> None:
    """Different texts, with and without the first frame: padding and neighbours change nothing."""
    items, stores = data
    dit = tiny_dit()
    read = reader(stores, i2v_prob=0.5)
    first = next(n for n in range(50) if read(batch(items[0], items[3], first=n)).first_frame.tolist() == [0, 1])
    together = mean_square(read(batch(items[0], items[3], first=first)).error(dit))
    apart = [mean_square(read(batch(items[3 * i], first=first + i)).error(dit))[0] for i in range(2)]
    assert_close(together, torch.stack(apart), atol=2e-6, rtol=1e-5)


def test_caption_dropout_shows_the_empty_caption(data: Any) -> None:
    items, stores = data
    always = reader(stores, caption_dropout=1.0)(batch(items[4])).condition
    never = reader(stores)(batch(items[4])).condition
    assert torch.equal(always.text[0], stores.texts.read(EMPTY_CAPTION)["text"])
    assert torch.equal(never.text[0], stores.texts.read(items[4].caption)["text"])
    read = reader(stores, caption_dropout=0.25)
    dropped = [read(batch(items[4], first=n)).condition.text_lengths[0] == 2 for n in range(300)]
    assert 0.18 < sum(dropped) / 300 < 0.32


def test_of_several_texts_each_sample_draws_its_own(data: Any) -> None:
    """By name: the draw is the sha256 of seed, purpose and sample, modulo the number of texts."""
    items, stores = data
    keys = tuple(items[number].caption for number in (0, 2, 5))
    item = replace(items[4], variants=keys)
    lengths = [len(stores.texts.read(key)["text"]) for key in keys]
    found = [reader(stores)(batch(item, first=sample)).condition.text_lengths[0] for sample in range(60)]
    for sample, length in enumerate(found):
        word = hashlib.sha256(f"7/caption/{sample}".encode()).digest()[:8]
        assert length == lengths[(int.from_bytes(word, "big") >> 1) % 3]
    assert set(found) == set(lengths)
    both = reader(stores)(batch(items[4], item, first=9)).condition.text_lengths
    assert both == [len(stores.texts.read(items[4].caption)["text"]), found[10]], "in any batch"


def test_caption_dropout_comes_before_the_draw_of_a_text(data: Any) -> None:
    items, stores = data
    item = replace(items[4], variants=(items[0].caption, items[1].caption))
    condition = reader(stores, caption_dropout=1.0)(batch(item)).condition
    assert torch.equal(condition.text[0], stores.texts.read(EMPTY_CAPTION)["text"])


def test_a_meanflow_model_is_told_a_step_of_no_length(data: Any) -> None:
    items, stores = data
    config = replace(CONFIG, meanflow=True)
    torch.manual_seed(0)
    dit = DiT(config).eval()
    example = reader(stores)(batch(items[0]))
    seen: list[Tensor] = []
    dit.time_r_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    example.error(dit)
    assert torch.equal(seen[0], 1000 * example.sigma)
