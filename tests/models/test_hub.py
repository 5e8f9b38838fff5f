"""Downloading from the Hub, against a small server on this machine that answers as the Hub's file pages do."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from hv15.choices import QWEN, VariantName
from hv15.config import Settings
from hv15.models.hub import OFFICIAL, REPACKAGED, HubFile, _refused, hub_files
from hv15.models.variants import VARIANTS
from tests.models.hub_server import COMMIT, Hub

DIT = "transformer/480p_i2v/diffusion_pytorch_model.safetensors"
VAE = "models/vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server: Hub) -> Hub:
    """A hub with all files of an i2v project, each with its own content."""
    hub = server
    hub.clear()
    hub.put(OFFICIAL, DIT, bytes(range(256)) * 400)
    hub.put(OFFICIAL, "vae/diffusion_pytorch_model.safetensors", b"the vae")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        hub.put(QWEN, name, name.encode())
    for path in (
        "split_files/text_encoders/qwen_2.5_vl_7b.safetensors",
        "split_files/text_encoders/byt5_small_glyphxl_fp16.safetensors",
        "split_files/clip_vision/sigclip_vision_patch14_384.safetensors",
    ):
        hub.put(REPACKAGED, path, path.encode())
    return hub


CONFIG: dict[str, Any] = {
    "task": "i2v",
    "models": {"source": "hub", "variant": "480p_i2v"},
    "datasets": [{"video_directory": "clips"}],
}
CLIENT = """
import json, os, sys
from pathlib import Path
from hv15.config import load_config
from hv15.errors import UserError
from hv15.models.hub import download
for line in sys.stdin:
    folder, targets = json.loads(line)
    os.chdir(folder)
    try:
        paths = download(load_config(Path("config.yaml")), [Path(name) for name in targets])
        answer = {"paths": [str(path) for path in paths], "error": ""}
    except UserError as error:
        answer = {"paths": [], "error": str(error)}
    assert "torch" not in sys.modules
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A process that downloads on request: the Hub's library reads HF_ENDPOINT when it is imported."""

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env={**clean, **own, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fetch(self, project: Path, *targets: str, revision: str = "main") -> tuple[list[Path], str]:
        """Return the fetched paths and the error message, one of them empty."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        config = {**CONFIG, "models": {**CONFIG["models"], "revision": revision}}
        (project / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        self.process.stdin.write(json.dumps([str(project), targets]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return [Path(path) for path in answer["paths"]], answer["error"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=300)


@pytest.fixture(scope="module")
def client(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(server.url, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


def test_every_file_arrives_byte_for_byte_and_is_not_fetched_twice(hub: Hub, client: Client, tmp_path: Path) -> None:
    paths, error = client.fetch(tmp_path)
    assert error == ""
    arrived = {path.relative_to(tmp_path / "models").as_posix(): path for path in paths}
    assert arrived[DIT].read_bytes() == bytes(range(256)) * 400
    assert arrived["tokenizer/merges.txt"].read_bytes() == b"merges.txt"
    assert len(arrived) == 9
    assert hub.count("GET") == 9
    assert client.fetch(tmp_path) == (paths, "")
    assert hub.count("GET") == 9


def test_one_target_fetches_that_file_alone(hub: Hub, client: Client, tmp_path: Path) -> None:
    paths, _ = client.fetch(tmp_path, VAE)
    assert paths == [tmp_path / VAE]
    assert {path for _, path, _ in hub.log} == {"vae/diffusion_pytorch_model.safetensors"}


def test_a_broken_connection_is_taken_up_where_it_ended(hub: Hub, client: Client, tmp_path: Path) -> None:
    """The client keeps whole chunks of 10 MiB, so the file is larger than two of them."""
    content = random.Random(0).randbytes(25 << 20)
    hub.put(OFFICIAL, DIT, content)
    hub.broken.add(DIT)
    _, error = client.fetch(tmp_path, f"models/{DIT}")
    assert error == ""
    assert (tmp_path / "models" / DIT).read_bytes() == content
    assert [span for method, _, span in hub.log if method == "GET"] == [None, f"bytes={10 << 20}-"]


def test_a_changed_file_on_the_hub_replaces_the_old_one(hub: Hub, client: Client, tmp_path: Path) -> None:
    client.fetch(tmp_path, VAE)
    hub.put(OFFICIAL, "vae/diffusion_pytorch_model.safetensors", b"a better vae")
    client.fetch(tmp_path, VAE)
    assert (tmp_path / VAE).read_bytes() == b"a better vae"


def test_the_asked_revision_is_fetched(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.put(OFFICIAL, "vae/diffusion_pytorch_model.safetensors", b"an older vae", revision="v0")
    client.fetch(tmp_path, VAE, revision="v0")
    assert (tmp_path / VAE).read_bytes() == b"an older vae"


@pytest.mark.parametrize(
    ("spoil", "found", "cure"),
    [
        ("repository", "no such repository, or no permission", "hf auth login"),
        ("gated", "access must be requested", "hf auth login"),
        ("revision", "it has no revision main", "models.revision"),
        ("file", "it has no such file", "models.variant"),
        ("forbidden", "the server answered 403", "hf auth login"),
    ],
)
def test_a_refusal_names_repository_file_and_cure(
    hub: Hub, client: Client, tmp_path: Path, spoil: str, found: str, cure: str
) -> None:
    if spoil == "repository":
        hub.files = {key: value for key, value in hub.files.items() if key[0] != OFFICIAL}
    elif spoil == "gated":
        hub.gated.add(OFFICIAL)
    elif spoil == "revision":
        hub.files = {(repo, "v2", path): value for (repo, _, path), value in hub.files.items()}
    elif spoil == "file":
        del hub.files[OFFICIAL, "main", DIT]
    else:
        hub.status = 403
    paths, error = client.fetch(tmp_path, f"models/{DIT}")
    assert paths == []
    message, hint = error.split("\n  hint: ", 1)
    assert message.startswith(f"{DIT} of {OFFICIAL}: cannot be downloaded from {hub.url}: ")
    assert found in message
    assert cure in hint
    assert not (tmp_path / "models" / DIT).exists()


def test_offline_uses_what_is_there_and_says_how_to_get_the_rest(hub: Hub, client: Client, tmp_path: Path) -> None:
    client.fetch(tmp_path, VAE)
    offline = Client(hub.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert offline.fetch(tmp_path, VAE) == ([tmp_path / VAE], "")
    _, error = offline.fetch(tmp_path, f"models/{DIT}")
    offline.close()
    assert "HF_HUB_OFFLINE is set" in error
    assert f"hf download {OFFICIAL} {DIT} --revision main --local-dir {tmp_path}/models" in error


def test_a_strange_target_is_refused_with_the_list(hub: Hub, client: Client, tmp_path: Path) -> None:
    _, error = client.fetch(tmp_path, "models/other.safetensors")
    assert "not a file that this config downloads" in error
    assert DIT in error
    assert hub.log == []


def test_text_to_video_needs_no_image_encoder() -> None:
    settings = Settings.model_validate({**CONFIG, "task": "t2v", "models": {"source": "hub", "variant": "720p_t2v"}})
    files = hub_files(settings)
    assert set(files) == {"dit", "vae", "text_encoder", "glyph_encoder", "tokenizer"}
    assert files["dit"].path == "transformer/720p_t2v/diffusion_pytorch_model.safetensors"
    assert files["dit"].local == settings.root / "models" / files["dit"].path
    assert files["tokenizer"].local == settings.root / "models" / "tokenizer"


def test_the_revision_belongs_to_the_official_repository() -> None:
    models = {"source": "hub", "variant": "480p_i2v", "revision": COMMIT}
    files = hub_files(Settings.model_validate({**CONFIG, "models": models}))
    assert {role for role, file in files.items() if file.revision == COMMIT} == {"dit", "vae"}


def test_the_variants_are_those_with_known_sampling_defaults() -> None:
    assert set(get_args(VariantName)) == set(VARIANTS)


@pytest.mark.parametrize(
    ("error", "words", "cure"),
    [
        (OSError(28, "No space left on device"), "cannot be written: No space left", "free disk space"),
        (OSError(122, "Disk quota exceeded"), "cannot be written: Disk quota", "free disk space"),
        (PermissionError(13, "Permission denied"), "cannot be written: Permission", "permissions"),
        (OSError(30, "Read-only file system"), "cannot be written: Read-only", "permissions"),
        (
            NotADirectoryError(20, "Not a directory"),
            "cannot be written: Not a directory",
            "something else has that name",
        ),
        (ConnectionResetError(104, "Connection reset by peer"), "no connection", "check the network"),
        (TimeoutError(110, "Connection timed out"), "no connection", "check the network"),
        (socket.gaierror(-2, "Name or service not known"), "no connection", "check the network"),
        (OSError(5, "Input/output error"), "Input/output error", "run it again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OSError) else "",
)
def test_the_hint_is_about_the_disk_when_it_is_the_disk(error: OSError, words: str, cure: str, tmp_path: Path) -> None:
    file = HubFile(OFFICIAL, "main", (DIT,), tmp_path, tmp_path / DIT)
    refused = _refused(error, file, DIT)
    assert words in refused.message
    assert cure in refused.hint
    assert ("disk space" in refused.hint) is (cure == "free disk space")
