"""Where a project's models are, and by which identity they enter the digests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hv15.choices import ROLES, roles_of
from hv15.demo.layout import DEMO_FILES, DEMO_OUTPUTS
from hv15.errors import UserError
from hv15.models.hub import hub_files
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.project import ModelFiles, Project
from hv15.project.request import SampleRequest
from hv15.project.request import open_project as request_project
from tests.project.conftest import CONFIG, MakeProject
from tests.workflow.stub_hv15 import write_safetensors

T2V = {"dit", "vae", "text_encoder", "tokenizer", "glyph_encoder"}


def given(root: Path, *roles: str) -> dict[str, str]:
    """Files of these roles, and the settings that name them."""
    (root / "tokenizer").mkdir(exist_ok=True)
    (root / "tokenizer/tokenizer.json").write_text("{}")
    for role in roles:
        write_safetensors(root / f"{role}.safetensors", {"role": role})
    return {"source": "files", "tokenizer": "tokenizer", **{role: f"{role}.safetensors" for role in roles}}


@pytest.fixture
def files(open_project: MakeProject, root: Path) -> ModelFiles:
    models = given(root, *(T2V - {"tokenizer"}))
    return open_project(models=models, sample={"prompts": []}).models


def test_the_image_encoder_is_for_i2v_only() -> None:
    assert set(roles_of("t2v")) == T2V
    assert set(roles_of("i2v")) == set(ROLES) == T2V | {"image_encoder"}


def test_given_files(files: ModelFiles, root: Path) -> None:
    files.check()
    assert files.path("vae") == root / "vae.safetensors"
    assert files.tokenizer == root / "tokenizer"
    assert all(files.made(role) == [] for role in ROLES), "the workflow makes none of them"


def test_the_identity_of_a_file_is_its_content(files: ModelFiles, root: Path) -> None:
    before = {role: files.identity(role) for role in roles_of("t2v")}
    assert len(set(before.values())) == len(T2V)
    shutil.copy(root / "vae.safetensors", root / "copy.safetensors")
    copied = files.settings.model_copy(
        update={"models": files.settings.models.model_copy(update={"vae": "copy.safetensors"})}
    )
    assert ModelFiles(copied, files.fingerprints).identity("vae") == before["vae"]
    write_safetensors(root / "vae.safetensors", {"role": "another"})
    assert files.identity("vae") != before["vae"]


def test_the_identity_of_a_tokenizer_is_that_of_its_files(files: ModelFiles, root: Path) -> None:
    before = files.identity("tokenizer")
    (root / "tokenizer/notes.md").write_text("nobody reads this")
    os.utime(root / "tokenizer/tokenizer.json")
    assert files.identity("tokenizer") == before
    (root / "tokenizer/merges.txt").write_text("a b")
    assert files.identity("tokenizer") != before


def test_a_tokenizer_may_be_a_name_on_the_hub(open_project: MakeProject, root: Path) -> None:
    models = {**given(root, *(T2V - {"tokenizer"})), "tokenizer": "Qwen/Qwen2.5-VL-7B-Instruct"}
    project = open_project(models=models, sample={"prompts": []})
    assert project.models.tokenizer == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert project.models.identity("tokenizer") == "hub:Qwen/Qwen2.5-VL-7B-Instruct"
    (root / "Qwen").mkdir()  # then it is a path that is wrong
    assert project.models.tokenizer == root / "Qwen/Qwen2.5-VL-7B-Instruct"
    with pytest.raises(UserError, match=r"models\.tokenizer: .* does not exist"):
        project.models.identity("tokenizer")


def test_all_missing_files_are_named_together(open_project: MakeProject, root: Path) -> None:
    gone = {"dit": "gone.safetensors", "glyph_encoder": "lost"}
    files = open_project(models={**given(root, "vae", "text_encoder"), **gone}, sample={"prompts": []}).models
    with pytest.raises(UserError) as caught:
        files.check()
    assert f"models.dit: {root}/gone.safetensors does not exist" in caught.value.message
    assert f"models.glyph_encoder: {root}/lost does not exist" in caught.value.message
    assert "models.vae" not in caught.value.message
    assert "models.source to hub" in caught.value.hint
    with pytest.raises(UserError, match=r"models\.image_encoder: is not set"):
        files.path("image_encoder")


def test_the_demos_models_are_known_before_they_are_made(open_project: MakeProject, root: Path) -> None:
    models = open_project(models={"directory": "toys"}).models
    models.check()
    assert models.path("vae") == root / "toys" / DEMO_FILES["vae"]
    assert models.identity("vae") == "demo:3:vae"
    made = [path for role in roles_of("t2v") for path in models.made(role)]
    unused = [DEMO_FILES[role] for role in ("image_encoder", "sr_dit", "upsampler")]
    wanted = {root / "toys" / name for name in DEMO_OUTPUTS if name not in unused}
    assert (set(made), len(made)) == (wanted, len(wanted))
    assert models.made("image_encoder") == [], "t2v needs none"


@pytest.mark.parametrize(
    ("variant", "sr", "found"),
    [("480p_t2v", "auto", "720p"), ("720p_t2v_distilled", "auto", "1080p"), ("720p_t2v", "720p", "720p")],
)
def test_super_resolution_is_downloaded_as_it_suits_the_checkpoint(
    open_project: MakeProject, root: Path, variant: str, sr: str, found: str
) -> None:
    """A folder for the upsampler, because its config.json says what the tensors do not."""
    models = {"source": "hub", "variant": variant}
    files = open_project(models=models, sample={"prompts": [], "sr": sr}).models
    name = f"{found}_sr_distilled"
    assert files.super_resolution.name == name
    assert files.path("sr_dit") == root / f"models/transformer/{name}/diffusion_pytorch_model.safetensors"
    assert files.path("upsampler") == root / f"models/upsampler/{name}"
    hub = hub_files(files.settings)["upsampler"]
    assert [path.name for path in hub.targets] == ["diffusion_pytorch_model.safetensors", "config.json"]
    assert hub.identity.endswith(f"upsampler/{name}/diffusion_pytorch_model.safetensors")
    off = open_project(models=models, sample={"prompts": []}).models
    assert not {"sr_dit", "upsampler"} & hub_files(off.settings).keys()


def test_the_demos_super_resolution_is_known_before_it_is_copied(open_project: MakeProject, root: Path) -> None:
    files = open_project(models={"directory": "toys"}, sample={"prompts": [], "sr": "auto"}).models
    assert files.path("sr_dit") == root / "toys/demo/sr_dit.safetensors"
    assert files.path("upsampler") == root / "toys/demo/upsampler.safetensors"
    assert files.super_resolution.name == "720p_sr_distilled"
    assert files.super_resolution_is_demo, "so nobody is told of the published ones' sizes"
    other = open_project(models={"directory": "toys"}, sample={"prompts": [], "sr": "1080p"}).models
    with pytest.raises(UserError, match=r"upsampler\.safetensors: is the latent upsampler for 720p, but sample\.sr is"):
        _ = other.super_resolution


def test_downloads_are_known_by_where_they_come_from(open_project: MakeProject, root: Path) -> None:
    prompts: dict[str, object] = {"prompts": []}
    models = {"source": "hub", "variant": "480p_t2v", "directory": "got"}
    files = open_project(models=models, sample=prompts).models
    files.check()
    [dit] = files.made("dit")
    assert dit.is_relative_to(root / "got")
    assert files.path("dit") == dit
    assert files.downloaded("dit") is None
    other = open_project(models={**models, "revision": "v2"}, sample=prompts).models
    assert files.identity("dit") != other.identity("dit")
    assert files.identity("text_encoder") == other.identity("text_encoder")
    dit.parent.mkdir(parents=True)
    dit.touch()
    assert files.downloaded("dit") == files.identity("dit"), "a file that a person put there is taken for the right one"


def test_the_variant_decides_the_sampling_defaults(open_project: MakeProject) -> None:
    assert open_project().models.variant == "480p_t2v"
    project: Project = open_project(models={"variant": "720p_t2v_distilled"})
    assert project.models.variant == "720p_t2v_distilled"
    assert project.sample("one").guidance_scale == 1.0
    assert CONFIG["models"] == {"source": "demo"}


@pytest.mark.parametrize("directory", ["mo{del}s", "a/{b}/models", "models}", "{"])
def test_braces_are_a_placeholder_of_snakemake(directory: str, open_project: MakeProject) -> None:
    with pytest.raises(
        UserError, match=r"models\.directory: .*: \{ \} in a name is a placeholder of Snakemake"
    ) as caught:
        open_project(models={"directory": directory}).models.check()
    assert "without { and }" in caught.value.hint
    open_project(models={"directory": "models"}).models.check()


def test_a_link_without_braces_may_lead_to_a_folder_with_them(open_project: MakeProject, root: Path) -> None:
    (root / "mo{del}s").mkdir()
    (root / "models").symlink_to("mo{del}s")
    open_project(models={"directory": "models"}).models.check()


@pytest.mark.parametrize("models", [{"source": "demo"}, {"source": "hub", "variant": "480p_t2v"}, {"source": "files"}])
def test_named_files_replace_only_their_own_roles(
    open_project: MakeProject, root: Path, models: dict[str, object]
) -> None:
    (root / "given").mkdir()
    write_safetensors(root / "given/dit.safetensors", {"role": "another dit"})
    if models["source"] == "files":
        models = {**given(root, *(T2V - {"tokenizer"}))}
    before = open_project(models=models, sample={"prompts": []})
    own = root / "given/dit.safetensors"
    after = request_project(before.config, {}, SampleRequest(prompts=["a cat"], models={"dit": own}))
    assert after.models.path("dit") == own
    assert after.models.made("dit") == []
    assert after.models.identity("dit") == model_fingerprint(own) != before.models.identity("dit")
    for role in (role for role in roles_of("t2v") if role != "dit"):
        assert after.models.path(role) == before.models.path(role)
        assert after.models.identity(role) == before.models.identity(role)
        assert after.models.made(role) == before.models.made(role)
    after.models.check()
