"""The clips of a dataset, one line each."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.dataset import Item
from tui.widgets.rows import Rows, cell


class ClipList(Rows[Item]):
    """Chooses a clip."""

    PART_NAME = "Clips"
    HELP = """The clips and images of all datasets. ! marks one that cannot be used or has no caption, * one with an
    edited caption that is not saved. Enter edits the caption."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.empty = "looking for clips"
        self.edited: set[Hashable] = set()
        """Items with an edited caption that is not saved."""

    def key(self, row: Item) -> Hashable:
        return item_key(row)

    def draw(self, row: Item, width: int) -> Content:
        mark, style = ("*", "bold $accent") if item_key(row) in self.edited else ("!", "bold $error")
        if mark == "!" and not row.problem:
            mark = " "
        name = max(10, min(32, width // 3))
        sizes = 14 if width >= 50 else 0
        facts = " ".join(dict.fromkeys(row.clips)) if row.clips else ""
        return Content.assemble(
            (f"{mark} ", style),
            cell(row.path.name, name),
            " ",
            cell(row.problem or row.caption, max(4, width - 3 - name - sizes), "$error" if row.problem else "$faint"),
            cell(facts, sizes, right=True) if sizes else "",
        )


def item_key(item: Item) -> Hashable:
    """What identifies an item: a file may be in two datasets, and a JSONL file holds many captions."""
    return (item.dataset, item.path, item.row)
