"""Copies of the store's items on a disk of this machine (`cache.scratch`), which a training reads instead of the store.

For a store on a network disk. An item is copied when it is first read, so every epoch but the first one reads locally,
and so do later trainings on this machine. A copy is complete or absent, has the size and time of its item, and is
checked when it is read, as the item is. Nothing is copied when the disk is nearly full. Whatever happens to a copy, the
item itself is read: a training is the same with copies and without.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import atomic_path
from hv15.cache.batches import Readable, Stores
from hv15.cache.store import BrokenItemError, Store
from hv15.config.section import expand_variables
from hv15.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

KEPT_FREE = 0.05
"""The part of the disk that is left free."""
ABANDONED_S = 3600.0
"""After so many seconds without a change, a copy that is not complete is one of a training that was killed."""

log = logging.getLogger(__name__)


class CopiedStore:
    """A store whose items are copied to a disk of this machine when they are read.

    Args:
        store: the store itself.
        folder: where the copies are, in the layout of a store.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._copies = Store(folder, store.kind, store.folder.name)
        self._copies_more = True

    def has(self, key: str) -> bool:
        """Whether the store has an item; a copy alone does not count."""
        return self._store.has(key)

    def read(self, key: str) -> dict[str, Tensor]:
        """Read an item, as `Store.read`.

        Raises:
            BrokenItemError: as `Store.read`, of the item itself.
        """
        if self._is_copied(key) or self._copy(key):
            try:
                return self._copies.read(key)
            except BrokenItemError as error:
                log.warning("%s: the store itself is read", error.message)
        return self._store.read(key)

    def _is_copied(self, key: str) -> bool:
        """Whether there is a copy of the item as it is now: it may have been encoded again."""
        try:
            item, copy = self._store.path(key).stat(), self._copies.path(key).stat()
        except OSError:
            return False
        return (item.st_size, item.st_mtime_ns) == (copy.st_size, copy.st_mtime_ns)

    def _copy(self, key: str) -> bool:
        """Copy an item; return whether that was done."""
        item, target = self._store.path(key), self._copies.path(key)
        try:
            found = item.stat()
            if not self._copies_more or not self._fits(found.st_size):
                return False
            _remove_abandoned(target)
            with atomic_path(target, durable=False) as part:
                shutil.copyfile(item, part)
                os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns))
        except FileNotFoundError:  # which is reported when the store is read
            return False
        except (OSError, UserError) as error:
            self._copies_more = False
            log.warning("cache.scratch: no more items are copied: %s", error)
            return False
        return True

    def _fits(self, size: int) -> bool:
        disk = shutil.disk_usage(self._copies.folder.parents[2])
        if disk.free - size >= KEPT_FREE * disk.total:
            return True
        self._copies_more = False
        log.warning("cache.scratch: %s is nearly full: no more items are copied", self._copies.folder.parents[2])
        return False


def _remove_abandoned(target: Path) -> None:
    """Remove what killed trainings have left of copies of the same item (`hv15.atomic.atomic_path` names them)."""
    for part in target.parent.glob(f".{target.stem}.*"):
        if time.time() - part.stat().st_mtime > ABANDONED_S:
            part.unlink(missing_ok=True)


def copied(stores: Stores, scratch: str | None, resolve: Callable[[str], Path]) -> Stores:
    """Return stores whose items are copied to this machine when they are read, as `cache.scratch` says.

    Where that is not possible, such as on a machine without the variable that it names, they are returned as they are.

    Args:
        scratch: the setting, in which variables are replaced now, on the machine that trains.
        resolve: makes a path of the config absolute.
    """
    if scratch is None:
        return stores
    try:
        folder = _own_folder(resolve(expand_variables(os.path.expandvars(scratch))))
    except (OSError, ValueError) as error:
        log.warning("cache.scratch: %s: not used on this machine: %s", scratch, error)
        return stores

    def with_copies(store: Readable) -> Readable:
        return CopiedStore(store, folder) if isinstance(store, Store) else store

    masks = None if stores.masks is None else with_copies(stores.masks)
    return Stores(with_copies(stores.latents), with_copies(stores.texts), masks)


def _own_folder(scratch: Path) -> Path:
    """Return this user's folder in a place that others may write to.

    Raises:
        OSError: it cannot be made, or somebody else made it.
        ValueError: a variable is not set.
    """
    if "$" in str(scratch):
        raise ValueError("a variable in it is not set")
    folder = scratch / f"hv15-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not this user's")
    return folder
