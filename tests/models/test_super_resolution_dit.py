"""The transformer of super resolution: told from others by its header, and run as the base transformer is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from hv15.choices import PublishedLayout, WeightFormat
from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.models import DiT, DiTConfig, load_dit, save_dit
from hv15.models.dit_files import LinearWeights
from hv15.models.dit_sizes import read_config
from hv15.models.facts import describe
from hv15.models.latents import condition_channels, low_resolution_channels
from hv15.models.layouts import writing_recipes
from hv15.models.ready import load_ready
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.models.weights.quantised import QuantisedLinear
from tests.models import sparse_files
from tests.models.golden_dit import golden_dit, tensors
from tests.models.golden_sr import TINY_SR, golden_sr_dit, official_config, recorded_run, sr_weights
from tests.models.sparse_files import sparse_checkpoint
from tests.models.test_compile import Tracer
from tests.models.test_quantised_dit import BOUNDS
from tests.models.weights.test_swap import inputs
from tests.train.world import CONFIG

RUNS = ("sr_t2v_720p", "sr_i2v_1080p", "sr_t2v_no_meanflow")
LAYOUTS: tuple[PublishedLayout, ...] = get_args(PublishedLayout)
KINDS: tuple[WeightFormat, ...] = get_args(WeightFormat)
PARAMETERS = 8_326_675_744
TIME_R = 4_722_688


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is published: the official config.json and one file."""
    folder = tmp_path_factory.mktemp("transformer") / "720p_sr_distilled"
    folder.mkdir()
    save_file(sr_weights(), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(official_config())
    return folder


def first_velocity(dit: DiT, name: str = "sr_t2v_720p") -> Tensor:
    """The velocity of a recorded run's first step; `condition_first` has the channels after the noisy latents."""
    run, cond = recorded_run(name)
    x = torch.cat([run["mid/initial_noise"].float(), run["mid/condition_first"]], dim=1)
    ends = run["mid/timesteps_r"][:1] if dit.config.meanflow else None
    with torch.no_grad():
        return dit(x, run["mid/timesteps"][:1], cond, ends)


@pytest.mark.numeric
@pytest.mark.parametrize("name", RUNS)
def test_golden(name: str) -> None:
    dit = golden_sr_dit(meanflow=name != "sr_t2v_no_meanflow")
    assert_close(first_velocity(dit, name), tensors(name)["step0/velocity"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("prefix", "layout"),
    [
        pytest.param(prefix, layout, marks=[] if (prefix != "") == (layout == "comfyui") else [pytest.mark.slow])
        for prefix in ("", "model.diffusion_model.")
        for layout in LAYOUTS
    ],
)
def test_each_layout_gives_the_same_model(tmp_path: Path, layout: PublishedLayout, prefix: str) -> None:
    state = sr_weights()
    made = {prefix + key: recipe.make(state.__getitem__) for key, recipe in writing_recipes(layout, state).items()}
    (tmp_path / "config.json").write_text(official_config())
    save_file({key: value.contiguous() for key, value in made.items()}, tmp_path / "m.safetensors")
    dit = load_dit(tmp_path / "m.safetensors", super_resolution=True)
    assert dit.config == TINY_SR
    assert all(torch.equal(value, state[key]) for key, value in dit.state_dict().items())
    save_dit(dit, tmp_path / "again.safetensors", layout=layout)
    again = load_dit(tmp_path / "again.safetensors", super_resolution=True)
    assert again.config == TINY_SR
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "meanflow"),
    [
        ("diffusers", True),
        # ComfyUI's layout at this size is that of the test in fp8, too.
        *(
            pytest.param(layout, meanflow, marks=pytest.mark.slow)
            for layout, meanflow in (
                ("official", False),
                ("official", True),
                ("diffusers", False),
                ("comfyui", False),
                ("comfyui", True),
            )
        ),
    ],
)
def test_the_published_size(tmp_path: Path, layout: PublishedLayout, meanflow: bool) -> None:
    """Every key and shape, from a file of the real size that takes no disk."""
    shapes = sparse_files.super_resolution_dit(layout=layout, meanflow=meanflow)
    path = sparse_checkpoint(tmp_path / "sr.safetensors", shapes)
    dit = load_dit(path, device="meta", super_resolution=True)
    assert dit.config == DiTConfig(low_resolution=True, meanflow=meanflow)
    assert dit.config.in_channels == 98
    assert sum(parameter.numel() for parameter in dit.parameters()) == PARAMETERS + TIME_R * meanflow
    assert len(dit.state_dict()) == (1797 if meanflow else 1793)
    facts = describe(path)
    assert (facts.super_resolution, facts.meanflow, facts.layout) == (True, meanflow, layout)


def test_the_published_size_in_fp8(tmp_path: Path) -> None:
    """As ComfyUI's file is: with scales, and with the second time input in fp8, too."""
    shapes = sparse_files.super_resolution_dit("F16", layout="comfyui")
    for key, (_, shape) in list(shapes.items()):
        if key.endswith(".weight") and len(shape) == 2 and key.startswith(("double_blocks.", "time_r_in.")):
            shapes[key] = ("F8_E4M3", shape)
            shapes[key.replace(".weight", ".scale_weight")] = ("F32", ())
    shapes["scaled_fp8"] = ("F8_E4M3", (0,))
    path = sparse_checkpoint(tmp_path / "hunyuanvideo1.5_720p_sr_distilled_fp8_scaled.safetensors", shapes)
    dit = load_dit(path, device="meta", super_resolution=True)
    assert dit.config == DiTConfig(low_resolution=True, meanflow=True)
    assert sum(isinstance(layer, QuantisedLinear) for layer in dit.modules()) == 54 * 14
    assert dit.time_r_in is not None
    assert dit.time_r_in.mlp[0].weight.dtype == torch.float16
    facts = describe(path)
    assert (facts.quantisation, facts.super_resolution, facts.variant) == ("fp8_scaled", True, None)


def test_the_header_alone_tells_the_kind(tmp_path: Path, folder: Path) -> None:
    save_dit(golden_dit(), base := tmp_path / "base.safetensors")
    assert load_dit(folder, super_resolution=True).config == TINY_SR
    with pytest.raises(UserError, match="takes 98 input channels, but t2v and i2v take 65") as error:
        load_dit(folder)
    assert "super resolution, which models.sr_dit names" in error.value.hint
    with pytest.raises(UserError, match="takes 9 input channels, but super resolution takes 14") as error:
        load_dit(base, super_resolution=True)
    assert "720p_sr_distilled" in error.value.hint
    state = sr_weights()
    state["img_in.proj.weight"] = state["img_in.proj.weight"][:, :70].contiguous()
    save_file(state, tmp_path / "odd.safetensors")
    for wanted in (False, True, None):
        with pytest.raises(UserError, match="takes 70 input channels"):
            read_config(open_checkpoint(tmp_path / "odd.safetensors"), super_resolution=wanted)
    assert LinearWeights(folder).shapes["double_blocks.0.img_attn_q"] == (24, 24)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is wide enough for all number formats."""
    path = tmp_path_factory.mktemp("wide") / "sr.safetensors"
    sizes = replace(CONFIG, hidden_size=64, rope_dims=(8, 12, 12), num_blocks=4, low_resolution=True, meanflow=True)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        save_dit(DiT(sizes), path)
    return path


def velocity(dit: DiT) -> Tensor:
    x, timestep, cond = inputs(dit)
    with torch.no_grad():
        return dit(x, timestep, cond, timestep / 2)


def ready(path: Path, **settings: object) -> DiT:
    chosen = SampleSettings(**settings)  # type: ignore[arg-type]
    return load_ready(path, chosen, device="cpu", dtype=torch.float32, super_resolution=True)


@pytest.mark.numeric
@pytest.mark.parametrize(
    "kind", [kind if kind in ("fp8", "nf4") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_number_formats(wide: Path, kind: WeightFormat) -> None:
    dit = ready(wide, quantize=kind)
    assert sum(isinstance(layer, QuantisedLinear) for layer in dit.modules()) == 4 * 14
    wanted = velocity(ready(wide))
    assert 0 < (velocity(dit) - wanted).norm() / wanted.norm() < BOUNDS[kind]


@pytest.mark.parametrize("settings", [{"blocks_to_swap": 2}, {"split_attn": True}, {"attn_mode": "sdpa"}])
def test_options_of_memory_change_no_numbers(wide: Path, settings: dict[str, object]) -> None:
    assert_close(velocity(ready(wide, **settings)), velocity(ready(wide)), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_it_compiles(wide: Path) -> None:
    dit, tracer = ready(wide), Tracer()
    wanted = velocity(dit)
    dit.compile_blocks(backend=tracer, dynamic=False)  # type: ignore[arg-type]
    assert_close(velocity(dit), wanted, atol=1e-6, rtol=0)
    assert tracer.graphs
    torch._dynamo.reset()


def test_windows_change_no_numbers(wide: Path) -> None:
    """What bounds the memory of 247,163 tokens."""
    dit = ready(wide)
    wanted = velocity(dit)
    dit.most_tokens = 7
    assert_close(velocity(dit), wanted, atol=1e-6, rtol=0)


def test_channels_of_the_low_resolution_latents() -> None:
    noisy, low = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    channels = low_resolution_channels(low, noisy)
    assert torch.equal(channels[:, :4], low)
    assert bool((channels[:, 4] == 1).all())
    assert not low_resolution_channels(None, noisy).any()
    assert torch.cat([noisy, condition_channels(None, noisy), channels], 1).shape[1] == 3 * 4 + 2
