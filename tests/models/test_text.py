"""Qwen2.5-VL text states against transformers' full model and the golden vectors."""

import copy
import json

import pytest
import torch
from torch.testing import assert_close
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hv15.demo.tokenizer import VOCABULARY, build_tokenizer, save_tokenizer
from hv15.errors import UserError
from hv15.models import text
from hv15.models.templates import render_prompt
from hv15.models.text import TextConfig, load_text_encoder, read_text_config
from hv15.models.tokenizer import PromptTokenizer
from hv15.models.weights import checkpoint as checkpoint_module
from hv15.models.weights.quantised import Fp8Linear, QuantisedLinear
from tests.models.encoder_files import check_golden, count_parameters, full_size, golden, write

pytestmark = pytest.mark.numeric

SIZES = {
    "vocab_size": VOCABULARY + 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
}
PROMPTS = ["a red circle", "", "a much longer prompt: " + "a green square moving left " * 6, 'a sign "OPEN"']


@pytest.fixture(scope="module")
def reference():
    """The whole model as transformers has it: text, vision tower and head."""
    torch.manual_seed(0)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=dict(SIZES), vision_config=vision, tie_word_embeddings=False)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # small initial weights would hide mistakes
        parameter.data.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def expected(reference):
    """hidden_states[-3] of each prompt alone, without the constant part."""
    tokenizer = build_tokenizer()
    crop = PromptTokenizer(tokenizer).crop_start
    states = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(render_prompt(prompt), add_special_tokens=False).ids])
        with torch.no_grad():
            outputs = reference(input_ids=ids, output_hidden_states=True)
        states.append(outputs.hidden_states[-3][0, crop:])
    return states


@pytest.fixture(scope="module")
def layouts(reference, tmp_path_factory):
    """The same weights as users have them."""
    root = tmp_path_factory.mktemp("qwen")
    reference.save_pretrained(root / "sharded", max_shard_size="100KB")
    in_memory = reference.state_dict()
    hub = {key.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value
           for key, value in in_memory.items()}  # fmt: skip
    write(root / "comfyui.safetensors", hub, SIZES)
    write(root / "transformers5.safetensors", in_memory, SIZES)
    return root


@pytest.mark.parametrize("name", ["comfyui.safetensors", "transformers5.safetensors", "sharded"])
def test_states_as_transformers(layouts, expected, name):
    encoder = load_text_encoder(layouts / name, build_tokenizer())
    states = encoder.encode(PROMPTS, batch_size=3)
    assert [len(state) for state in states] == [len(state) for state in expected]
    for state, wanted in zip(states, expected, strict=True):
        assert_close(state, wanted, atol=2e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_folder_is_really_sharded(layouts):
    assert len(list((layouts / "sharded").glob("*.safetensors"))) > 1


def test_batches_equal_single_prompts(layouts):
    encoder = load_text_encoder(layouts / "comfyui.safetensors", build_tokenizer(), dtype=torch.float64)
    together = encoder.encode(PROMPTS, batch_size=4)
    for prompt, state in zip(PROMPTS, together, strict=True):
        assert state.dtype is torch.float64
        assert_close(encoder.encode([prompt])[0], state, atol=1e-12, rtol=0)


def test_long_prompt_keeps_1000_tokens(layouts):
    encoder = load_text_encoder(layouts / "comfyui.safetensors", build_tokenizer())
    (state,) = encoder.encode(["circle " * 3000])
    assert state.shape == (1000, 32)


def test_golden(tmp_path):
    weights, vectors, config = golden("qwen_text_tiny")
    loaded, prefix = read_text_config(
        checkpoint_module.open_checkpoint(write(tmp_path / "qwen.safetensors", weights, config))
    )
    model = text.build_text_model(loaded)
    model.load_state_dict({name: weights[prefix + name] for name in model.state_dict()})
    ids, mask = vectors["in/input_ids"], vectors["in/attention_mask"].bool()
    assert mask[:, 0].all()  # padded on the right

    def states() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).last_hidden_state[mask]

    single = states()
    model.double()
    check_golden(single, states(), vectors["out/hidden_states_minus3"][mask], spread=1.8e-6)


@pytest.mark.parametrize("name", ["keys_comfy_qwen25vl", "keys_transformers5_qwen25vl"])
def test_full_size(name, monkeypatch):
    """26 layers and the embedding are read, each tensor once; nothing else is."""
    checkpoint = full_size(name)
    monkeypatch.setattr(text, "open_checkpoint", lambda path: checkpoint)
    encoder = load_text_encoder("qwen.safetensors", build_tokenizer(), device="meta")
    config, prefix = read_text_config(checkpoint)
    assert config == TextConfig()
    assert encoder.model.config.num_hidden_layers == 26
    layer = (6_525_621_760 - 3584) // 28
    assert count_parameters(encoder.model) == 544_997_376 + 26 * layer
    left_out = ("visual.", "model.visual.", "lm_head.", f"{prefix}norm.", f"{prefix}layers.26.", f"{prefix}layers.27.")
    assert sorted(checkpoint.read) == sorted(key for key in list(checkpoint.keys()) if not key.startswith(left_out))


def fp8_file(reference, path, rest):
    """As ComfyUI has it: linears of the layers and of the vision tower in fp8, each with one scale."""
    file = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    meant = {}
    for key, value in reference.state_dict().items():
        name = key.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        file[name] = value.to(rest)
        if name.endswith("proj.weight") and value.ndim == 2:
            scale = value.abs().max() / 448
            file[name] = (value / scale).to(torch.float8_e4m3fn)
            file[name.removesuffix("weight") + "scale_weight"] = scale
            meant[key] = file[name].double() * scale
    return write(path, file, SIZES), meant


def states_of(reference, weights):
    """hidden_states[-3] of each prompt, by transformers' full model with other weights."""
    model = copy.deepcopy(reference)
    model.load_state_dict(weights, strict=False)
    tokenizer = build_tokenizer()
    crop = PromptTokenizer(tokenizer).crop_start
    states = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(render_prompt(prompt), add_special_tokens=False).ids])
        with torch.no_grad():
            states.append(model(input_ids=ids, output_hidden_states=True).hidden_states[-3][0, crop:])
    return states


def test_comfyuis_fp8_file(reference, tmp_path):
    path, meant = fp8_file(reference, tmp_path / "qwen_2.5_vl_7b_fp8_scaled.safetensors", torch.float32)
    expected = states_of(reference, meant)
    kept = load_text_encoder(path, build_tokenizer(), quantize="fp8")
    plain = load_text_encoder(path, build_tokenizer(), dtype=torch.float32)
    for encoder, number in ((kept, 14), (plain, 0)):
        assert sum(isinstance(layer, Fp8Linear) for layer in encoder.model.modules()) == number
        for state, wanted in zip(encoder.encode(PROMPTS), expected, strict=True):
            assert_close(state, wanted, atol=5e-5, rtol=1e-4)
    path, _ = fp8_file(reference, tmp_path / "half.safetensors", torch.bfloat16)
    found = load_text_encoder(path, build_tokenizer()).model  # in the formats of the file
    assert isinstance(found.get_submodule("layers.0.mlp.up_proj"), Fp8Linear)
    assert found.get_parameter("embed_tokens.weight").dtype is torch.bfloat16


@pytest.mark.parametrize(("kind", "bound"), [("fp8", 0.08), ("int8", 0.03), ("nf4", 0.3)])
def test_quantised_states_are_near(layouts, expected, kind, bound):
    """The linears of the layers are rounded, embedding and norms are not; the file is the plain one."""
    encoder = load_text_encoder(layouts / "sharded", build_tokenizer(), quantize=kind)
    quantised = {name for name, layer in encoder.model.named_modules() if isinstance(layer, QuantisedLinear)}
    parts = [*(f"self_attn.{part}" for part in "qkvo"), "mlp.gate", "mlp.up", "mlp.down"]
    assert quantised == {f"layers.{i}.{part}_proj" for i in (0, 1) for part in parts}
    for state, wanted in zip(encoder.encode(PROMPTS), expected, strict=True):
        assert 1e-3 < (state - wanted).norm() / wanted.norm() < bound


@pytest.mark.parametrize("kind", [pytest.param("fp8", marks=pytest.mark.slow), "nf4"])
def test_full_size_quantised(kind, monkeypatch):
    """fp8: a byte and a sixteenth for each number of the layers; the embedding stays in bfloat16."""
    monkeypatch.setattr(text, "open_checkpoint", lambda path: full_size("keys_comfy_qwen25vl"))
    model = load_text_encoder("qwen.safetensors", build_tokenizer(), device="meta", quantize=kind).model
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    weights = 26 * (3584 * (3584 * 2 + 512 * 2) + 3 * 3584 * 18944)
    each = {"fp8": 1 + 4 / 64, "nf4": 0.5 + 4 / 64}[kind]
    rest = 544_997_376 + 26 * (3584 + 2 * 512 + 2 * 3584)  # embedding, biases, norms
    assert size - weights * each - 2 * rest == pytest.approx(0, abs=1000)  # rope's table


def test_rope_table_is_float32_in_half_precision(layouts):
    encoder = load_text_encoder(layouts / "comfyui.safetensors", build_tokenizer(), dtype=torch.bfloat16)
    assert encoder.model.rotary_emb.inv_freq.dtype is torch.float32
    assert encoder.encode(["a red circle"])[0].dtype is torch.bfloat16


def test_tokenizer_by_folder(layouts, tmp_path):
    save_tokenizer(tmp_path)
    encoder = load_text_encoder(layouts / "comfyui.safetensors", tmp_path)
    assert encoder.encode([]) == []


def test_wrong_files(layouts, tmp_path, reference):
    tokenizer = build_tokenizer()
    with pytest.raises(UserError, match=r"not Qwen2\.5-VL: it looks like the HunyuanVideo 1\.5 transformer"):
        load_text_encoder(write(tmp_path / "dit.safetensors", {"double_blocks.0.bias": torch.zeros(1)}), tokenizer)

    weights = reference.state_dict()
    missing = {key: value for key, value in weights.items() if "layers.1.mlp.up_proj" not in key}
    with pytest.raises(UserError, match=r"1 of 25 tensors missing, first model\.language_model\.layers\.1\.mlp\.up"):
        load_text_encoder(write(tmp_path / "missing.safetensors", missing, SIZES), tokenizer)

    more = weights | {"model.language_model.layers.0.lora": torch.zeros(1)}
    with pytest.raises(UserError, match=r"unexpected, first model\.language_model\.layers\.0\.lora"):
        load_text_encoder(write(tmp_path / "more.safetensors", more, SIZES), tokenizer)

    scaled = weights | {"model.language_model.layers.0.mlp.up_proj.scale_weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"up_proj\.scale_weight belongs to no fp8 weight"):
        load_text_encoder(write(tmp_path / "fp8.safetensors", scaled, SIZES), tokenizer)

    flat = weights | {"model.language_model.layers.0.self_attn.k_proj.weight": torch.zeros(32)}
    with pytest.raises(UserError, match=r"k_proj\.weight has the shape \[32\], expected 2 dimensions"):
        load_text_encoder(write(tmp_path / "flat.safetensors", flat, SIZES), tokenizer)

    with pytest.raises(UserError, match="do not fit heads of 128"):
        load_text_encoder(write(tmp_path / "bare.safetensors", weights), tokenizer)


def test_tokenizer_larger_than_the_model(tmp_path, reference):
    weights = reference.state_dict()
    weights["model.language_model.embed_tokens.weight"] = torch.zeros(100, 32)
    with pytest.raises(UserError, match=f"100 token embeddings, but the tokenizer has {VOCABULARY} tokens"):
        load_text_encoder(write(tmp_path / "small.safetensors", weights, SIZES), build_tokenizer())


def test_config_beside_the_file(layouts, tmp_path, reference):
    """RoPE and epsilon come from Qwen2.5-VL's config.json; that of another model in the folder is ignored."""
    weights = {key: value for key, value in reference.state_dict().items() if "visual" not in key}
    file = write(tmp_path / "qwen.safetensors", weights)
    hub = {key: value for key, value in SIZES.items() if key != "rope_parameters"}
    hub |= {
        "model_type": "qwen2_5_vl",
        "rope_theta": 5e5,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(hub))
    config = load_text_encoder(file, build_tokenizer()).model.config
    assert config.rope_parameters["rope_theta"] == 5e5
    assert config.rope_parameters["mrope_section"] == [2, 1, 1]
    (tmp_path / "config.json").write_text(json.dumps(hub | {"model_type": "siglip_vision_model"}))
    with pytest.raises(UserError, match="do not fit heads of 128"):
        load_text_encoder(file, build_tokenizer())
