"""`models: {source: hub}`: the model files are targets of the workflow, fetched from a server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.choices import QWEN
from hv15.demo.layout import DEMO_FILES
from hv15.models.hub import ENCODERS, OFFICIAL, REPACKAGED, TOKENIZER
from hv15.records.paths import ProjectPaths
from tests.models.hub_server import Hub
from tests.workflow.conftest import make_project


@pytest.fixture
def hub(demo_models: Path) -> Iterator[Hub]:
    """The demo's tiny models under the names of the real files."""
    server = Hub()
    content = {role: demo_models / name for role, name in DEMO_FILES.items()}
    server.put(OFFICIAL, "transformer/480p_t2v/diffusion_pytorch_model.safetensors", content["dit"].read_bytes())
    server.put(OFFICIAL, "vae/diffusion_pytorch_model.safetensors", content["vae"].read_bytes())
    for role, name in ENCODERS.items():
        server.put(REPACKAGED, name, content[role].read_bytes())
    for name in TOKENIZER:
        file = content["tokenizer"] / name
        server.put(QWEN, name, file.read_bytes() if file.exists() else b"{}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_workflow_downloads_what_it_needs_once(
    tmp_path: Path, hub: Hub, demo_models: Path, demo_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    project = make_project(tmp_path / "project", demo_models, demo_clips)
    hub_models = {"source": "hub", "variant": "480p_t2v", "directory": "models"}
    project.write({**project.config, "models": hub_models, "cache": {"shards": 1}})

    target = str(ProjectPaths().checked_models)  # which is made from all of them
    outcome = project.snakemake(target=target, online=True)
    assert outcome.code == 0, outcome.output
    wanted = ["download_dit", "download_vae", "download_text_encoder", "download_glyph_encoder", "download_tokenizer"]
    assert {rule: outcome.jobs[rule] for rule in wanted} == dict.fromkeys(wanted, 1)
    assert not any("clip_vision" in path for _, path, _ in hub.log), "t2v needs no image encoder"
    assert (project.root / "models/vae/diffusion_pytorch_model.safetensors").is_file()

    hub.log.clear()
    assert "Nothing to be done" in project.snakemake(target=target, online=True).output
    assert hub.log == []
