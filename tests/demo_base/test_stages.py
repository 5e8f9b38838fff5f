"""How the demo's base is made: what it is shown, how it begins; a stopped stage resumes and ends alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from demo_base import vae as vae_stages
from demo_base.basis import CellBasis, cells_of
from demo_base.clips import training_clips, training_items
from demo_base.closed_form import LeastSquares, fit_upsample, put, taps, through
from demo_base.dit import DitStage, new_dit, train_dit
from demo_base.vae import STAGES, train_vae_stage
from hv15.cache.batches import Stores
from hv15.data.captions import caption_key
from hv15.demo import world
from hv15.demo.models import GLYPHS, TEXT, VISION
from hv15.models.vae_blocks import CausalConv3d, Upsample


@pytest.fixture
def basis() -> CellBasis:
    generator = torch.Generator().manual_seed(0)
    sizes = {"first": 768, "later": 3072}
    return CellBasis(
        {f"{name}.mean": torch.randn(size, generator=generator) for name, size in sizes.items()}
        | {f"{name}.map": torch.randn(32, size, generator=generator) / size**0.5 for name, size in sizes.items()}
    )


def test_the_transformer_never_sees_held_out_scenes_or_the_concept() -> None:
    clips = training_clips(2)
    assert len({clip.key for clip in clips}) == len(clips) > 300
    assert not any(clip.scene.held_out for clip in clips)
    assert not any(word in clip.scene.caption for clip in clips for word in (world.CONCEPT, world.RING))
    assert {item.caption for item in training_items(clips, 8)} == {caption_key(clip.scene.caption) for clip in clips}


def test_a_basis_looks_at_each_cell_alone_and_at_the_first_frame_alone(basis: CellBasis) -> None:
    clip = torch.rand(2, 3, 9, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = basis.encode(clip)
    assert latents.shape == (2, 32, 3, 4, 3)
    torch.testing.assert_close(basis.encode(clip[:, :, :1]), latents[:, :, :1])
    cell = clip[1, :, 5:9, 32:48, 16:32]  # the last four frames, row 2, column 1
    flat = torch.stack([cell[c, t, p, q] for t in range(4) for p in range(16) for q in range(16) for c in range(3)])
    expected = (flat - basis.tensors["later.mean"]) @ basis.tensors["later.map"].T / 1.03682
    torch.testing.assert_close(latents[1, :, 2, 2, 1], expected, atol=1e-5, rtol=1e-4)
    assert [cells.shape[1] for _, cells in cells_of(clip)] == [1, 2]


def test_least_squares_finds_a_convolution_from_what_it_does() -> None:
    torch.manual_seed(0)
    conv, found = CausalConv3d(2, 3), CausalConv3d(2, 3)
    x = torch.randn(4, 2, 5, 6, 6) + 1
    with torch.no_grad():
        wanted = through(conv, x)
        rows = taps(x)
        torch.testing.assert_close(rows @ _flat(conv).T, wanted.movedim(1, -1), atol=1e-5, rtol=1e-4)
        squares = LeastSquares(2, 3)
        squares.add(rows, wanted.movedim(1, -1))
        put(found, squares.solve())
        torch.testing.assert_close(through(found, x), wanted, atol=5e-3, rtol=0)


@pytest.mark.parametrize("temporal", [False, True])
def test_an_upsampling_is_found_from_what_it_does(temporal: bool) -> None:
    """The channel orders of first frames and of later frames both have to be right."""
    torch.manual_seed(0)
    up, found = (Upsample(8, 4, temporal=temporal) for _ in range(2))
    x = torch.randn(6, 8, 3, 6, 6)
    with torch.no_grad():
        wanted = through(up, x)
        torch.testing.assert_close(fit_upsample(found, x, wanted), wanted, atol=5e-3, rtol=0)


def _flat(conv: CausalConv3d) -> Tensor:
    assert conv.conv.bias is not None
    return torch.cat([conv.conv.weight.flatten(1), conv.conv.bias[:, None]], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_stopped_half_of_the_vae_goes_on_to_the_same_weights(
    name: str, basis: CellBasis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae_stages, "fit_half", lambda *_: None)
    stage = replace(STAGES[name], steps=3, batch=1, crop=16, warmup=1, state_every=1)
    whole = load_file(train_vae_stage(stage, basis, tmp_path / "whole"))
    batch_of = vae_stages.batch_of

    def stop_at_second(stage: vae_stages.VaeStage, step: int, seed: int) -> Tensor:
        if step == 1:
            raise KeyboardInterrupt
        return batch_of(stage, step, seed)

    monkeypatch.setattr(vae_stages, "batch_of", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        train_vae_stage(stage, basis, tmp_path / "stopped")
    monkeypatch.setattr(vae_stages, "batch_of", batch_of)
    resumed = load_file(train_vae_stage(stage, basis, tmp_path / "stopped"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


class Made(dict[str, dict[str, Tensor]]):
    """A store in memory."""

    def has(self, key: str) -> bool:
        return key in self

    def read(self, key: str) -> dict[str, Tensor]:
        return self[key]


def test_the_transformer_learns_with_all_its_weights(tmp_path: Path) -> None:
    clips = training_clips(1)[:8]
    draw = torch.Generator().manual_seed(0)
    latents, texts = Made(), Made()
    for clip in clips:
        latents[clip.key] = {
            "latents": torch.randn(32, 3, 4, 4, generator=draw),
            "vision": torch.randn(25, VISION["hidden_size"], generator=draw),
        }
    for text in {"", *(clip.scene.caption for clip in clips)}:
        states = torch.randn(5, TEXT["hidden_size"], generator=draw)
        texts[caption_key(text)] = {"text": states, "glyphs": torch.zeros(0, GLYPHS["d_model"])}
    stage = DitStage(steps=4, batch=4, warmup=1, i2v_prob=0.5)
    path = train_dit(stage, training_items(clips, 4), Stores(latents, texts), tmp_path, settings="x")
    before, after = new_dit(0).state_dict(), load_file(path)
    # ByT5's part is shown nothing: no caption of the world quotes a word
    still = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert all(key.startswith("byt5_in.") for key in still), sorted(still)

    again = replace(stage, name="again", seed=1, steps=1, rate=1e-9)
    path = train_dit(again, training_items(clips, 4), Stores(latents, texts), tmp_path, settings="x", start=path)
    for key, value in load_file(path).items():
        torch.testing.assert_close(value, after[key], atol=1e-6, rtol=0)
