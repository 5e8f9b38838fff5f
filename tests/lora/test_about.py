"""What a copy of a LoRA tells: fields that other tools read, hashes, and nothing private unless it is asked for."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from hv15.digest import digest
from hv15.errors import UserError
from hv15.lora import convert_file, read_lora, save_lora
from hv15.lora.about import About
from hv15.lora.kinds import BASE_MAGNITUDE
from tests.lora.samples import kohya, random_lora

LAYER = "double_blocks.0.img_mlp.fc1"
PRIVATE = "/home/someone/clips"
SPEC = {"dataset": {"digest": "d", "folder": PRIVATE}}
OWN = {
    "ss_network_dim": "4",
    "ss_datasets": json.dumps([PRIVATE]),
    "ss_sd_model_name": "mine.safetensors",
    "modelspec.architecture": "hunyuan-video-1.5/lora",
    "hv15.config": json.dumps({"sample": {"prompts": ["my secret prompt"]}, "datasets": [PRIVATE]}),
    "hv15.made_from": json.dumps(SPEC),
    "hv15.steps": "20",
}
ABOUT = About(
    name="my-style",
    title="My style",
    author="me",
    description="Draws like me.",
    tags=("style", "ink"),
    trigger_words=("mystyle", "ink drawing"),
    license="CC-BY-4.0",
)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    save_lora(tmp_path / "lora.safetensors", random_lora({LAYER: (6, 5)}), OWN)
    return tmp_path / "lora.safetensors"


def copied(lora: Path, about: About) -> tuple[Path, dict[str, str]]:
    target = lora.with_name("copy.safetensors")
    convert_file(lora, target, "comfyui", about=about)
    with safe_open(target, "pt") as file:
        return target, file.metadata()


@pytest.mark.parametrize("kept", ["full", "public"])
def test_what_people_fill_in(lora: Path, kept: str) -> None:
    _, told = copied(lora, replace(ABOUT, kept=kept))
    assert told["modelspec.title"] == "My style"
    assert told["modelspec.author"] == "me"
    assert told["modelspec.description"] == "Draws like me."
    assert told["modelspec.tags"] == "style, ink"
    assert told["modelspec.trigger_phrase"] == "mystyle, ink drawing"
    assert told["modelspec.license"] == "CC-BY-4.0"
    assert told["ss_output_name"] == "my-style"
    assert told["ss_network_dim"] == "4"
    assert ("hv15.config" in told) == (kept == "full")


@pytest.mark.parametrize("kept", ["public", "none"])
def test_nothing_private(lora: Path, kept: str) -> None:
    target, told = copied(lora, replace(ABOUT, kept=kept))
    written = target.read_bytes()
    for text in (PRIVATE, "secret prompt", "mine.safetensors"):
        assert text.encode() not in written
    assert told["hv15.convert.trained"] == digest(SPEC)  # by which the workflow knows it
    assert ("modelspec.title" in told) == (kept == "public")
    assert ("ss_network_dim" in told) == (kept == "public")


def test_a_dora_stays_one(tmp_path: Path) -> None:
    lora = random_lora({LAYER: (6, 5)}) | {f"{kohya(LAYER)}.{BASE_MAGNITUDE}": torch.ones(6, 1)}
    save_lora(tmp_path / "lora.safetensors", lora, OWN)
    target, _ = copied(tmp_path / "lora.safetensors", replace(ABOUT, kept="none"))
    assert any(key.endswith(BASE_MAGNITUDE) for key in read_lora(target)[0])


def test_hashes_are_those_of_the_data(lora: Path) -> None:
    """As kohya's programs compute them: of everything behind the header."""
    target, told = copied(lora, ABOUT)
    data = target.read_bytes()
    expected = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert told["sshs_model_hash"] == expected
    assert told["modelspec.hash_sha256"] == f"0x{expected}"


def test_a_preview_is_a_small_jpeg(lora: Path) -> None:
    Image.new("RGB", (2000, 1000), "red").save(lora.with_name("preview.png"))
    _, told = copied(lora, replace(ABOUT, preview=lora.with_name("preview.png")))
    kind, _, text = told["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.size == (512, 256)
    with pytest.raises(UserError, match="cannot be read as an image"):
        copied(lora, replace(ABOUT, preview=lora))


def test_everything_that_is_told_is_in_the_digest(lora: Path) -> None:
    preview = lora.with_name("preview.png")
    changed = [
        replace(ABOUT, **{name: value})
        for name, value in {
            "name": "x", "title": "x", "author": "x", "description": "x", "tags": ("x",), "trigger_words": ("x",),
            "license": "x", "preview": preview, "kept": "none",
        }.items()
    ]  # fmt: skip
    digests = {each.digest() for each in (ABOUT, *changed)}
    assert len(digests) == len(changed) + 1
    Image.new("RGB", (8, 8)).save(preview)
    assert replace(ABOUT, preview=preview).digest() not in digests


@pytest.mark.parametrize("told", ["{", '{"rate": NaN}', '{"name": "\\ud800"}'])
def test_a_training_that_cannot_be_read_is_none(lora: Path, told: str) -> None:
    save_lora(lora, random_lora({LAYER: (6, 5)}), {**OWN, "hv15.made_from": told})
    assert "hv15.convert.trained" not in copied(lora, ABOUT)[1]
