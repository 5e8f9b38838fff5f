"""Where notices go, in words, and what is missing on this machine to send them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hv15.config.addresses import parsed, variables, with_variables
from hv15.config.notify import NotifySettings

NTFY_SERVER = "https://ntfy.sh"


def is_wanted(settings: NotifySettings) -> bool:
    """Whether any notice is ever sent."""
    return bool(settings.events and places(settings))


def places(settings: NotifySettings) -> dict[str, str]:
    """Return where notices go: by the name of the setting, in words that tell no secret."""
    found = {}
    if settings.ntfy is not None:
        found["ntfy"] = f"ntfy ({host_of(settings.ntfy, urlsplit(NTFY_SERVER).netloc)})"
    if settings.webhook is not None:
        found["webhook"] = f"webhook ({host_of(settings.webhook)})"
    if settings.command:
        found["command"] = f"command ({Path(settings.command[0]).name})"
    return found


def host_of(address: str, otherwise: str = "") -> str:
    """Return the host of an address, or the variables that hold it; `otherwise` if it names neither."""
    parts = parsed(address)
    if parts is not None:
        return parts.netloc if "$" not in parts.netloc else ", ".join(variables(parts.netloc))
    return ", ".join(variables(address)) or otherwise


def missing(settings: NotifySettings, root: Path, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield what keeps a notice from being sent, in words that begin with the setting.

    Args:
        settings: those of the notices.
        root: the project folder, in which the command is run.
        environment: the variables that the run will have.
    """
    named = {
        "ntfy": variables(settings.ntfy or ""),
        "ntfy_token_env": [settings.ntfy_token_env] if settings.ntfy and settings.ntfy_token_env else [],
        "webhook": variables(settings.webhook or ""),
        "webhook_token_env": [settings.webhook_token_env] if settings.webhook and settings.webhook_token_env else [],
    }
    for setting, names in named.items():
        for name in names:
            if not environment.get(name, "").strip():
                yield f"notify.{setting}: the environment variable {name} is not set"
    for setting, address in (("ntfy", settings.ntfy), ("webhook", settings.webhook)):
        unset = [name for name in variables(address or "") if not environment.get(name, "").strip()]
        if address and "${" in address and not unset:
            full = with_variables(address, environment)
            if parsed(full) is None and not (setting == "ntfy" and "/" not in full):
                yield f"notify.{setting}: with the value of {', '.join(variables(address))} it is no address"
    if settings.command and program(settings.command[0], root, environment) is None:
        yield f"notify.command: there is no program {settings.command[0]}"


def program(word: str, root: Path, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of a command's program; None if there is none that may be executed.

    A name is searched for in PATH. A relative path starts at the project folder.
    """
    path = os.path.expanduser(word)  # noqa: PTH111 (keeps a name as it is, and fails for no user)
    if "/" in path:
        path = str(root / path)
    return shutil.which(path, path=environment.get("PATH"))
