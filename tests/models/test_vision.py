"""SigLIP states against transformers' own processor and model."""

import json
from math import prod

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from hv15.errors import UserError
from hv15.models import vision
from hv15.models.vision import load_image_encoder, siglip_pixels
from tests.models.encoder_files import check_golden, count_parameters, full_size, golden, write

pytestmark = pytest.mark.numeric


@pytest.fixture
def file(tmp_path):
    weights, _, config = golden("siglip_tiny")
    return write(tmp_path / "sigclip.safetensors", weights, config)


def test_golden(file):
    _, vectors, _ = golden("siglip_tiny")

    def states(dtype: torch.dtype) -> torch.Tensor:
        model = load_image_encoder(file, dtype=dtype).model
        return model(pixel_values=vectors["in/pixel_values"].to(dtype)).last_hidden_state

    check_golden(states(torch.float32), states(torch.float64), vectors["out/last_hidden_state"], spread=2.3e-6)


def test_preprocessing_as_transformers():
    """Bicubic to a square, without keeping the aspect, for larger and smaller images."""
    rng = np.random.default_rng(0)
    processor = SiglipImageProcessorPil(size={"height": 42, "width": 42})
    for height, width in ((64, 96), (20, 30), (42, 42)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = processor(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
        assert_close(siglip_pixels(image, 42), expected, atol=5e-6, rtol=0)


def test_states_as_transformers(tmp_path):
    """From uint8 images to states, for a model saved by transformers itself (a folder with its config.json)."""
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, patch_size=8, image_size=30
    )
    reference = SiglipVisionModel(config).eval()
    reference.save_pretrained(tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    pixels = SiglipImageProcessorPil(size={"height": 30, "width": 30})(list(images), return_tensors="pt")
    with torch.no_grad():
        expected = reference(**pixels).last_hidden_state
    encoder = load_image_encoder(tmp_path)
    states = encoder.encode(list(images))
    assert states.shape == (2, 9, 32)
    assert_close(states, expected, atol=5e-6, rtol=0)
    assert_close(encoder.encode([images[1]])[0], states[1], atol=5e-6, rtol=0)


def test_whole_siglip_folder(tmp_path):
    """Of a folder with text and vision halves only the vision tower is used."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision_config = {**sizes, "patch_size": 8, "image_size": 24}
    whole = SiglipModel(SiglipConfig(text_config={**sizes, "vocab_size": 10}, vision_config=vision_config)).eval()
    whole.save_pretrained(tmp_path)
    image = np.full((24, 24, 3), 99, np.uint8)
    with torch.no_grad():
        expected = whole.vision_model(siglip_pixels(image, 24)[None]).last_hidden_state
    assert_close(load_image_encoder(tmp_path).encode([image]), expected, atol=5e-6, rtol=0)


def test_full_size(monkeypatch):
    checkpoint = full_size("keys_sigclip_vision_patch14_384")
    monkeypatch.setattr(vision, "open_checkpoint", lambda path: checkpoint)
    encoder = load_image_encoder("sigclip.safetensors", device="meta")
    keys = checkpoint.keys()
    head = [key for key in keys if key.startswith("vision_model.head.")]
    assert encoder.config == vision.VisionConfig()
    assert count_parameters(encoder.model) == 428_225_600 - sum(prod(checkpoint.shape(key)) for key in head)
    assert set(checkpoint.read) == set(keys) - set(head)  # the head is not read
    assert len(checkpoint.read) == len(set(checkpoint.read))


def test_dtype(file):
    encoder = load_image_encoder(file, dtype=torch.float64)
    assert encoder.encode([np.zeros((8, 8, 3), np.uint8)]).dtype is torch.float64
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.model.training


def test_wrong_files(tmp_path):
    weights, _, config = golden("siglip_tiny")
    with pytest.raises(UserError, match="not a SigLIP image encoder: it looks like the HunyuanVideo"):
        load_image_encoder(write(tmp_path / "dit.safetensors", {"double_blocks.0.bias": torch.zeros(1)}))
    missing = {key: value for key, value in weights.items() if "layers.1.mlp.fc2" not in key}
    with pytest.raises(UserError, match=r"2 of \d+ tensors missing, first vision_model.encoder.layers.1.mlp.fc2"):
        load_image_encoder(write(tmp_path / "missing.safetensors", missing, config))
    more = weights | {"vision_model.extra": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 of \d+ tensors unexpected, first vision_model.extra"):
        load_image_encoder(write(tmp_path / "more.safetensors", more, config))
    flat = weights | {"vision_model.embeddings.patch_embedding.weight": torch.zeros(24)}
    with pytest.raises(UserError, match=r"patch_embedding\.weight has the shape \[24\], expected 4 dimensions"):
        load_image_encoder(write(tmp_path / "flat.safetensors", flat, config))
    with pytest.raises(UserError, match="do not fit"):  # width 24 has no heads of 72
        load_image_encoder(write(tmp_path / "bare.safetensors", weights))


def test_config_of_another_model_is_ignored(file, tmp_path):
    """ComfyUI keeps single files; a config.json in the same folder may belong to any other model."""
    _, _, config = golden("siglip_tiny")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "image_size": 7}))
    assert load_image_encoder(file).config.image_size == config["image_size"]
