"""Figures in a page: in its colours, with names of their own, and nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from hv15.pages.vector import INK, inline_svg


def drawing() -> Figure:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="tab:blue", label="a < b & c")
    axes.plot([0, 1], [1, 0], color="#123456", marker="o")
    axes.legend()
    return figure


@pytest.fixture(scope="module")
def svg() -> str:
    return inline_svg(drawing, "one", 'what "it" shows', {"#1f77b4": "--blue", "#123456": "--mine"})


def test_colours_are_the_pages(svg: str) -> None:
    assert "stroke: var(--blue)" in svg
    assert "stroke: var(--mine)" in svg
    assert "var(--ink)" in svg
    assert not {"#1f77b4", "#123456", INK, "#000000", "#ffffff"} & {*re.findall(r"#[0-9a-f]{6}\b", svg)}


def test_texts_are_texts(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    texts = ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a < b & c" in texts
    assert (root.get("role"), root.get("aria-label")) == ("img", 'what "it" shows')


def test_names_begin_with_the_figures(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    names = [name for element in root.iter() if (name := element.get("id"))]
    assert names
    assert all(name.startswith("one-") for name in names)
    assert len(names) == len({*names})
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
    assert references
    assert {a or b for a, b in references} <= {*names}


def test_nothing_is_from_elsewhere_and_equal_figures_are_equal(svg: str) -> None:
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert {*re.findall(r"https?://[^\"' ]+", svg)} <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    again = inline_svg(drawing, "one", 'what "it" shows', {"#1f77b4": "--blue", "#123456": "--mine"})
    assert again == svg
