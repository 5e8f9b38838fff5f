"""Token ids against those of the official tokenizer files, and where a tokenizer may come from."""

import json
from pathlib import Path

import pytest

from hv15.demo.tokenizer import build_tokenizer
from hv15.errors import UserError
from hv15.models.tokenizer import PromptTokenizer, load_qwen_tokenizer
from tests.models.qwen_tokenizer import SPECIAL_TOKENS, build_qwen_tokenizer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text_templates.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def qwen():
    return build_qwen_tokenizer()


@pytest.fixture(scope="module")
def folder(qwen, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    qwen.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def comfyui_folder(qwen, tmp_path_factory):
    """The three files that ComfyUI carries."""
    path = tmp_path_factory.mktemp("comfyui")
    qwen.model.save(str(path))
    added = {str(151643 + i): {"content": token, "special": True} for i, token in enumerate(SPECIAL_TOKENS)}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "pad_token": "<|endoftext|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("layout", ["folder", "comfyui_folder"])
def test_golden_ids(layout, request):
    prompts = PromptTokenizer(load_qwen_tokenizer(request.getfixturevalue(layout)))
    cases = GOLDEN["cases"]
    assert prompts.rows([case["prompt"] for case in cases]) == [case["input_ids_valid"] for case in cases]
    assert {case["crop_start"] for case in cases} == {prompts.crop_start}
    assert {case["pad_id"] for case in cases} == {prompts.pad_id}


def test_long_prompt_is_cut_on_the_right(qwen):
    prompts = PromptTokenizer(qwen)
    (row,) = prompts.rows([" ".join(["word"] * 3000)])
    assert len(row) == GOLDEN["long_prompt"]["total_len"]
    assert row[-6:] == GOLDEN["long_prompt"]["last_ids"]


def test_prompt_cannot_move_the_crop(qwen):
    """A prompt may begin with a newline (which joins the mark's token) or hold a user mark itself."""
    prompts = PromptTokenizer(qwen)
    assert prompts.crop_start == 108
    for prompt in ("\n\nred", "red <|im_start|>user\n blue"):
        (row,) = prompts.rows([prompt])
        assert qwen.decode(row[:108], skip_special_tokens=False).strip().endswith("<|im_start|>user")
        assert "red" in qwen.decode(row[108:])


def test_settings_inside_the_file_do_not_matter(tmp_path):
    tokenizer = build_tokenizer()
    (expected,) = PromptTokenizer(tokenizer).rows(["a red circle"])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=3000)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert PromptTokenizer(load_qwen_tokenizer(tmp_path / "tokenizer.json")).rows(["a red circle"]) == [expected]


def test_hub_name_from_the_local_cache(folder, tmp_path, monkeypatch):
    """A name of the Hub is served from its cache without a connection."""
    import huggingface_hub.constants as constants

    snapshot = tmp_path / "models--Qwen--Qwen2.5-VL-7B-Instruct" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert PromptTokenizer(load_qwen_tokenizer("Qwen/Qwen2.5-VL-7B-Instruct")).crop_start == 108
    with pytest.raises(UserError, match="Qwen/Other: no such folder, and no such tokenizer on the Hugging Face Hub"):
        load_qwen_tokenizer("Qwen/Other")


def test_wrong_sources(tmp_path):
    with pytest.raises(UserError, match="no such tokenizer folder"):
        load_qwen_tokenizer(tmp_path / "missing")
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.json"):
        load_qwen_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer file"):
        load_qwen_tokenizer(tmp_path)


def test_another_tokenizer_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"not a Qwen2\.5 tokenizer: it lacks <\|im_start\|>"):
        load_qwen_tokenizer(tmp_path)
