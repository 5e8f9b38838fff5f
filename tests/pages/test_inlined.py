"""Files in a page, or linked where they are too large."""

from __future__ import annotations

import base64
from pathlib import Path

from hv15.pages.inlined import Inliner


def test_files_are_put_into_the_page_up_to_a_limit(tmp_path: Path) -> None:
    small, large = tmp_path / "samples/a b.png", tmp_path / "samples/large.mp4"
    small.parent.mkdir()
    small.write_bytes(b"12345")
    large.write_bytes(b"x" * 11)
    inliner = Inliner(tmp_path / "pages", most_of_a_file=10, most_of_a_page=12)
    assert inliner.url(small) == "data:image/png;base64," + base64.b64encode(b"12345").decode()
    assert inliner.url(large) == "../samples/large.mp4"
    assert inliner.url(small).startswith("data:")
    assert inliner.url(small) == "../samples/a%20b.png", "the page has its 12 bytes"
    assert inliner.linked == [large, small]
