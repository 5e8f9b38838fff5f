"""Config files: text that is appended to a small config, and what must be said about it."""

from __future__ import annotations

from pathlib import Path

from hv15.config.yaml_file import MOST_VALUES
from hv15.patterns import LONGEST
from tests.hostile.entry import Hostile

BASE = "models: {source: demo}\ndatasets: [{video_directory: clips}]\n"


# Each line names the one before it ten times.
LISTS = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}\n" for n in range(1, 10)
)

CONFIGS: dict[str, tuple[str, str]] = {
    "a tag that runs programs": ("train: !!python/object/apply:os.system ['touch ran']", "expected plain values"),
    "a set": ("train: !!set {a, b}", "found the tag !!set, expected plain values: leave the tag out"),
    "pairs": ("train: !!omap [a: 1]", "found the tag !!omap, expected plain values"),
    "a date": ("task: !!timestamp 2020-99-99", "with the tag !!timestamp, which does not fit it"),
    "bytes": ("task: !!binary aGVsbG8=", "with the tag !!binary, which does not fit it"),
    "no number": ("train: {learning_rate: !!float abc}", "with the tag !!float, which does not fit it"),
    "no truth": ("train: {compile: !!bool abc}", "with the tag !!bool, which does not fit it"),
    "not nothing": ("train: !!null abc", "with the tag !!null, which does not fit it"),
    "a tag of nobody": ("train: !local abc", "with the tag !local, which does not fit it"),
    "text of a mapping": ("train: !!str {a: b}", "found the tag !!str, expected plain values"),
    "a number without end": (f"train: {{network_dim: {'9' * 6000}}}", "a number of 6,000 digits, expected at most 400"),
    "hexadecimal without end": (f"train: {{network_dim: 0x{'f' * 10**5}}}", "a number of 100,002 digits"),
    "a fraction without end": (f"train: {{learning_rate: 1.{'1' * 10**5}}}", "a number of 100,002 digits"),
    "beyond a float": ("train: {learning_rate: 1e999999}", "expected a finite number"),
    "an open list": ("train: " + "[" * 5000, "nested too deep"),
    "deep": ("train: " + "{a: " * 3000 + "1" + "}" * 3000, "nested too deep"),
    "deep keys": ("? " * 3000, "nested too deep"),
    "lists of lists": (LISTS + "train: {include_patterns: *a9}", "values, including what aliases"),
    "mappings in mappings": (MERGES + "train: *a9", "values, including what aliases"),
    "many values": ("x: [" + "1," * (MOST_VALUES + 1) + "]", f"more than {MOST_VALUES:,} values"),
    "many keys": ("train: {" + ",".join(f"k{n}: 1" for n in range(5000)) + "}", "unknown key"),
    "a key many times": ("task: t2v\n" * 5000, "is a duplicate"),
    "a long file": ("# " + "x" * (2 << 20), "at most 1,048,576 are read"),
    "a long key": (f"? {'k' * 10**5}\n: 1", "unknown key"),
    "a long path": (f"cache: {{directory: {'d/' * 10**5}}}", "at most 4,000 are possible"),
    "half a character": ('cache: {directory: "\\ud800"}', "half a character"),
    "a key of half a character": ('"\\udfff": 1', "half a character"),
    "a file separator": ("task: 't2v\x1c'", "config.yaml:3:11: is not YAML: found the control character 0x1c"),
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

DATASETS: dict[str, str] = {
    "repeats": "num_repeats: 1000000000",
    "batch": "batch_size: 1000000",
    "windows": f"target_frames: [{','.join(str(4 * n + 1) for n in range(200))}]",
    "rate": "target_fps: 1e12",
    "no rate": "source_fps: 1e-300",
    "clips": "frame_sample: 1000000, frame_extraction: uniform, target_frames: [5]",
}


def _config(text: str, said: str) -> Hostile:
    def make(folder: Path) -> None:
        (folder / "config.yaml").write_text(f"{BASE}{text}\n")

    return Hostile(make, ("check", "."), ("config.yaml", said))


def _dataset(settings: str) -> Hostile:
    text = f"models: {{source: demo}}\ndatasets: [{{video_directory: clips, {settings}}}]\n"
    return Hostile(
        lambda folder: (folder / "config.yaml").write_text(text),
        ("check", "."),
        ("config.yaml:2:", "datasets[0].", "expected at "),
    )


INPUTS = {
    **{f"config: {name}": _config(text, said) for name, (text, said) in CONFIGS.items()},
    **{f"dataset: {name}": _dataset(settings) for name, settings in DATASETS.items()},
}
