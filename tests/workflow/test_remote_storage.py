"""Models and clips in S3 storage, read by Snakemake's storage plugin from a server on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.project import QUICK_PROGRAMS, ProjectFolder, environment

pytestmark = pytest.mark.slow
REASON = "needs pip install 'hv15[s3]' 'moto[server]'"
boto3 = pytest.importorskip("boto3", reason=REASON)
pytest.importorskip("snakemake_storage_plugin_s3", reason=REASON)
moto = pytest.importorskip("moto.server", reason=REASON)

BUCKET = "my-bucket"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket on a server that listens on this machine only."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ENDPOINT_URL", endpoint)
    monkeypatch.delenv(QUICK_PROGRAMS)  # those programs were started before, perhaps without the plugin's place
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    storage = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
    yield storage.create_bucket(Bucket=BUCKET)
    server.stop()


def hv15(project: ProjectFolder, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hv15.cli", *words, "--config", str(project.root / "config.yaml")]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_a_project_whose_clips_and_model_are_there(project: ProjectFolder, bucket: Any) -> None:
    """They are what they were, so nothing is encoded or trained again; what is newer there is copied again."""
    vae = Path(project.config["models"]["vae"])
    for path in project.clips.iterdir():
        bucket.upload_file(str(path), f"data/clips/{path.name}")
        path.unlink()
    project.clips.rmdir()
    bucket.upload_file(str(vae), f"models/{vae.name}")
    dataset = {**project.config["datasets"][0], "video_directory": f"s3://{BUCKET}/data/clips"}
    project.set(datasets=[dataset], models={"vae": f"s3://{BUCKET}/models/{vae.name}"})
    said = hv15(project, "check")
    assert said.returncode, said.stdout
    assert f"s3://{BUCKET}/data/clips" in said.stdout + said.stderr
    assert "`hv15 fetch` copies it" in said.stdout + said.stderr

    done = project.snakemake()
    assert done.code == 0, done.output
    assert done.jobs.keys() == {"fetch_0", "fetch_1", "all"}, done.output
    assert "Nothing to be done" in done.output
    copies = project.root / "cache/remote" / BUCKET
    assert (copies / "models" / vae.name).read_bytes() == vae.read_bytes()
    assert not any((project.root / "cache/remote/.snakemake").rglob("*.mp4")), "nothing is kept twice"

    texts = [each for each in bucket.objects.filter(Prefix="data/clips") if each.key.endswith(".txt")]
    texts[0].put(Body=b"another caption")
    assert "Nothing to be done" in project.snakemake("-n").output, "a run does not ask the storage again"
    said = hv15(project, "fetch")
    assert said.returncode == 0, said.stderr
    assert (copies / texts[0].key).read_text() == "another caption"
    assert "encode_texts" in project.snakemake("-n").output


def test_what_is_not_there(project: ProjectFolder, bucket: Any) -> None:
    project.set(models={"vae": f"s3://{BUCKET}/models/nothing.safetensors"})
    said = hv15(project, "fetch")
    assert said.returncode == 2, said.stderr
    assert f"s3://{BUCKET}/models/nothing.safetensors: cannot be copied" in said.stderr
    assert not (project.root / "cache/remote" / BUCKET).exists()
