"""Config files that somebody wrote to do harm, or that an editor wrecked: a sentence, in bounded time and memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.config import load_config
from hv15.config.yaml_file import MOST_VALUES
from hv15.errors import UserError
from hv15.patterns import LONGEST, PatternError, Searches

BASE = "models: {source: demo}\ndatasets: [{video_directory: clips}]\n"


# Each line names the one before it ten times.
LISTS = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}\n" for n in range(1, 10)
)

HOSTILE: dict[str, tuple[str, str]] = {
    "a tag that runs programs": ("train: !!python/object/apply:os.system ['touch ran']", "expected plain values"),
    "a set": ("train: !!set {a, b}", "found the tag !!set, expected plain values"),
    "pairs": ("train: !!omap [a: 1]", "found the tag !!omap, expected plain values"),
    "a date": ("task: !!timestamp 2020-99-99", "with the tag !!timestamp, which does not fit it"),
    "bytes": ("task: !!binary aGVsbG8=", "with the tag !!binary, which does not fit it"),
    "no number": ("train: {learning_rate: !!float abc}", "with the tag !!float, which does not fit it"),
    "no truth": ("train: {compile: !!bool abc}", "with the tag !!bool, which does not fit it"),
    "not nothing": ("train: !!null abc", "with the tag !!null, which does not fit it"),
    "a tag of nobody": ("train: !local abc", "with the tag !local, which does not fit it"),
    "text of a mapping": ("train: !!str {a: b}", "found the tag !!str, expected plain values"),
    "a number without end": (f"train: {{network_dim: {'9' * 6000}}}", "a number of 6,000 digits"),
    "hexadecimal without end": (f"train: {{network_dim: 0x{'f' * 10**5}}}", "a number of 100,002 digits"),
    "a fraction without end": (f"train: {{learning_rate: 1.{'1' * 10**5}}}", "a number of 100,002 digits"),
    "beyond a float": ("train: {learning_rate: 1e999999}", "expected a finite number"),
    "an open list": ("train: " + "[" * 5000, "nested too deep"),
    "deep": ("train: " + "{a: " * 3000 + "1" + "}" * 3000, "nested too deep"),
    "deep keys": ("? " * 3000, "nested too deep"),
    "lists of lists": (LISTS + "train: {include_patterns: *a9}", "values, including what aliases"),
    "mappings in mappings": (MERGES + "train: *a9", "values, including what aliases"),
    "many values": ("x: [" + "1," * (MOST_VALUES + 1) + "]", f"more than {MOST_VALUES:,} values"),
    "many keys": ("train: {" + ",".join(f"k{n}: 1" for n in range(20_000)) + "}", "unknown key"),
    "a key many times": ("task: t2v\n" * 20_000, "is a duplicate"),
    "a long file": ("# " + "x" * (2 << 20), "at most 1,048,576 are read"),
    "a long key": (f"? {'k' * 10**5}\n: 1", "unknown key"),
    "a long path": (f"cache: {{directory: {'d/' * 10**5}}}", "at most 4,000 are possible"),
    "half a character": ('cache: {directory: "\\ud800"}', "half a character"),
    "a key of half a character": ('"\\udfff": 1', "half a character"),
    "a file separator": ("task: 't2v\x1c'", "control character 0x1c"),
    "too many jobs": ("cache: {shards: 1000000}", "found 1000000, expected at most 4096"),
    "too many threads": ("cache: {workers: 100000}", "expected at most 4096"),
    "too many steps": ("train: {max_train_steps: 10000000000}", "at most 1,000,000,000 are possible"),
    "a huge rank": ("train: {network_dim: 1000000}", "expected at most 4096"),
    "a huge sample": ("sample: {video_size: [16, 160000]}", "at most 8192"),
    "a long sample": ("sample: {video_length: 400001}", "expected 1 to 10001"),
    "many denoising steps": ("sample: {infer_steps: 1000000}", "expected at most 4096"),
    "a huge frame rate": ("sample: {fps: 1e300}", "expected at most 1000"),
    "a repetition without end": ("train: {include_patterns: ['a{99999999999}']}", "not a regular expression"),
    "a deep pattern": (f"train: {{include_patterns: ['{'(' * 400}{')' * 400}']}}", "not a regular expression"),
    "a long pattern": (f"train: {{include_patterns: ['{'a' * (LONGEST + 1)}']}}", "at most 1,000 are possible"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    text, words = HOSTILE[name]
    file = tmp_path / "config.yaml"
    file.write_text(BASE + text + "\n")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError) as caught:
        load_config(file)
    assert time.process_time() - start < 10, "seconds"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"
    assert words in str(caught.value)
    assert len(caught.value.message) < 60_000
    assert max(map(len, caught.value.message.splitlines())) < 700 + len(str(file))
    assert not (tmp_path / "ran").exists()


DATASET: dict[str, str] = {
    "repeats": "num_repeats: 1000000000",
    "batch": "batch_size: 1000000",
    "windows": f"target_frames: [{','.join(str(4 * n + 1) for n in range(200))}]",
    "rate": "target_fps: 1e12",
    "no rate": "source_fps: 1e-300",
    "clips": "frame_sample: 1000000, frame_extraction: uniform, target_frames: [5]",
}


@pytest.mark.parametrize("name", DATASET)
def test_a_dataset_has_limits(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"models: {{source: demo}}\ndatasets: [{{video_directory: clips, {DATASET[name]}}}]\n")
    with pytest.raises(UserError, match=r"expected at (most|least)|greater than or equal"):
        load_config(file)


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


FORBIDDEN = st.sampled_from(["*a", "&a ", "!!set ", "!!float ", "<<: *a", "\t", "? ", "'", '"\\ud800"', "[", "{", "\0"])
PARTS = st.sampled_from(
    ["task", "train", "models", "datasets", ": ", "- ", "\n", "  ", "t2v", "{", "}", "[", "]", ",", "1e9", "0x", "true"]
)


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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
