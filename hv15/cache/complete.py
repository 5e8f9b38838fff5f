"""Remembers which encodings are complete, so that a plan does not compare 100,000 items again to find that out.

What is remembered holds while everything that it was found from is the same: the needed keys, the manifests, and the
store's folders, whose times change when an item is added or removed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from hv15.cache.encoding import Encoding, ShardState
from hv15.digest import digest, text_digest
from hv15.records.json_values import Json
from hv15.remembered import Memory
from hv15.stamp import stamp

VERSION = 1
SETTLED_NS = 2_000_000_000
"""Nanoseconds. A folder that changed less than this before could change again without getting another time."""


class CompleteEncodings:
    """Finds the states of shards.

    Args:
        memory: the file that keeps what was found between plans; `save` writes it.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = Memory(memory, VERSION, "encoded items are compared again")

    def shards(self, encoding: Encoding[object]) -> list[ShardState]:
        """Return the state of each shard."""
        name, seen = str(encoding.folder), _seen(encoding)
        known = self._memory.entries.get(name)
        if isinstance(known, dict) and known.get("seen") == seen.digest:
            return [
                ShardState(str(needs), {"settings": encoding.settings, "needs": recorded}, is_complete=True)
                for needs, recorded in zip(_texts(known["needs"]), _texts(known["recorded"]), strict=True)
            ]
        states = [encoding.shard_state(shard) for shard in range(encoding.shards)]
        recorded = [state.recorded["needs"] for state in states if state.recorded is not None]
        is_settled = seen.newest_ns < time.time_ns() - SETTLED_NS
        if is_settled and len(recorded) == len(states) and all(state.is_complete for state in states):
            needs: list[Json] = [state.needs for state in states]
            self._memory.learn(name, {"seen": seen.digest, "needs": needs, "recorded": recorded})
        return states

    def save(self) -> None:
        """Save what was found. If that fails, it is found again the next time."""
        self._memory.save(keep=os.path.lexists)


class _Seen(NamedTuple):
    digest: str
    """Of everything that the states of the shards depend on."""
    newest_ns: int
    """When the last of the manifests and folders changed, in nanoseconds since 1970."""


def _seen(encoding: Encoding[object]) -> _Seen:
    manifests = [stamp(encoding.manifest_path(shard)) for shard in range(encoding.shards)]
    folders = encoding.store.folder_times()
    times = [found[1] for found in manifests if found is not None] + [changed for _, changed, _ in folders]
    needed = text_digest(",".join(encoding.needed))
    return _Seen(digest([encoding.settings, encoding.shards, needed, manifests, folders]), max(times, default=0))


def _texts(value: Json) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
