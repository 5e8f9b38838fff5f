"""What products record about how they were made: the spec of each, read from its own file and nothing else.

A file is read again only when its size, time or inode has changed. What was read is remembered, but may be lost at any
time.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hv15.project.metadata import product_metadata
from hv15.records.json_values import Json, JsonObject, parse_object
from hv15.records.metadata import CONVERSION_ABOUT, CONVERSION_FORMAT, CONVERTED_TO, CONVERTED_TRAINING, MADE_FROM
from hv15.remembered import Memory
from hv15.stamp import Stamp, stamp

VERSION = 3

log = logging.getLogger(__name__)


class MadeFromReader:
    """Reads what products record, and remembers it.

    Args:
        memory: the file that keeps what was read between plans; `save` writes it.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = Memory(memory, VERSION, "products are read again")

    def made_from(self, product: Path) -> JsonObject | None:
        """Return what a .safetensors, .mp4, .png, .html or .md file, or a folder of images was made from.

        None when it is missing or torn, or holds no such record.
        """
        seen = _stamp(product)
        if seen is None:
            return None
        key = str(product)
        known = self._memory.entries.get(key)
        if isinstance(known, list) and len(known) == 2 and known[0] == seen:
            recorded = known[1]
        else:
            recorded = _read(product)
            self._memory.learn(key, [seen, recorded])
        return recorded if isinstance(recorded, dict) else None

    def save(self) -> None:
        """Save what was read of the files that exist. If that fails, it is read again the next time."""
        self._memory.save(keep=os.path.lexists)


def _stamp(product: Path) -> Json:
    """(size, mtime_ns, inode) of a file, or those of the images in a folder; None if it is missing."""
    if product.is_dir():
        return [_listed(stamp(file)) for file in sorted(product.glob("*.png"))]
    return _listed(stamp(product))


def _listed(found: Stamp | None) -> Json:
    return None if found is None else [*found]


def _read(product: Path) -> JsonObject | None:
    try:
        metadata = product_metadata(product)
        if CONVERTED_TO in metadata:
            number, trained = metadata.get(CONVERSION_FORMAT, ""), metadata.get(CONVERTED_TRAINING, "")
            about = metadata.get(CONVERSION_ABOUT, "")
            return conversion_spec(trained, metadata[CONVERTED_TO], int(number) if number.isdecimal() else 0, about)
        recorded = parse_object(metadata[MADE_FROM])
    except Exception as error:  # whatever a damaged file does to one of the readers must not stop a plan
        log.debug("%s: %s", product, error)
        return None
    return recorded


def conversion_spec(trained: str, layout: str, number: int, about: str) -> JsonObject:
    """What a converted LoRA is made from: the training's digest, layout, format number, digest of what it tells."""
    return {"format": number, "trained": trained, "layout": layout, "about": about}
