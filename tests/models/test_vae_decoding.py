"""Decoding part by part: the numbers of the whole decoding, in memory that does not grow with the frames."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from hv15.memory import PeakMemory
from hv15.models import vae as vae_module
from hv15.models import vae_decoding, vae_windows
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_decoding import Tiling, decoded_parts
from hv15.models.vae_windows import windows
from tests.models.golden_vae import GOLDEN, golden_vae
from tests.models.test_vae import LARGE, tiles

CASES = load_file(GOLDEN / "vae_cases.safetensors")


@pytest.fixture(scope="module")
def golden() -> VAE:
    return golden_vae().requires_grad_(False)


@pytest.fixture(scope="module")
def exact() -> VAE:
    """One residual block less in each level, in double precision."""
    torch.manual_seed(0)
    return (
        VAE(VAEConfig(block_out_channels=(8, 8, 8, 16, 32), latent_channels=4, layers_per_block=1))
        .requires_grad_(False)
        .double()
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One latent frame at a time, and one frame of pixels where tiles are joined."""
    monkeypatch.setitem(vae_module._CHUNK_BYTES, "cpu", 1)
    monkeypatch.setattr(vae_decoding, "_JOINED_BYTES", 1)


def parts_of(vae: VAE, latents: Tensor, tiling: Tiling, folder: Path) -> list[Tensor]:
    with torch.no_grad():
        return list(decoded_parts(vae, latents, tiling, folder))


@pytest.mark.numeric
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", [name for name in LARGE if "decode" in str(name)])
def test_golden_part_by_part(golden: VAE, name: str, tmp_path: Path) -> None:
    """The official program's numbers, whole and in tiles."""
    asked = tiles(name)
    tiling = Tiling(int(asked.get("tile_size", 0)), asked.get("overlap", 0.0))
    parts = parts_of(golden, CASES[f"{name}/in"], tiling, tmp_path)
    assert_close(torch.cat(parts, dim=2), CASES[f"{name}/out"], atol=3e-5, rtol=0)
    assert [part.shape[2] for part in parts] == [1] + [1 if asked else 4] * (len(parts) - 1)


@pytest.mark.parametrize(
    ("tile", "patch_conv"),
    [
        (0, False),
        *(
            pytest.param(*slow, marks=pytest.mark.slow)
            for slow in ((0, True), (32, False), (32, True), (64, False), (64, True))
        ),
    ],
)
def test_parts_are_those_of_the_whole_to_the_bit(
    golden: VAE, tile: int, patch_conv: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also official tiles, which overlap and are blended."""
    latents = torch.randn(1, 2, 3, 3, 5)
    golden.patch_conv = patch_conv
    expected = golden.decode(latents, tile_size=tile, overlap=0.5)
    monkeypatch.setattr(vae_decoding, "_JOINED_BYTES", 3 * expected[:, :, 0].nbytes)
    parts = parts_of(golden, latents, Tiling(tile, 0.5), tmp_path)
    golden.patch_conv = False
    assert torch.equal(torch.cat(parts, dim=2), expected)
    assert max(part.shape[2] for part in parts) < 9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("height", "width", "tile", "patch_conv"),
    [
        (1, 27, 8, True),
        pytest.param(26, 1, 8, False, marks=pytest.mark.slow),
        pytest.param(26, 1, 8, True, marks=pytest.mark.slow),
        pytest.param(1, 27, 8, False, marks=pytest.mark.slow),
    ],
)
def test_seamless_tiles_are_the_whole_picture(
    exact: VAE, height: int, width: int, tile: int, patch_conv: bool, tmp_path: Path
) -> None:
    """In double precision: sums of convolutions of another size may be in another order."""
    vae = deepcopy(exact)
    latents = torch.randn(1, 4, 2, height, width, dtype=torch.float64)
    expected = vae.decode(latents)
    vae.patch_conv = patch_conv
    found = torch.cat(parts_of(vae, latents, Tiling(16 * tile, seamless=True), tmp_path), dim=2)
    assert_close(found, expected, atol=1e-12, rtol=0)
    if not patch_conv:  # official tiles of this size do differ
        blended = torch.cat(parts_of(vae, latents, Tiling(16 * tile, 0.25), tmp_path), dim=2)
        assert (blended - expected).abs().max() > 1e-3


def test_seamless_tiles_of_the_published_depth(golden: VAE, tmp_path: Path) -> None:
    """Three residual blocks in each level of the decoder: 14 latents on each side."""
    vae = deepcopy(golden).double()
    latents = torch.randn(1, 2, 2, 34, 1, dtype=torch.float64)
    found = torch.cat(parts_of(vae, latents, Tiling(256, seamless=True), tmp_path), dim=2)
    assert_close(found, vae.decode(latents), atol=1e-12, rtol=0)
    assert next(windows(vae.decoder, 34, 1, 16)).narrow == (slice(0, 25), slice(0, 1))


def test_seamless_tiles_compute_no_more_than_they_need(
    exact: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one neighbour less at each edge, the numbers differ."""
    latents = torch.randn(1, 4, 1, 26, 1, dtype=torch.float64)
    wider = vae_windows._wider
    monkeypatch.setattr(vae_windows, "_wider", lambda ends, margin, size: wider(ends, max(margin - 1, 0), size))
    found = torch.cat(parts_of(exact, latents, Tiling(128, seamless=True), tmp_path), dim=2)
    assert (found - exact.decode(latents)).abs().max() > 1e-6


@pytest.mark.parametrize(("height", "width", "tile"), [(45, 80, 16), (30, 53, 8), (1, 1, 16), (17, 16, 16)])
def test_seamless_tiles_cover_the_picture_once(golden: VAE, height: int, width: int, tile: int) -> None:
    covered = torch.zeros(16 * height, 16 * width)
    for window in windows(golden.decoder, height, width, tile):
        rows, columns = window.pixels
        covered[rows, columns] += 1
        assert 0 < rows.stop - rows.start <= 16 * tile
        assert 0 < columns.stop - columns.start <= 16 * tile
    assert torch.equal(covered, torch.ones_like(covered))


def peak(vae: VAE, frames: int, tiling: Tiling, folder: Path) -> int:
    """Bytes at the peak, without the latents."""
    latents = torch.randn(1, 4, frames, 4, 6, dtype=torch.float64)
    with torch.no_grad(), PeakMemory("cpu") as memory:
        for part in decoded_parts(vae, latents, tiling, folder):
            del part
    assert memory.now == 0
    return memory.peak


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("tiling", "positions"),
    [
        (Tiling(), 4 * 6),
        (Tiling(64, 0.5), 4 * 4),
        (Tiling(64, seamless=True), 0),
    ],
    ids=["whole", "official tiles", "seamless tiles"],
)
def test_memory_does_not_grow_with_the_frames(exact: VAE, tiling: Tiling, positions: int, tmp_path: Path) -> None:
    """But for attention's key and value for each latent position, while its frames are decoded, which are a fiftieth of
    the pixels, and less in tiles."""
    few, many = (peak(exact, frames, tiling, tmp_path) for frames in (4, 6))  # the first ones are not preceded by two
    kept = 2 * 2 * 32 * positions * 8
    pixels = 2 * 4 * 3 * (4 * 6) * (16 * 16) * 8
    assert many - few == kept
    assert kept < 0.03 * pixels


def test_impossible_tiles(golden: VAE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        parts_of(golden, torch.zeros(1, 2, 1, 8, 8), Tiling(64, 0.3), tmp_path)
    assert len(parts_of(golden, torch.zeros(1, 2, 1, 8, 8), Tiling(64, 0.3, seamless=True), tmp_path)) == 1
