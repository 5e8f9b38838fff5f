"""Config files that somebody wrote to do harm, or that an editor wrecked: a sentence, in bounded time and memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.config import load_config
from hv15.errors import UserError
from hv15.patterns import PatternError, Searches
from tests.hostile.configs import BASE


@pytest.mark.slow
def test_what_is_usual_is_far_from_the_limits(tmp_path: Path) -> None:
    """A thousand long prompts, merges and anchors."""
    prompts = "".join(f"    - {{<<: *base, prompt: {'a long prompt ' * 40}{n}, seed: {n}}}\n" for n in range(1000))
    file = tmp_path / "config.yaml"
    file.write_text(BASE + "sample:\n  prompts:\n    - &base {prompt: x, infer_steps: 5}\n" + prompts)
    assert len(load_config(file).sample.prompts) == 1001


SLOW = (r"(\w+)+!", r"(a|a|\w)*$x", r"(\w*\w*\w*\w*\w*\w*\w*\w*)*!", r"(?:\w|\w\w)+!", r"(?R)?x")


@pytest.mark.parametrize("pattern", SLOW)
def test_a_search_ends(pattern: str) -> None:
    start = time.process_time()
    searches = Searches(0.5)
    names = [f"double_blocks.{n}.img_attn_q_and_a_long_name_{'a' * 40}" for n in range(100)]
    try:
        assert not all(searches.found(pattern, name) for name in names)
    except PatternError as error:
        assert "too long" in str(error)  # noqa: PT017
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"img_attn_[qkv]$", True),
        (r"^double_blocks\.(1|2)\.", True),
        (r"(?<!txt)_attn_q", True),
        (r"^(?!.*img)", False),
        (r"\d{2}", False),
        (r"(?i)IMG", True),
    ],
)
def test_patterns_mean_what_they_mean_in_python(pattern: str, found: bool) -> None:
    assert Searches().found(pattern, "double_blocks.1.img_attn_q") is found


few = settings(
    max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

FORBIDDEN = st.sampled_from(["*a", "&a ", "!!set ", "!!float ", "<<: *a", "\t", "? ", "'", '"\\ud800"', "[", "{", "\0"])
PARTS = st.sampled_from(
    ["task", "train", "models", "datasets", ": ", "- ", "\n", "  ", "t2v", "{", "}", "[", "]", ",", "1e9", "0x", "true"]
)


@few
@given(parts=st.lists(st.one_of(PARTS, FORBIDDEN, st.text(max_size=4)), max_size=12))
def test_any_text_is_read_or_refused(parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for text in ("".join(parts), BASE + "".join(parts)):
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            load_config(file)
        except UserError as error:
            assert error.message.startswith(str(file))  # noqa: PT017


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["task", "models", "datasets", "cache", "train", "sample", "convert", "runtime", "other"])


@pytest.mark.slow
@few
@given(
    content=st.dictionaries(KEYS, VALUES, max_size=4), inner=st.dictionaries(st.text(max_size=5), VALUES, max_size=2)
)
def test_any_values_are_read_or_refused(content: dict[str, object], inner: dict[str, object], tmp_path: Path) -> None:
    base = yaml.safe_load(BASE)
    file = tmp_path / "config.yaml"
    for data in (content, base | content, base | {"train": inner}, base | {"datasets": [inner]}):
        file.write_text(yaml.safe_dump(data))
        try:
            load_config(file)
        except UserError as error:
            assert str(error)  # noqa: PT017
