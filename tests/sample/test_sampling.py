"""The denoising stage on files: what is loaded, what acts on the sample, and what the result records."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.lora import read_lora
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import load_dit
from hv15.models.dit_files import save_dit
from hv15.models.latents import SCALING_FACTOR
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.models.weights.swap import BlockSwap
from hv15.sample.denoise import denoise
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import LoRAFile
from hv15.sample.sampler import sample_latents
from hv15.sample.sampling import text_condition
from hv15.sample.schedule import sigmas
from tests.models.golden_dit import golden_dit
from tests.sample.conftest import made_from, make_lora, text_item

pytestmark = pytest.mark.numeric

LATENT_SHAPE = (4, 2, 2, 3)  # channels, then (5 frames, 32, 48 pixels) in latent cells


@pytest.fixture
def sample(models, tmp_path):
    """Run the stage with a changed spec; return the latents."""
    count = iter(range(99))

    def run(spec, text=None, *, negative=None, lora=None, condition=None, **options):
        output = tmp_path / f"{next(count)}.latents.safetensors"
        text, negative = text or text_item(1), negative or text_item(2, tokens=3)
        options = {"root": tmp_path, "made_from": made_from(spec), **options}
        sample_latents(spec, models["dit"], lora, text, negative, condition, output, **options)
        run.output = output
        return load_file(output)["latents"]

    return run


def test_it_is_the_loop_with_the_spec_and_stores_unscaled_latents(models, spec, sample):
    found = sample(spec)
    cond, uncond = (text_condition(item, None, glyphs=False) for item in (text_item(1), text_item(2, tokens=3)))
    noise = initial_noise((1, *LATENT_SHAPE), 123)
    scaled = denoise(load_dit(models["dit"]), noise, cond, uncond, sigmas(3, 5.0), 6.0)
    assert found.dtype == torch.float32
    assert found.shape == LATENT_SHAPE
    assert_close(found * SCALING_FACTOR, scaled[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"split_attn": True}, {"attn_mode": "sdpa"}, {"dtype": "float32"}],
    ids=lambda options: next(iter(options)),
)
def test_memory_options_of_the_section_change_no_bit(spec, sample, options):
    assert torch.equal(sample(spec, settings=SampleSettings(**options)), sample(spec))


@pytest.mark.slow
def test_blocks_wait_in_the_machines_memory_while_sampling(spec, sample, models, tmp_path, monkeypatch):
    """With a LoRA on top, and the loader leaves them on the host."""
    deep = golden_dit()
    deep.config = replace(deep.config, num_blocks=6)
    deep.double_blocks.extend(golden_dit().double_blocks)
    deep.double_blocks.extend(golden_dit().double_blocks)
    save_dit(deep, tmp_path / "deep.safetensors")
    monkeypatch.setitem(models, "dit", tmp_path / "deep.safetensors")
    lora = make_lora(tmp_path / "lora.safetensors", 1)
    made = []
    monkeypatch.setattr("hv15.models.ready.BlockSwap", lambda *args: made.append(BlockSwap(*args)) or made[-1])
    plain = sample(spec, lora=lora)
    assert not made
    assert torch.equal(sample(spec, lora=lora, settings=SampleSettings(blocks_to_swap=3)), plain)
    assert made[0].indices
    assert len(made[0].indices) == 5


def test_the_specs_number_format_is_used(spec, sample):
    coarse = sample(replace(spec, quantize="int8"), settings=SampleSettings(quantize="none"))
    exact = sample(spec, settings=SampleSettings(quantize="fp8"))
    assert torch.equal(exact, sample(spec))
    assert not torch.equal(coarse, exact)
    assert torch.nn.functional.cosine_similarity(coarse.flatten(), exact.flatten(), dim=0) > 0.98


def test_a_seed_repeats_bit_for_bit(spec, sample):
    first, again = sample(spec), sample(spec)
    assert torch.equal(first, again)
    assert not torch.equal(first, sample(replace(spec, seed=124)))


def test_equal_runs_write_equal_files(spec, sample):
    sample(spec)
    first = sample.output.read_bytes()
    sample(spec)
    assert sample.output.read_bytes() == first


def test_glyphs_act_on_the_prompt(spec, sample):
    with_glyphs = text_item(1, glyphs=4)
    without = {**with_glyphs, "glyphs": with_glyphs["glyphs"][:0]}
    assert not torch.allclose(sample(spec, with_glyphs), sample(spec, without), atol=1e-3)


def test_the_negative_prompt_never_has_glyphs(spec, sample):
    """As in the official program: quoted text in the negative prompt is not drawn, nor avoided."""
    quoted = text_item(2, glyphs=4)
    plain = {**quoted, "glyphs": quoted["glyphs"][:0]}
    assert torch.equal(sample(spec, negative=quoted), sample(spec, negative=plain))


def test_the_negative_prompt_acts_only_when_guidance_is_on(spec, sample):
    other = text_item(9, tokens=5)
    assert not torch.allclose(sample(spec), sample(spec, negative=other), atol=1e-3)
    unguided = replace(spec, guidance_scale=1.0)
    assert torch.equal(sample(unguided), sample(unguided, negative=other))


@pytest.mark.parametrize("tokens", [3, pytest.param(6, marks=pytest.mark.slow), 9])
def test_guidance_in_one_batch_equals_two_passes(spec, sample, tokens):
    item = text_item(1, tokens=tokens, glyphs=3)
    batched, apart = (sample(replace(spec, guidance_batch=way), item) for way in ("batched", "two_pass"))
    assert_close(batched, apart, atol=5e-6, rtol=1e-5)


def test_multiplier_zero_is_no_lora_bit_for_bit(spec, sample, tmp_path):
    lora = make_lora(tmp_path / "lora.safetensors", 1)
    plain = sample(spec)
    assert torch.equal(sample(replace(spec, lora_multiplier=0.0), lora=lora), plain)
    assert torch.equal(sample(replace(spec, lora_multiplier=None), lora=lora), plain)
    assert not torch.allclose(sample(spec, lora=lora), plain, atol=1e-2)


def test_two_loras_add(spec, sample, tmp_path):
    """The trained LoRA and one of the config act like a single LoRA that holds both in twice the rank."""
    first, second = (make_lora(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    both = replace(spec, lora_multiplier=0.7, loras=(LoRAFile("2.safetensors", model_fingerprint(second), -0.4),))
    (one, _), (two, _) = read_lora(first), read_lora(second)
    joint = {}
    for name in one:
        if name.endswith("lora_down.weight"):
            joint[name] = torch.cat([one[name], two[name]])
        elif name.endswith("lora_up.weight"):
            joint[name] = torch.cat([0.7 * one[name], -0.4 * two[name]], dim=1)
        else:
            joint[name] = torch.tensor(8.0)  # alpha = rank: strength 1
    save_file(joint, tmp_path / "joint.safetensors")
    found = sample(both, lora=first)
    assert_close(found, sample(spec, lora=tmp_path / "joint.safetensors"), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, sample(replace(both, loras=()), lora=first), atol=1e-2)


def test_the_result_tells_how_it_was_made(spec, sample, tmp_path):
    lora = make_lora(tmp_path / "lora.safetensors", 1)
    sample(replace(spec, lora_multiplier=0.5), lora=lora)
    with safe_open(sample.output, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["hv15.sample"])["prompt"] == spec.prompt
    assert json.loads(metadata["hv15.sample"])["seed"] == 123
    assert json.loads(metadata["hv15.made_from"]) == made_from(replace(spec, lora_multiplier=0.5))
    (applied,) = json.loads(metadata["hv15.loras"])
    assert applied == {"file": "lora.safetensors", "multiplier": 0.5, "fingerprint": model_fingerprint(lora)}


def test_a_lora_that_changed_since_the_plan_is_refused(spec, sample, tmp_path):
    make_lora(tmp_path / "style.safetensors", 1)
    with pytest.raises(UserError, match=r"style\.safetensors: changed"):
        sample(replace(spec, loras=(LoRAFile("style.safetensors", "0" * 64, 1.0),)))


def test_a_lora_of_another_model_is_named_with_its_file(spec, sample, tmp_path):
    lora = tmp_path / "other.safetensors"
    name = "lora_unet_double_blocks_50_img_attn_q"
    save_file(
        {
            f"{name}.lora_down.weight": torch.ones(2, 48),
            f"{name}.lora_up.weight": torch.ones(48, 2),
            f"{name}.alpha": torch.tensor(2.0),
        },
        lora,
    )
    with pytest.raises(UserError, match=r"other\.safetensors: .*not in this model"):
        sample(spec, lora=lora)


@pytest.mark.slow
def test_a_lycoris_file_acts(spec, sample, tmp_path):
    """LoKr: the difference of the weight is kron(w1, w2) * alpha/dim; sampled like the equal full difference."""
    name = "lora_unet_double_blocks_0_img_mlp_fc1"
    w1, w2 = torch.randn(4, 4), torch.randn(48, 12)  # -> 192 x 48
    lokr = {f"{name}.lokr_w1": w1, f"{name}.lokr_w2": w2, f"{name}.alpha": torch.tensor(1.0)}
    save_file(lokr, tmp_path / "lokr.safetensors")
    u, s, v = torch.linalg.svd(torch.kron(w1, w2), full_matrices=False)
    plain = {
        f"{name}.lora_up.weight": (u * s).contiguous(),
        f"{name}.lora_down.weight": v.contiguous(),
        f"{name}.alpha": torch.tensor(48.0),
    }
    save_file(plain, tmp_path / "plain.safetensors")
    found = sample(spec, lora=tmp_path / "lokr.safetensors")
    assert_close(found, sample(spec, lora=tmp_path / "plain.safetensors"), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found, sample(spec), atol=1e-2)


def test_wrong_multiplier_sign_is_seen(models, tmp_path):
    """+m and -m cancel: the strength is linear."""
    lora = make_lora(tmp_path / "lora.safetensors", 1)
    dit = load_dit(models["dit"])
    weight = {name: value.clone() for name, value in dit.state_dict().items()}
    apply_all(dit, [WeightedLoRA(lora, 0.9), WeightedLoRA(lora, -0.9)])
    cond = text_condition(text_item(1), None, glyphs=False)
    x, timestep = torch.randn(1, 9, 2, 2, 3), torch.tensor([700.0])
    with torch.no_grad():
        assert_close(dit(x, timestep, cond), load_dit(models["dit"])(x, timestep, cond), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, weight[name]) for name, value in dit.state_dict().items() if name in weight)
