"""`hv15 publish` says what it would upload, uploads that and nothing else, and tells nothing that is private."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from hv15.cli import main
from hv15.data.encode import read_video_metadata
from hv15.project import Project
from hv15.project.metadata import product_made_from
from hv15.report.card import REPOSITORY
from hv15.report.card import ModelCard as Card
from tests.report.conftest import HOSTILE, STEPS, look_real
from tests.report.upload_server import COMMIT, UploadHub, is_private
from tests.workflow.finished import finish
from tests.workflow.quick import QuickProject

REPO = "somebody/zorpward"
ABOUT = {
    "title": "Zorpward",
    "author": "A. Person",
    "description": "Teaches *zorpward*.",
    "tags": ["motion"],
    "trigger_words": ["zorpward", "zorp`"],
    "license": "CC-BY-4.0",
    "gallery": ["one"],
    "formats": ["comfyui", "diffusers", "official"],
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    """A project with everything, the card too, whose second prompt is private."""
    project = QuickProject.make(tmp_path_factory.mktemp("published") / "project")
    prompts = [{"name": "one", "prompt": "a red circle that moves"}, {"name": "two", "prompt": "a SECRET prompt"}]
    project.set(sample={"with_base": True, "prompts": prompts}, convert=ABOUT)
    finish(project, "results/README.md")
    opened = look_real(Project(project.root / "config.yaml"))
    opened.paths.card.write_text(Card(opened).text(product_made_from(opened.paths.card)))
    return project


@pytest.fixture(scope="module")
def card(published: QuickProject) -> ModelCard:
    return ModelCard.load(published.root / "results/README.md")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    server = UploadHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    yield server
    server.shutdown()
    server.server_close()


def publish(project: QuickProject, *words: str) -> int:
    return main(["publish", str(project.root), "--to", "hub", "--repo", REPO, *words])


# -- the card -------------------------------------------------------------------------------------------------------


def test_the_front_matter_is_what_the_hub_reads(card: ModelCard) -> None:
    assert card.data.to_dict() == {
        "base_model": "tencent/HunyuanVideo-1.5",
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "license": "cc-by-4.0",
        "pipeline_tag": "text-to-video",
        "tags": ["lora", "hunyuanvideo-1.5", "text-to-video", "template:diffusion-lora", "motion"],
        "instance_prompt": "zorpward, zorp`",
        "widget": [{"text": "a red circle that moves", "output": {"url": "samples/one.mp4"}}],
    }


def test_it_tells_how_to_use_the_files(card: ModelCard, published: QuickProject) -> None:
    for layout in ("comfyui", "diffusers", "official"):
        assert f"[lora.{layout}.safetensors](" in card.text
    assert f'load_lora_adapter("{REPOSITORY}", weight_name="lora.diffusers.safetensors"' in card.text
    assert "LoraLoaderModelOnly" in card.text
    assert "--lora_path lora.official.safetensors" in card.text
    assert "**Trigger words:** `zorpward`, `zorp'`" in card.text
    assert "Teaches *zorpward*." in card.text
    assert f"| Steps | {STEPS} (4.0 epochs) |" in card.text
    assert "\n\n\n" not in card.text


def test_it_tells_nothing_private(published: QuickProject) -> None:
    text = (published.root / "results/README.md").read_text()
    assert "SECRET" not in text
    for private in (str(published.root), "a dog that runs", "clips/", "video_directory"):
        assert private not in text


def test_without_metadata_it_tells_nothing_of_the_training(published: QuickProject) -> None:
    text = Card(Project(published.root / "config.yaml", {"convert": {"metadata": "none"}})).text()
    assert "## Training" not in text
    assert "learning rate" not in text


def test_without_copies_and_words_it_is_whole(published: QuickProject) -> None:
    changed = {"convert": {"formats": [], "title": "", "description": "", "license": "", "trigger_words": []}}
    text = Card(Project(published.root / "config.yaml", changed)).text()
    assert "# LoRA for HunyuanVideo 1.5\n" in text
    assert "| file |" not in text
    assert "### " not in text
    assert "library_name" not in text
    assert "That of [the base model]" in text
    assert "\n\n\n" not in text


def test_without_samples_it_does_not_say_that_some_were_made(published: QuickProject) -> None:
    changed = {"convert": {"gallery": []}, "sample": {"prompts": [], "guidance_scale": 1.5, "lora_multiplier": 0.3}}
    text = Card(Project(published.root / "config.yaml", changed)).text()
    assert "Samples were" not in text
    assert "Begin at strength 1 with guidance 6, shift 5 and 50 steps." in text


def test_texts_of_people_stay_texts(published: QuickProject) -> None:
    hostile = f"{HOSTILE}\n---\n# x"
    changed = {"title": hostile, "author": hostile, "license": hostile, "tags": [hostile], "trigger_words": [hostile]}
    text = Card(Project(published.root / "config.yaml", {"convert": changed})).text()
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    found = yaml.safe_load(head)
    assert (found["license"], found["license_name"]) == ("other", hostile)
    assert found["instance_prompt"] == hostile
    assert "<script" not in re.sub("`[^`\n]*`", "", body), "only where it is code"
    assert "\n# x" not in body


# -- publishing -----------------------------------------------------------------------------------------------------


def test_without_upload_it_only_says_what_it_would_do(
    published: QuickProject, hub: UploadHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(published) == 0
    said = capsys.readouterr()
    listed = [line.split()[0] for line in said.err.splitlines() if line.startswith("  ")]
    copies = [f"lora.{layout}.safetensors" for layout in ("comfyui", "diffusers", "official")]
    assert listed == ["README.md", *copies, "samples/one.mp4"]
    assert "nothing was uploaded" in said.err
    assert "1 of 2 prompts stay private" in said.err
    assert f'load_lora_adapter("{REPO}"' in said.out
    assert "made_from" not in said.out
    assert not hub.repositories


def test_it_uploads_that_as_one_commit(
    published: QuickProject, hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(published, "--upload", "--private", "--message", "First version") == 0
    assert f"{hub.url}/{REPO}/commit/{COMMIT}" in capsys.readouterr().out
    assert is_private(hub.repositories[REPO])
    assert hub.messages == ["First version"]
    assert hub.tokens == {"Bearer hf_of_the_environment"}
    assert {path for _, path in hub.files} == {
        *("README.md", "samples/one.mp4"),
        *(f"lora.{layout}.safetensors" for layout in ("comfyui", "diffusers", "official")),
    }
    results = published.root / "results"
    assert hub.files[REPO, "lora.comfyui.safetensors"] == (results / "lora.comfyui.safetensors").read_bytes()
    (tmp_path / "one.mp4").write_bytes(hub.files[REPO, "samples/one.mp4"])
    assert read_video_metadata(results / "samples/one.mp4").keys() & {"hv15.made_from"}
    assert not [key for key in read_video_metadata(tmp_path / "one.mp4") if key.startswith("hv15")]
    everything = b"".join(hub.files.values())
    assert b"SECRET" not in everything
    assert str(published.root).encode() not in everything


def test_what_is_to_be_private_does_not_go_to_a_public_repository(
    published: QuickProject, hub: UploadHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories[REPO] = {"private": False}
    assert publish(published, "--upload", "--private") == 2
    assert "public, so nothing was uploaded" in capsys.readouterr().err
    assert not hub.files
    assert publish(published, "--upload") == 0
    hub.repositories[REPO] = {"private": True}
    assert publish(published, "--upload", "--private") == 0


@pytest.mark.parametrize(
    ("status", "cure"), [(401, "hf auth login"), (403, "hf auth login"), (400, "run it again"), (500, "run it again")]
)
def test_a_refusal_is_told(
    published: QuickProject, hub: UploadHub, capsys: pytest.CaptureFixture[str], status: int, cure: str
) -> None:
    hub.refuses = status
    assert publish(published, "--upload") == 2
    said = capsys.readouterr().err
    assert f"the server answered {status}" in said
    assert cure in said
    assert not hub.files


def test_no_connection_is_told(
    published: QuickProject, hub: UploadHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert publish(published, "--upload") == 2
    assert "no connection" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("repo", "said"), [("zorpward", "give USER/zorpward"), ("a/b/c", "give USER/NAME"), ("a b/c", "give USER/NAME")]
)
def test_a_repository_has_an_owner_and_a_name(
    published: QuickProject, capsys: pytest.CaptureFixture[str], repo: str, said: str
) -> None:
    assert main(["publish", str(published.root), "--to", "hub", "--repo", repo]) == 2
    assert said in capsys.readouterr().err


def test_only_what_is_up_to_date_is_published(
    published: QuickProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = published.copied(tmp_path / "project", everything=True)
    copied.set(convert={"title": "Another"})
    assert publish(copied) == 2
    assert "5 results are missing or not up to date, first convert.comfyui" in capsys.readouterr().err
    copied.set(convert={"formats": []})
    assert publish(copied) == 2
    assert "convert.formats is empty" in capsys.readouterr().err


def test_a_file_that_tells_everything_is_named(
    published: QuickProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = published.copied(tmp_path / "project", everything=True)
    copied.set(convert={"metadata": "full"})
    finish(copied, "results/README.md")
    assert publish(copied) == 0
    assert (
        "lora.comfyui.safetensors, lora.diffusers.safetensors, lora.official.safetensors: tells the whole config"
        in (capsys.readouterr().err)
    )


def test_a_gallery_names_prompts(published: QuickProject, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["publish", str(published.root), "--repo", REPO, "--overrides", json.dumps({"convert": {"gallery": ["x"]}})]
    assert main(words) == 2
    assert "no prompt in sample.prompts is called 'x'; there are: one, two" in capsys.readouterr().err
