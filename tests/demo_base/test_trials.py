"""The sampler's batches are the samples that the pipeline makes one by one, and they are judged as what they show."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo_base.trials import MeasuredSample, SamplingOptions, ToySampler, contrast, share, spread, unseen_concepts
from hv15.demo import world
from hv15.demo.models import make_demo_models
from hv15.models import load_dit
from hv15.models.latents import scale, unscale
from hv15.sample.condition import encode_frame
from hv15.sample.decode import to_frames
from hv15.sample.prompts import SampleSpec
from hv15.sample.sampling import run

SCENES = spread(world.scenes(), 2)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> ToySampler:
    torch.set_num_threads(1)
    return ToySampler(make_demo_models(tmp_path_factory.mktemp("models")), size=(5, 32, 32))


def spec(scene: world.Scene, task: str, seed: int) -> SampleSpec:
    return SampleSpec.from_json(
        {
            **{"name": "one", "task": task, "prompt": scene.caption, "negative_prompt": "", "height": 32, "width": 32},
            **{"frames": 5, "steps": 3, "guidance_scale": 4.0, "flow_shift": 3.0, "seed": seed, "fps": 24.0},
            **{"output_type": "video", "dtype": "float32", "quantize": "none", "vae_sample_size": 0},
            **{"vae_tile_overlap": 0.25, "variant": f"480p_{task}", "lora_multiplier": None, "image": None},
            **{"loras": [], "models": {}},
        }
    )


@pytest.mark.parametrize("task", [pytest.param("t2v", marks=pytest.mark.slow), "i2v"])
def test_a_batch_is_what_the_pipeline_samples_one_by_one(
    sampler: ToySampler, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_base.trials.measure", lambda frames: None)  # these are no clips of the world
    dit = load_dit(sampler.paths["dit"], dtype=torch.float32)
    images = [world.render(scene, 0)[0, :32, :32] for scene in SCENES] if task == "i2v" else None
    together = sampler.sample(dit, SCENES, SamplingOptions(steps=3, guidance=4.0, seed=40), images)
    for number, (scene, shown) in enumerate(zip(SCENES, together, strict=True)):
        first = vision = None
        if images is not None:
            first = encode_frame(sampler.vae, images[number])
            vision = sampler.image_encoder.encode([images[number]])[0].float()
        text, negative = sampler.text(scene.caption), sampler.text("")
        latents = run(dit, spec(scene, task, 40 + number), text, negative, first, vision, device=torch.device("cpu"))
        alone = to_frames(sampler.vae.decode(unscale(latents)))
        assert alone.std() > 10
        assert np.abs(alone.astype(int) - shown.frames).max() <= 1


class Oracle:
    """A transformer that knows the clips: its velocity leads from any point straight to their latents."""

    def __init__(self, sampler: ToySampler, clips: list[np.ndarray]) -> None:
        self.config = SimpleNamespace(latent_channels=32, meanflow=False)
        pixels = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        with torch.no_grad():
            self.latents = scale(sampler.vae.encode(pixels))

    def prepare(self, cond: object) -> object:
        return cond

    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, cond: object) -> torch.Tensor:
        target = self.latents.repeat(len(x) // len(self.latents), 1, 1, 1, 1)
        return (x[:, :32] - target) / (timestep.view(-1, 1, 1, 1, 1) / 1000)


def test_an_oracle_is_followed_to_its_latents(sampler: ToySampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo_base.trials.measure", lambda frames: None)
    clips = [world.render(scene, 0, frames=5)[:, :32, :32] for scene in SCENES]
    oracle = Oracle(sampler, clips)
    shown = sampler.sample(oracle, SCENES)  # type: ignore[arg-type]
    for number, each in enumerate(shown):
        wanted = to_frames(sampler.vae.decode(unscale(oracle.latents[number : number + 1])))
        assert np.abs(each.frames.astype(int) - wanted).max() <= 1


def test_what_is_shown_is_judged_against_what_was_asked() -> None:
    from hv15.demo.measure import measure

    scenes = [*SCENES, *unseen_concepts()[:2]]
    rendered = [MeasuredSample(scene, clip, measure(clip)) for scene in scenes for clip in [world.render(scene, 5)]]
    assert share(rendered, lambda each: each.is_right and each.moves_right) == 1
    assert share(rendered, lambda each: each.has_concept) == 0.5
    assert contrast(rendered) == pytest.approx(1, abs=0.005)
    glaring = [
        MeasuredSample(each.scene, clip, measure(clip))
        for each in rendered
        for clip in [np.clip(127.5 + 1.037 * (each.frames - 127.5), 0, 255).astype(np.uint8)]
    ]
    assert contrast(glaring) == pytest.approx(1.037, abs=0.012)  # white is full at 255
    swapped = MeasuredSample(scenes[0], rendered[1].frames, rendered[1].found)
    assert not swapped.is_right


def test_chosen_scenes_are_spread_and_unseen() -> None:
    chosen = spread(world.scenes(), 24)
    assert len(set(chosen)) == 24
    for part in ("shape", "colour", "motion", "background"):
        assert len({getattr(scene, part) for scene in chosen}) == len({getattr(s, part) for s in world.scenes()})
    assert len(unseen_concepts()) == 54 - 12
    assert {scene.motion for scene in unseen_concepts()} == {world.CONCEPT}
