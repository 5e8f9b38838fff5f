"""What the headers of published files tell; the files are of the real size and take no disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.models.facts import choose_variant, describe
from hv15.models.variants import FoundVariant
from tests.models import sparse_files
from tests.models.sparse_files import Shapes, sparse_checkpoint

PARAMETERS = 8_326_608_160
MEANFLOW = PARAMETERS + 4_722_688


def converted(shapes: Shapes, prefix: str) -> Shapes:
    return {prefix + key: entry for key, entry in shapes.items()}


# A file of each kind: layout, dtype, quantisation, mean flow, parameters.
KINDS: dict[str, tuple[Callable[[], Shapes], tuple[str | None, str, str, bool, int]]] = {
    "official": (sparse_files.official_dit, ("official", "bfloat16", "none", False, PARAMETERS)),
    "official in fp32": (lambda: sparse_files.official_dit("F32"), ("official", "float32", "none", False, PARAMETERS)),
    "step-distilled": (
        lambda: sparse_files.official_dit(meanflow=True),
        ("official", "bfloat16", "none", True, MEANFLOW),
    ),
    "comfyui": (sparse_files.comfyui_dit, ("comfyui", "float16", "none", False, PARAMETERS)),
    "comfyui with its prefix": (
        lambda: sparse_files.comfyui_dit("BF16", prefix="model.diffusion_model."),
        ("comfyui", "bfloat16", "none", False, PARAMETERS),
    ),
    "comfyui fp8": (
        lambda: sparse_files.comfyui_fp8_dit("none"),
        ("comfyui", "float8_e4m3fn", "fp8", False, PARAMETERS),
    ),
    "comfyui fp8 scaled": (
        sparse_files.comfyui_fp8_dit,
        ("comfyui", "float8_e4m3fn", "fp8_scaled", False, PARAMETERS),
    ),
    "comfyui fp8 scaled, newer": (
        lambda: sparse_files.comfyui_fp8_dit("weight_scale", rest="BF16"),
        ("comfyui", "float8_e4m3fn", "fp8_scaled", False, PARAMETERS),
    ),
    "diffusers": (sparse_files.diffusers_dit, ("diffusers", "bfloat16", "none", False, PARAMETERS)),
    "diffusers nf4": (sparse_files.bitsandbytes_dit, ("diffusers", "uint8", "nf4", False, PARAMETERS)),
    "diffusers int8": (
        lambda: sparse_files.bitsandbytes_dit("int8"),
        ("diffusers", "int8", "int8", False, PARAMETERS),
    ),
    "qwen": (sparse_files.qwen, (None, "bfloat16", "none", False, 8_292_166_656)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_published_kind(tmp_path: Path, kind: str):
    shapes, wanted = KINDS[kind]
    path = sparse_checkpoint(tmp_path / "model.safetensors", shapes())
    facts = describe(path)
    assert (facts.layout, facts.dtype, facts.quantisation, facts.meanflow, facts.parameters) == wanted
    assert facts.size == path.stat().st_size
    assert facts.files == 1
    assert not facts.super_resolution
    assert (facts.layout is not None) == (kind != "qwen")
    assert f"{facts.parameters:,} parameters" in str(facts)


def test_a_folder_of_shards(tmp_path: Path):
    facts = describe(sparse_files.diffusers_folder(tmp_path / "transformer", target_size=960, task_type="i2v"))
    assert (facts.layout, facts.files, facts.parameters) == ("diffusers", 4, PARAMETERS)
    assert facts.size > 2 * PARAMETERS
    assert facts.variant == facts.detected == FoundVariant("720p_i2v", "config.json")
    assert str(facts) == f"diffusers layout, bfloat16, {PARAMETERS:,} parameters, {facts.size / 2**30:.2f} GiB"


def test_super_resolution_is_no_variant_of_t2v_or_i2v(tmp_path: Path):
    path = sparse_checkpoint(tmp_path / "720p_t2v_x.safetensors", sparse_files.super_resolution_dit())
    facts = describe(path, task="t2v")
    assert facts.super_resolution
    assert facts.variant is None
    assert "super-resolution" in str(facts)


def test_other_models_are_named(tmp_path: Path):
    vae = sparse_checkpoint(tmp_path / "vae.safetensors", {"decoder.conv_in.conv.weight": ("F16", (3, 3))})
    facts = describe(vae, task="t2v")
    assert (facts.model, facts.layout, facts.variant) == ("a VAE", None, None)
    assert str(facts).startswith("a VAE, float16, 9 parameters")
    packed = sparse_checkpoint(tmp_path / "x.safetensors", {"blocks.0.qweight": ("U8", (4, 4))})
    assert describe(packed).quantisation == "other"
    with pytest.raises(UserError, match="no such file"):
        describe(tmp_path / "none.safetensors")


def test_which_of_the_list_it_is(tmp_path: Path):
    """A setting comes first, then config.json or the path, then the tensors, then a guess from the task."""
    plain = sparse_checkpoint(tmp_path / "model.safetensors", sparse_files.official_dit())
    assert describe(plain).variant is None
    assert describe(plain, task="i2v").variant == FoundVariant("480p_i2v", "default")
    configured = FoundVariant("720p_t2v_distilled", "models.variant")
    named = sparse_checkpoint(tmp_path / "hunyuanvideo1.5_720p_i2v_bf16.safetensors", sparse_files.official_dit())
    detected = FoundVariant("720p_i2v", "path", named.name)
    assert describe(named, task="t2v").variant == detected
    facts = describe(named, configured=configured, task="t2v")
    assert (facts.variant, facts.detected) == (configured, detected)
    meanflow = sparse_checkpoint(tmp_path / "other.safetensors", sparse_files.official_dit(meanflow=True))
    assert describe(meanflow, task="t2v").variant == FoundVariant("480p_i2v_step_distilled", "time_r_in")
    assert choose_variant(None, None, None, meanflow=False) is None


def test_the_sentence_says_what_tells():
    sources = ("config.json", "path", "models.variant", "time_r_in", "default", "demo")
    texts = {str(FoundVariant("480p_t2v", source, "x_480p_t2v")) for source in sources}
    assert len(texts) == len(sources)
    assert "480p_t2v (from its path: x_480p_t2v)" in texts


def test_no_torch_is_loaded(tmp_path: Path):
    path = sparse_checkpoint(tmp_path / "model.safetensors", sparse_files.comfyui_fp8_dit("weight_scale"))
    code = (
        "import sys, pathlib, hv15.models.advice, hv15.train.advice, hv15.sample.advice, hv15.lora.advice\n"
        "from hv15.models.facts import describe\n"
        "assert describe(pathlib.Path(sys.argv[1])).quantisation == 'fp8_scaled'\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_a_damaged_config_json_is_no_error_here(tmp_path: Path):
    folder = sparse_files.diffusers_folder(tmp_path / "transformer")
    (folder / "config.json").write_text(json.dumps([1]))
    assert describe(folder).variant is None
