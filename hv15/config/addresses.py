"""Addresses of servers in the config: complete, and without a secret, which belongs into the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

LONGEST_ADDRESS = 2000
"""Characters."""
INSTEAD = "keep it in an environment variable and write its name, as ${NAME}"
"""What to do with a secret."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_SECRET_PARTS = re.compile(r"(?i)token|secret|passw|key|auth|hook|topic|credential")
_WORD = re.compile(r"[A-Za-z0-9_.~+-]+")
_LEAST_SECRET = 6
"""Characters: a shorter value is a word like any other."""
_SECRET_NAMES = re.compile(r"(?i)token|secret|passw|auth|sign?(ature)?|.*key")
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_UUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_READABLE = 40
"""Characters: what is longer, people do not write."""


def variables(address: str) -> list[str]:
    """Return the names of the environment variables that an address names as ${NAME}."""
    return _VARIABLE.findall(address)


def with_variables(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """Put the values of environment variables into an address.

    Raises:
        KeyError: one of them is not set.
    """
    return _VARIABLE.sub(lambda match: environment[match[1]].strip(), address).strip()


def check_address(address: str, example: str, *, telling_path: bool = False) -> str:
    """Return an address of http or https if it is one without secrets; the value of a ${NAME} is not looked at.

    Args:
        example: an address, for messages.
        telling_path: whether its path may look like a token.

    Raises:
        ValueError: it is not one, or holds a secret. The message does not repeat it.
    """
    if len(address) > LONGEST_ADDRESS:
        raise ValueError(f"the address has {len(address):,} characters, at most {LONGEST_ADDRESS:,} are possible")
    plain = _VARIABLE.sub("x", address)
    if "$" in plain:
        raise ValueError("expected the name of an environment variable as ${NAME}")
    parts = parsed(f"https://{plain}" if _VARIABLE.match(address) else plain)  # the value may hold all of the address
    if parts is None:
        raise ValueError(f"expected an address such as {example}")
    refuse_secrets(parts, telling_path=telling_path)
    return address


def parsed(address: str) -> SplitResult | None:
    """Return the parts of an address of http or https; None if it is none."""
    try:
        parts = urlsplit(address)
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port that is no number
        return None
    return parts if is_complete and re.fullmatch(r"[!-~]+", address) else None


def refuse_secrets(parts: SplitResult, *, telling_path: bool = False) -> None:
    """Check that an address holds no secret.

    Raises:
        ValueError: it does. The message does not repeat it.
    """
    if "@" in parts.netloc:
        raise ValueError(f"holds a user name or a password: {INSTEAD}")
    values = parse_qsl(parts.query, keep_blank_values=True)
    if any(is_secret(value) or (len(value) > 1 and _SECRET_NAMES.fullmatch(name)) for name, value in values):
        raise ValueError(f"looks as if it held a token behind the question mark: {INSTEAD}")
    if not telling_path and any(map(is_secret, parts.path.split("/"))):
        raise ValueError(f"looks as if a part of it were a token: {INSTEAD}")


def is_secret(word: str) -> bool:
    """Whether a word looks made by a machine: letters and digits mixed, a UUID, or longer than people write."""
    mixed = any(re.search(r"\d", run) and re.search(r"[A-Za-z]", run) for run in _RUN.findall(word))
    return mixed or bool(_UUID.fullmatch(word)) or len(word) > _MOST_READABLE


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a line of a program with words that look like a token replaced by `***`, and values of environment
    variables whose names say that they are secret by these names, as ${NAME}."""
    values = {value.strip(): name for name, value in environment.items() if _SECRET_PARTS.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _LEAST_SECRET:
            text = text.replace(value, f"${{{values[value]}}}")
    return _WORD.sub(lambda match: "***" if is_secret(match[0]) else match[0], text)
