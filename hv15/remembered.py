"""Files that remember results that took time to compute: text -> JSON, with a digest of the whole.

Losing one costs only time. A damaged one is discarded, so its entries are never wrong.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object

log = logging.getLogger(__name__)


class Memory:
    """The entries of one file.

    Args:
        path: of the file; it need not exist.
        version: of the meaning of its entries; a file of another version is not used.
        cost: what has to be done again without it, for the warning about a damaged file.
    """

    def __init__(self, path: Path, version: int, cost: str) -> None:
        self.path, self._version, self._cost = Path(path), version, cost
        self.entries: JsonObject = self._load()
        self._learnt: JsonObject = {}

    def learn(self, name: str, value: Json) -> None:
        self.entries[name] = self._learnt[name] = value

    def save(self, keep: Callable[[str], bool] | None = None) -> None:
        """Add the new entries to the file, if it can be written, and keep those that another process has added.

        Args:
            keep: called with each name; the other entries are forgotten. None keeps all.
        """
        if not self._learnt:
            return
        entries = self._load() | self._learnt
        if keep is not None:
            entries = {name: value for name, value in entries.items() if keep(name)}
        body = json.dumps(entries, separators=(",", ":")).encode()
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(f"{self._header(body)}\n".encode() + body)
        except UserError as error:
            log.warning("%s: %s", error.message, self._cost)
        self._learnt = {}

    def _header(self, body: bytes) -> str:
        return f"version {self._version} sha256 {hashlib.sha256(body).hexdigest()}"

    def _load(self) -> JsonObject:
        try:
            header, _, body = self.path.read_bytes().partition(b"\n")
            if header != self._header(body).encode():
                raise RecordError("damaged, or of another version")
            return parse_object(body)
        except FileNotFoundError:
            return {}
        except (OSError, RecordError) as error:
            log.warning("%s: not used (%s): %s", self.path, error, self._cost)
            return {}
