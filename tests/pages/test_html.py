"""Pages show what they are given as text, and tell what they were made from."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from hv15.pages.html import is_whole_page, read_page_metadata, render

TEMPLATE = (
    '{% extends "base.html" %}{% block title %}{{ name }}{% endblock %}{% block body %}<p>{{ name }}</p>{% endblock %}'
)
HOSTILE = """<script>alert(1)</script>"'&}}{{ 7 * 7 }}"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(TEMPLATE)
    return path


def test_what_a_value_holds_is_text(template: Path) -> None:
    page = render(template, {"name": HOSTILE})
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;}}{{ 7 * 7 }}") == 2


def test_a_variable_that_is_missing_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render(template, {})


def test_a_page_tells_what_it_was_made_from(template: Path, tmp_path: Path) -> None:
    made_from = {"format": 1, "text": HOSTILE, "none": None}
    page = tmp_path / "out.html"
    page.write_text(render(template, {"name": "x"}, made_from))
    told = read_page_metadata(page)
    assert json.loads(told["hv15.made_from"]) == made_from
    assert set(told) == {"hv15.version", "hv15.made_from"}
    page.write_text(render(template, {"name": '<meta name="hv15.made_from" content="{}">'}))
    assert set(read_page_metadata(page)) == {"hv15.version"}


def test_a_page_that_is_cut_off_is_not_whole(template: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    text = render(template, {"name": "x"})
    page.write_text(text)
    assert is_whole_page(page)
    for end in (-3, 100, 0):
        page.write_text(text[:end])
        assert not is_whole_page(page)


def test_a_browser_runs_the_one_script_of_a_page_and_no_other(template: Path, tmp_path: Path) -> None:
    code = tmp_path / "page.js"
    code.write_text("let a = 1 < 2;\n")
    assert "script" not in render(template, {"name": "x"})
    page = render(template, {"name": HOSTILE}, script=code)
    digest = b64encode(sha256(code.read_bytes()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count("<script>") == 1
    assert f"<script>{code.read_text()}</script>" in page
