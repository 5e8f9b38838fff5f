"""ByT5 states against transformers' own encoder, tokenizer included, and the golden vectors."""

import pytest
import torch
from torch.testing import assert_close
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel, T5ForConditionalGeneration

from hv15.errors import UserError
from hv15.models import glyphs
from hv15.models.glyphs import glyph_width, load_glyph_encoder
from tests.models.encoder_files import check_golden, count_parameters, full_size, golden, write

pytestmark = pytest.mark.numeric

PROMPTS = ['a sign "OPEN 24h"', "no quotes", 'two notes “再见” and "a longer text, with words"', '"x"']
FORMATTED = ['Text "OPEN 24h". ', None, 'Text "再见". Text "a longer text, with words". ', 'Text "x". ']
SIZES = {
    "vocab_size": 300, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(**SIZES)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.4)
    return model


@pytest.fixture(scope="module")
def expected(reference):
    states = []
    for text in FORMATTED:
        if text is None:
            states.append(torch.empty(0, 24))
            continue
        ids = ByT5Tokenizer()(text, max_length=256, truncation=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states.append(reference(input_ids=ids).last_hidden_state[0])
    return states


@pytest.fixture
def file(reference, tmp_path):
    weights = reference.state_dict()
    del weights["encoder.embed_tokens.weight"]  # the same tensor as shared.weight
    return write(tmp_path / "byt5.safetensors", weights)


def test_states_as_transformers(file, expected):
    states = load_glyph_encoder(file).encode(PROMPTS, batch_size=3)
    for state, wanted in zip(states, expected, strict=True):
        assert state.shape == wanted.shape
        assert_close(state, wanted, atol=1e-5, rtol=1e-5)
    assert states[1].shape == (0, 24)
    assert glyph_width(file) == 24


def test_batches_equal_single_prompts(file):
    encoder = load_glyph_encoder(file, dtype=torch.float64)
    for prompt, state in zip(PROMPTS, encoder.encode(PROMPTS), strict=True):
        assert_close(encoder.encode([prompt])[0], state, atol=1e-12, rtol=0)


def test_folders(reference, expected, tmp_path):
    """An encoder saved by transformers, and a whole T5 of which only the encoder is used."""
    whole = T5ForConditionalGeneration(T5Config(**SIZES))
    whole.load_state_dict(reference.state_dict(), strict=False)
    for name, model in (("encoder", reference), ("whole", whole)):
        model.save_pretrained(tmp_path / name)
        (state,) = load_glyph_encoder(tmp_path / name).encode(PROMPTS[:1])
        assert_close(state, expected[0], atol=1e-5, rtol=1e-5)


def test_embedding_under_two_names(file, reference, expected, tmp_path):
    both = {key: value.clone() for key, value in reference.state_dict().items()}
    one = {key: value for key, value in both.items() if key != "shared.weight"}
    assert {"shared.weight", "encoder.embed_tokens.weight"} <= both.keys()
    for name, weights in (("both", both), ("one", one)):
        encoder = load_glyph_encoder(write(tmp_path / f"{name}.safetensors", weights))
        assert_close(encoder.encode(PROMPTS[:1])[0], expected[0], atol=1e-5, rtol=1e-5)


def test_golden(tmp_path):
    weights, vectors, _ = golden("byt5_tiny")
    file, mask = write(tmp_path / "byt5.safetensors", weights), vectors["in/attention_mask"].bool()

    def states(dtype: torch.dtype) -> torch.Tensor:
        model = load_glyph_encoder(file, dtype=dtype).model
        with torch.no_grad():
            return model(input_ids=vectors["in/input_ids"], attention_mask=mask).last_hidden_state[mask]

    check_golden(states(torch.float32), states(torch.float64), vectors["out"][mask], spread=2.6e-5)


def test_full_size(monkeypatch):
    checkpoint = full_size("keys_byt5_glyphxl")
    monkeypatch.setattr(glyphs, "open_checkpoint", lambda path: checkpoint)
    encoder = load_glyph_encoder("byt5.safetensors", device="meta")
    assert count_parameters(encoder.model) == 219_314_944
    assert sorted(checkpoint.read) == sorted(checkpoint.keys())
    config = encoder.model.config
    assert (config.num_layers, config.num_heads, config.d_kv, config.d_ff) == (12, 6, 64, 3584)
    assert (config.dense_act_fn, config.relative_attention_max_distance) == ("gelu_new", 128)


def test_float32_from_a_half_precision_file(reference, tmp_path):
    weights = {key: value.half() for key, value in reference.state_dict().items() if "embed_tokens" not in key}
    path = write(tmp_path / "fp16.safetensors", weights)
    assert load_glyph_encoder(path).encode(PROMPTS)[0].dtype is torch.float32
    assert load_glyph_encoder(path, dtype=torch.bfloat16).encode(PROMPTS)[1].dtype is torch.bfloat16


def test_wrong_files(reference, tmp_path):
    with pytest.raises(UserError, match="not a ByT5 encoder: it looks like a VAE"):
        load_glyph_encoder(write(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": torch.zeros(1)}))
    weights = {key: value for key, value in reference.state_dict().items() if "embed_tokens" not in key}
    missing = {key: value for key, value in weights.items() if "block.1.layer.1.DenseReluDense.wo" not in key}
    with pytest.raises(
        UserError, match=r"1 of 30 tensors missing, first encoder\.block\.1\.layer\.1\.DenseReluDense\.wo"
    ):
        load_glyph_encoder(write(tmp_path / "missing.safetensors", missing))
    with pytest.raises(UserError, match=r"1 of 31 tensors unexpected, first encoder\.extra"):
        load_glyph_encoder(write(tmp_path / "more.safetensors", weights | {"encoder.extra": torch.zeros(1)}))
    for shape in ((), (32,), (32, 0)):
        flat = weights | {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": torch.zeros(shape)}
        with pytest.raises(UserError, match=r"attention_bias\.weight has the shape .* expected 2 dimensions"):
            load_glyph_encoder(write(tmp_path / "flat.safetensors", flat))
    small = weights | {"shared.weight": torch.zeros(200, 24)}
    with pytest.raises(UserError, match=r"200 tokens, but Glyph-SDXL-v2's ByT5 has 1510"):
        load_glyph_encoder(write(tmp_path / "small.safetensors", small))


def test_plain_byt5_is_refused(monkeypatch):
    """google/byt5-small has the same sizes and 384 tokens."""
    checkpoint = full_size("keys_byt5_glyphxl")
    entry, path = checkpoint._entries["shared.weight"]
    checkpoint._entries["shared.weight"] = (type(entry)("BF16", (384, 1472), 0, 0), path)
    monkeypatch.setattr(glyphs, "open_checkpoint", lambda path: checkpoint)
    with pytest.raises(UserError, match="384 tokens"):
        load_glyph_encoder("byt5.safetensors", device="meta")
