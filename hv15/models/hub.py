"""The model files of `models: {source: hub}`: where they are on the Hugging Face Hub, and downloading them.

Planning (`hub_files`) needs neither network nor torch. A downloaded file has the same path in `models.directory` as in
its repository, as with `hf download ... --local-dir`. It appears there only when it is complete, and an interrupted
download is resumed.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import write_json
from hv15.choices import QWEN, Role
from hv15.digest import short
from hv15.errors import UserError
from hv15.models.super_resolution import SUPER_RESOLUTIONS, SuperResolution
from hv15.records.json_values import RecordError, read_record, text_of

if TYPE_CHECKING:
    from hv15.config import Settings

OFFICIAL = "tencent/HunyuanVideo-1.5"
REPACKAGED = "Comfy-Org/HunyuanVideo_1.5_repackaged"

ENCODERS: dict[Role, str] = {
    "text_encoder": "split_files/text_encoders/qwen_2.5_vl_7b.safetensors",
    "glyph_encoder": "split_files/text_encoders/byt5_small_glyphxl_fp16.safetensors",
    "image_encoder": "split_files/clip_vision/sigclip_vision_patch14_384.safetensors",
}
"""Role -> file in the repackaged repository."""

_NOTE_VERSION = 1
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

_FULL = "free disk space, or change models.directory"
_FORBIDDEN = "change the folder's permissions, or models.directory"
_IN_THE_WAY = "something else has that name, or that of a folder above it: change models.directory"
_DISK: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG), _IN_THE_WAY),
}
"""What helps when a file cannot be written."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubFile:
    """What one model role needs from one repository: a file, or the few files of the tokenizer."""

    repo: str
    revision: str
    names: tuple[str, ...]
    """The files' paths in the repository, the weights first."""
    folder: Path
    """Where the repository's paths start on this machine."""
    local: Path
    """The path that the loaders open: the file, or the folder of several."""

    @property
    def path(self) -> str:
        """The (first) file's path in the repository."""
        return self.names[0]

    @property
    def identity(self) -> str:
        """Represents the content in digests, since the file may not exist yet when the workflow is planned."""
        return f"hub:{self.repo}@{self.revision}:{self.path}"

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files on this machine, in the order of `names`."""
        return tuple(self.folder / name for name in self.names)


def hub_files(settings: Settings) -> dict[Role, HubFile]:
    """Return the files that `models.variant` needs for the task, and for super resolution if it is on, by role."""
    models, enlarging = settings.models, super_resolution_of(settings)
    folder = settings.resolve(models.directory)

    def single(repo: str, name: str, revision: str = "main") -> HubFile:
        return HubFile(repo, revision, (name,), folder, folder / name)

    tokenizer = folder / "tokenizer"
    files: dict[Role, HubFile] = {
        "dit": single(OFFICIAL, f"transformer/{models.variant}/diffusion_pytorch_model.safetensors", models.revision),
        "vae": single(OFFICIAL, "vae/diffusion_pytorch_model.safetensors", models.revision),
        "tokenizer": HubFile(QWEN, "main", TOKENIZER, tokenizer, tokenizer),
        **{role: single(REPACKAGED, name) for role, name in ENCODERS.items()},
    }
    if enlarging is not None:
        upsampler = f"upsampler/{enlarging.name}"
        names = (f"{upsampler}/diffusion_pytorch_model.safetensors", f"{upsampler}/config.json")
        files["sr_dit"] = single(
            OFFICIAL, f"transformer/{enlarging.name}/diffusion_pytorch_model.safetensors", models.revision
        )
        files["upsampler"] = HubFile(OFFICIAL, models.revision, names, folder, folder / upsampler)
    return {role: files[role] for role in settings.roles}


def super_resolution_of(settings: Settings) -> SuperResolution | None:
    """Return the super resolution that is downloaded: by default that of the checkpoint, as in the official program.

    None if it is off.
    """
    chosen = settings.sample.enlarging
    if chosen == "off":
        return None
    if chosen == "auto":
        low = settings.models.variant.partition("_")[0]
        return next(each for each in SUPER_RESOLUTIONS.values() if each.low == low)
    return SUPER_RESOLUTIONS[chosen]


def download(settings: Settings, targets: Collection[Path] = ()) -> list[Path]:
    """Download the target files, or all files if there are no targets, unless they are up to date; return their paths.

    Raises:
        UserError: a target is not one of this config's files, or it cannot be downloaded: no connection, offline mode,
            no such repository, revision or file, no permission, disk full.
    """
    known = {target.resolve(): (file, name) for file, name, target in _targets(settings)}
    wanted = [Path(target).resolve() for target in targets] or list(known)
    if unknown := [str(target) for target in wanted if target not in known]:
        raise UserError.at(
            unknown[0],
            "not a file that this config downloads, which are",
            lines=(f"  {target}" for target in known),
            hint="name some of these, or none to download all",
        )
    return [_fetch(*known[target]) for target in wanted]


def downloaded_identity(file: HubFile) -> str | None:
    """Return the identity (repository, revision, path) of a downloaded file; None while it is missing or incomplete.

    A file that was put there by hand is taken to be the right one.
    """
    if not all(target.exists() for target in file.targets):
        return None
    try:
        return text_of(read_record(_note(file), _NOTE_VERSION), "identity") or file.identity
    except RecordError:
        return file.identity


def _note(file: HubFile) -> Path:
    return file.folder / ".downloaded" / f"{short(file.path)}.json"


def _targets(settings: Settings) -> list[tuple[HubFile, str, Path]]:
    files = hub_files(settings).values()
    return [(file, name, target) for file in files for name, target in zip(file.names, file.targets, strict=True)]


def _fetch(file: HubFile, name: str) -> Path:
    """Fetch one file of a repository into its folder."""
    from huggingface_hub import hf_hub_download

    log.info("downloading %s of %s (%s)", name, file.repo, file.revision)
    try:
        fetched = Path(hf_hub_download(file.repo, name, revision=file.revision, local_dir=file.folder))
        write_json(_note(file), {"version": _NOTE_VERSION, "identity": file.identity})
        return fetched
    except Exception as error:  # the client, its HTTP library and the disk raise unrelated classes of errors
        raise _refused(error, file, name) from error


def _refused(error: Exception, file: HubFile, name: str) -> UserError:
    """Return the error for a failed download: what the Hub or the disk answered, and what to do."""
    from huggingface_hub import constants, errors

    what = f"{name} of {file.repo}: cannot be downloaded from {constants.ENDPOINT}"
    by_hand = f"hf download {file.repo} {name} --revision {file.revision} --local-dir {file.folder}"
    elsewhere = f"or download it on another machine and copy it here: `{by_hand}`"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the server's answer; the client then looked for a local copy
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{file.repo}"
        return UserError(f"{what}: access must be requested", hint=f"ask at {page}, then log in with `hf auth login`")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{what}: it has no revision {file.revision}", hint="correct models.revision in config.yaml")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return UserError(
            f"{what}: it has no such file", hint="correct models.variant or models.revision in config.yaml"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        text = "no such repository, or no permission (401/404)"
        return UserError(f"{what}: {text}", hint="log in with `hf auth login`, or set the token in HF_TOKEN")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if constants.is_offline_mode():
            return UserError(f"{what}: HF_HUB_OFFLINE is set", hint=f"unset it, {elsewhere}")
        return UserError(f"{what}: no connection", hint=f"check the network and run it again, {elsewhere}")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        cure = "log in with `hf auth login`" if status in (401, 403) else f"try again later, {elsewhere}"
        return UserError(f"{what}: the server answered {status}", hint=cure)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return UserError(f"{what}: no connection ({error})", hint=f"check the network and run it again, {elsewhere}")
    if isinstance(error, OSError) and error.errno in _DISK:
        return UserError.at(file.folder / name, f"cannot be written: {error.strerror}", hint=_DISK[error.errno])
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{what}: {reason}", hint=f"run it again, {elsewhere}")
