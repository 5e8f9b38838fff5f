"""Uploads a LoRA with its model card to the Hugging Face Hub, as one commit.

The token is that of `hf auth login`, or of the environment (HF_TOKEN); hv15 neither asks for one nor keeps it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from hv15.errors import UserError

LOG_IN = "log in with `hf auth login`, or set a token with permission to write in HF_TOKEN"


def check_repository(name: str) -> None:
    """Check the name of a repository.

    Raises:
        UserError: it is none, or does not say whose it is.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--repo {name}: {error}", hint="give USER/NAME") from error
    if "/" not in name:
        raise UserError(f"--repo {name}: does not say whose it is", hint=f"give USER/{name}")


def address(repository: str) -> str:
    """Return the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def upload(repository: str, files: Mapping[str, Path | bytes], *, private: bool, message: str) -> str:
    """Upload files by their names in a repository, which is made if it is not there; return the commit's address.

    Files of the repository that have other names stay. Those that have not changed are not uploaded.

    Args:
        private: whether the repository is to be private: one that is made, and one that is there.

    Raises:
        UserError: the repository is public but is to be private; or no permission, no connection, or the server refuses
            them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="hv15")
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:  # one that was there is left as it was
            raise UserError(
                f"{repository}: is there already, and public, so nothing was uploaded",
                hint="make it private in its settings, choose another name, or leave out --private",
            )
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(repository, operations, commit_message=message)
    except UserError:
        raise
    except Exception as error:  # the client, its HTTP library and the disk raise unrelated classes of errors
        raise _refused(error, repository) from error
    return str(commit.commit_url)


def _refused(error: Exception, repository: str) -> UserError:
    """Return the error for a failed upload: what the server or the network answered, and what to do."""
    from huggingface_hub import constants, errors

    what = f"{repository}: cannot be uploaded to {constants.ENDPOINT}"
    again = "run it again: what is there already is not uploaded twice"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UserError(f"{what}: HF_HUB_OFFLINE is set", hint="unset it")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = (error.server_message or "").strip().partition("\n")[0]
        cure = LOG_IN if status in (401, 403, 404) else again
        return UserError(f"{what}: the server answered {status}" + (f", {said}" if said else ""), hint=cure)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or _is_of_the_network(error):
        return UserError(f"{what}: no connection ({error})", hint=f"check the network, then {again}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{what}: {reason}", hint=again)


def _is_of_the_network(error: Exception) -> bool:
    """Whether the client's HTTP library raised it, whichever that is."""
    return any(name.__name__ in ("TransportError", "NetworkError") for name in type(error).__mro__)
