"""Every published kind of file builds the real model in every number format: on the meta device, sizes to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.models import DiTConfig, load_dit
from hv15.models.weights.quantised import QuantisedLinear
from tests.models import sparse_files
from tests.models.loading_probe import probe
from tests.models.sparse_files import Shapes, sized_dit, sparse_checkpoint

PARAMETERS = 8_326_608_160
TIME_R = 4_722_688
QUANTISED = 54 * 2 * 2048 * (6 * 2048 + 4 * 2048 + 2 * 8192)  # modulation, attention, MLP; of both streams
BYTES: dict[WeightFormat | None, float] = {None: 2, "fp8": 1 + 4 / 64, "nf4": 0.5 + 4 / 64}
SCALES = 54 * 2 * 4 * (6 * 2048 + 4 * 2048 + 8192 + 2048)  # one fp32 number for each row

FILES: dict[str, Callable[[], Shapes]] = {
    "official": sparse_files.official_dit,
    "step-distilled": lambda: sparse_files.official_dit(meanflow=True),
    "comfyui": lambda: sparse_files.comfyui_dit(prefix="model.diffusion_model."),
    "comfyui fp8": sparse_files.comfyui_fp8_dit,
    "comfyui fp8, newer": lambda: sparse_files.comfyui_fp8_dit("none"),
    "diffusers": sparse_files.diffusers_dit,
}


def numbers(dit: torch.nn.Module) -> int:
    """Weights and biases, as if nothing were quantised."""
    count = sum(parameter.numel() for parameter in dit.parameters())
    for layer in dit.modules():
        if isinstance(layer, QuantisedLinear):
            count += layer.in_features * layer.out_features - layer.weight.numel()
    return count


def size(dit: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*dit.parameters(), *dit.buffers()))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("official", (None,)),
        ("comfyui fp8", ("fp8",)),
        ("diffusers", ("nf4",)),
        # Quantising does not depend on the layout, so two files are tried with all number formats.
        pytest.param("official", ("fp8", "int8", "nf4"), marks=pytest.mark.slow),
        pytest.param("step-distilled", ("nf4",), marks=pytest.mark.slow),
        pytest.param("comfyui", ("int8",), marks=pytest.mark.slow),
        pytest.param("comfyui", ("nf4",), marks=pytest.mark.slow),
        pytest.param("comfyui fp8", (None, "int8", "nf4"), marks=pytest.mark.slow),
        pytest.param("comfyui fp8, newer", ("nf4",), marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_file_in_every_number_format(tmp_path: Path, name: str, kinds: tuple[WeightFormat | None, ...]):
    path = sparse_checkpoint(tmp_path / "model.safetensors", FILES[name]())
    meanflow = name == "step-distilled"
    wanted = PARAMETERS + TIME_R * meanflow
    for kind in kinds:
        dit = load_dit(path, device="meta", dtype=torch.bfloat16, quantize=kind)
        assert dit.config == DiTConfig(meanflow=meanflow)
        assert numbers(dit) == wanted
        rest = 2 * (wanted - QUANTISED)
        if kind == "fp8" and "fp8" in name:  # as the file has it: one scale for a weight
            assert size(dit) == rest + QUANTISED + 4 * 54 * 14
        elif kind == "int8":
            assert size(dit) == rest + QUANTISED + SCALES
        else:
            assert size(dit) == rest + QUANTISED * BYTES[kind]


@pytest.mark.slow
def test_the_files_own_number_formats(tmp_path: Path):
    shards = sparse_files.diffusers_folder(tmp_path / "transformer")
    assert size(load_dit(shards, device="meta")) == 2 * PARAMETERS


@pytest.mark.slow
def test_other_number_formats_of_files(tmp_path: Path):
    fp8 = sparse_checkpoint(tmp_path / "fp8.safetensors", sparse_files.comfyui_fp8_dit(rest="BF16"))
    kept = load_dit(fp8, device="meta")
    assert kept.dtype == torch.bfloat16
    assert size(kept) == 2 * (PARAMETERS - QUANTISED) + QUANTISED + 4 * 54 * 14
    fp32 = sparse_checkpoint(tmp_path / "fp32.safetensors", sparse_files.official_dit("F32"))
    assert size(load_dit(fp32, device="meta")) == 4 * PARAMETERS
    shards = sparse_files.diffusers_folder(tmp_path / "transformer")
    waiting = load_dit(shards, device="meta", quantize="fp8", host_blocks=40)
    assert {tensor.device.type for tensor in waiting.parameters()} == {"meta"}


@pytest.mark.parametrize(("kind", "words"), [("nf4", "absmax"), pytest.param("int8", "SCB", marks=pytest.mark.slow)])
def test_files_that_bitsandbytes_quantised_are_refused(tmp_path: Path, kind: str, words: str):
    path = sparse_checkpoint(tmp_path / "bnb.safetensors", sparse_files.bitsandbytes_dit(kind))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words) as error:
        load_dit(path, device="meta")
    assert "use the bf16 or fp8-scaled file of the same model" in error.value.hint


def test_super_resolution_is_refused(tmp_path: Path):
    path = sparse_checkpoint(tmp_path / "sr.safetensors", sparse_files.super_resolution_dit())
    with pytest.raises(UserError, match="takes 98 input channels, but t2v and i2v take 65"):
        load_dit(path, device="meta")


@pytest.mark.parametrize(("stored", "quantize"), [("F32", None), ("BF16", "fp8")])
def test_peak_of_loading(tmp_path: Path, stored: str, quantize: str | None):
    """In its own process: the peak is at most a tenth above the model, and every byte of the file is read once.

    Above the model there are one tensor and what encodes it, 10 to 25 MiB here: it depends on where blocks lie in the
    heap, which differs from process to process.
    """
    path = sparse_checkpoint(tmp_path / "dit.safetensors", sized_dit(1152, 6, stored))
    found = probe("dit", path, dtype="bfloat16", quantize=quantize)
    assert found["final"] > 400e6
    assert found["peak"] < 1.1 * found["final"]
    assert found["read"] == pytest.approx(path.stat().st_size, rel=0.01)
