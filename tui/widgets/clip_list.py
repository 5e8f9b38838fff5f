"""The clips of a dataset, one line each."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.dataset import Item
from tui.widgets.rows import Rows, cell


class ClipList(Rows[Item]):
    """Chooses a clip."""

    HELP = """The clips and images of all datasets. ! marks one that cannot be used, or has no caption; * one whose
    caption was edited and not saved. Enter edits the caption."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.empty = "looking for clips"
        self.edited: set[Hashable] = set()
        """Items whose caption was edited and not saved."""

    def key(self, row: Item) -> Hashable:
        return item_key(row)

    def line(self, row: Item, width: int) -> Content:
        mark, look = ("*", "bold $accent") if item_key(row) in self.edited else ("!", "bold $error")
        if mark == "!" and not row.problem:
            mark = " "
        name = max(10, min(32, width // 3))
        sizes = 14 if width >= 50 else 0
        facts = " ".join(dict.fromkeys(row.clips)) if row.clips else ""
        words = visible(row.problem or row.caption)
        return Content.assemble(
            (f"{mark} ", look),
            cell(visible(row.path.name), name),
            " ",
            cell(words.replace("\n", " "), max(4, width - 3 - name - sizes), "$error" if row.problem else "$faint"),
            cell(facts, sizes, right=True) if sizes else "",
        )


_SIGNS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_SIGNS[0x7F] = 0x2421
# No signs exist for what terminals take for escapes too, and for what turns the direction of writing: a blank of the
# private plane stands for each, so that a caption that is edited keeps them.
_SIGNS |= {code: 0x100000 + code for code in (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CODES = {sign: code for code, sign in _SIGNS.items()}


def visible(text: str) -> str:
    """Give control characters a sign of their own (escape: \u241b), so that no terminal obeys what a file says."""
    return text.translate(_SIGNS)


def original(text: str) -> str:
    """The text that `visible` was given."""
    return text.translate(_CODES)


def item_key(item: Item) -> Hashable:
    """What an item is known by: a file may stand in two datasets, a JSONL file holds many captions."""
    return (item.dataset, item.path, item.row)
