"""Files of prompts: what they mean, the names of their prompts, and each mistake with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hv15.config import PromptSettings, Settings
from hv15.config.prompt_files import MOST_PROMPTS, read_prompts
from hv15.config.sample import automatic_name
from hv15.records.problems import ConfigError
from tests.config.conftest import Load, Problems

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
ODD = ["a cat --i photo.png --w 640 {x|y} <lora:a:1> ${HOME}", 'a "sign: 5%"', "- a list?", "[1, 2]", "seed: 5"]


def texts(settings: Settings) -> list[str]:
    return [prompt.prompt for prompt in settings.sample.prompts]


def written(name: str, content: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.txt", "\n".join(["# a comment", *ODD, "", "  "])),
        ("prompts.TXT", "\r\n".join(ODD)),
        ("prompts.txt", "\r".join(["# a comment", *ODD])),
        ("prompts.txt", b"\xef\xbb\xbf" + "\n".join(ODD).encode()),
        ("prompts.jsonl", "\n".join(map(json.dumps, ODD))),
        ("prompts.ndjson", "\n\n".join(json.dumps({"prompt": text}) for text in ODD)),
        ("prompts.yaml", yaml.safe_dump(ODD)),
        ("prompts.yml", yaml.safe_dump([{"prompt": text} for text in ODD])),
    ],
)
def test_all_kinds_hold_the_same_and_a_text_is_only_a_text(load: Load, name: str, content: str | bytes) -> None:
    written(name, content)
    settings = load(f"sample: {{prompts_file: {name}}}")
    assert texts(settings) == ODD
    plain = PromptSettings(prompt="x")
    for prompt in settings.sample.prompts:
        assert prompt.model_copy(update={"name": plain.name, "prompt": "x"}) == plain
        assert SAFE.fullmatch(prompt.name)


def test_entries_have_everything_that_the_config_has(load: Load) -> None:
    entry = {
        "name": "cat",
        "prompt": "a cat",
        "negative_prompt": "blurry",
        "video_size": [64, 80],
        "video_length": 9,
        "infer_steps": 3,
        "guidance_scale": 2.5,
        "flow_shift": 3.0,
        "seeds": [1, 2],
        "fps": 12.0,
        "output_type": "images",
        "loras": [{"path": "style.safetensors", "multiplier": 0.5}],
        "lora_multiplier": 0.7,
        "with_base": True,
        "sr": "off",
    }
    assert not PromptSettings.model_fields.keys() - entry.keys() - {"image_path", "seed"}
    written("a.jsonl", json.dumps(entry))
    written("a.yaml", yaml.safe_dump([entry]))
    inline = load(f"sample: {{prompts: [{json.dumps(entry)}]}}").sample.prompts
    for name in ("a.jsonl", "a.yaml"):
        assert load(f"sample: {{prompts_file: {name}}}").sample.prompts == inline


def test_they_come_after_those_of_the_config_and_a_dump_is_complete(load: Load) -> None:
    written("more.txt", "a dog\na pig\n")
    settings = load("sample: {prompts_file: more.txt, prompts: [{prompt: a cat}]}")
    assert texts(settings) == ["a cat", "a dog", "a pig"]
    assert Settings.model_validate(settings.dump()).sample == settings.sample
    again = load("sample: {prompts: [{prompt: a cat}]}", overrides={"sample": {"prompts_file": "more.txt"}})
    assert again.sample == settings.sample


def test_names_are_those_of_the_config(load: Load) -> None:
    written("a.txt", "a cat\na dog")
    assert [prompt.name for prompt in load("sample: {prompts_file: a.txt}").sample.prompts] == [
        automatic_name("a cat"),
        automatic_name("a dog"),
    ]


def test_entries_that_share_a_prompt_have_names_that_do_not_depend_on_their_order(load: Load) -> None:
    entries = [{"prompt": "a cat", "seed": 1}, {"prompt": "a cat", "seed": 2}, {"prompt": "a dog"}]
    written("a.jsonl", "\n".join(map(json.dumps, entries)))
    names = {prompt.seed: prompt.name for prompt in load("sample: {prompts_file: a.jsonl}").sample.prompts}
    assert len(set(names.values())) == 3
    assert names[None] == automatic_name("a dog")
    written("a.jsonl", "\n".join(map(json.dumps, reversed(entries))))
    assert {prompt.seed: prompt.name for prompt in load("sample: {prompts_file: a.jsonl}").sample.prompts} == names


def test_paths_start_at_the_files_folder_or_else_the_projects(load: Load, tmp_path: Path) -> None:
    written("lists/here.png", b"x")
    written("there.png", b"x")
    other = tmp_path.with_name(tmp_path.name + "-other")
    written(str(other / "elsewhere.png"), b"x")
    entries = [
        {"prompt": "a", "image_path": "here.png"},
        {"prompt": "b", "image_path": "there.png", "loras": [{"path": "here.png"}]},
        {"prompt": "c", "image_path": "missing.png"},
        {"prompt": "d", "image_path": str(other / "elsewhere.png")},
    ]
    written("lists/a.jsonl", "\n".join(map(json.dumps, entries)))
    settings = load("task: i2v\nsample: {prompts_file: lists/a.jsonl}")
    paths = [prompt.image_path for prompt in settings.sample.prompts]
    assert paths == ["lists/here.png", "there.png", "missing.png", str(other / "elsewhere.png")]
    assert [lora.path for lora in settings.sample.prompts[1].loras or ()] == ["lists/here.png"]
    assert settings.sample.prompts[0].name == automatic_name("a", "here.png")  # wherever the project is
    written(str(other / "b.jsonl"), json.dumps({"prompt": "a", "image_path": "elsewhere.png"}))
    settings = load(f"task: i2v\nsample: {{prompts_file: {other / 'b.jsonl'}}}")
    assert settings.sample.prompts[0].image_path == str(other / "elsewhere.png")


def test_every_mistake_of_the_settings_is_named_with_its_line(problems: Problems, tmp_path: Path) -> None:
    written("a.yaml", "- a cat\n- prompt: a dog\n  seed: -1\n  sede: 3\n- {prompt: a pig, video_length: 6}\n")
    assert problems("sample: {seed: x, prompts_file: a.yaml, prompts: [{prompt: a hen, fps: 0}]}") == [
        "config.yaml:3:16 sample.seed: found 'x', expected a whole number",
        "config.yaml:3:72 sample.prompts[0].fps: found 0, expected at least 0.01",
        f"{tmp_path}/a.yaml:3:9 seed: found -1, expected at least 0",
        f"{tmp_path}/a.yaml:4:3 sede: unknown key; did you mean 'seed'?",
        f"{tmp_path}/a.yaml:5:33 video_length: 6 frames: the VAE needs 4k+1 frames; the nearest are 5 and 9",
    ]
    written("a.jsonl", '"a cat"\n\n{"prompt": "a dog", "seed": -1}\n{"prompt": "a pig", "seed": 1, "seeds": [2]}\n')
    assert problems("sample: {prompts_file: a.jsonl}") == [
        f"{tmp_path}/a.jsonl:3 seed: found -1, expected at least 0",
        f"{tmp_path}/a.jsonl:4 seeds: are set, and so is seed: keep one of the two",
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "[]", "a.json: expected a file of prompts that ends in .yaml, .jsonl or .txt"),
        ("a.txt", "", "a.txt: no prompts in this file"),
        ("a.txt", "# only\n", "a.txt: no prompts in this file"),
        ("a.txt", "a cat\na dog\na cat\n", "a.txt:3: says the same as the prompt in line 1: remove one"),
        ("a.txt", b"a cat\na d\xf6g\n", "a.txt:2: not UTF-8: byte 0xf6 in this line, at offset 3"),
        ("a.txt", "a cat".encode("utf-16"), "a.txt:1: not UTF-8 but UTF-16"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "a.jsonl:2:15: not JSON: Expecting ',' delimiter"),
        ("a.jsonl", "a cat\n", "a.jsonl:1:1: not JSON"),
        ("a.jsonl", "\n3\n", "a.jsonl:2: found 3, expected a text, or settings as in sample.prompts"),
        ("a.jsonl", "null\n", "a.jsonl:1: found nothing, expected a text"),
        ("a.jsonl", '{"prompt": "a", "prompt": "b"}', "a.jsonl:1: 'prompt' is a duplicate"),
        ("a.jsonl", '{"prompt": "a", "fps": NaN}', "a.jsonl:1: found NaN, expected a finite number"),
        ("a.jsonl", '"half \\ud800"', "a.jsonl:1: holds half a character"),
        ("a.jsonl", '"nul \\u0000"', "a.jsonl:1: holds a NUL character"),
        ("a.jsonl", "[" * 9999, "a.jsonl:1: nested too deeply"),
        (
            "a.jsonl",
            '{"name": "x", "prompt": "a"}\n{"name": "X", "prompt": "b"}',
            "'X' is also the name of the prompt in line 1",
        ),
        ("a.jsonl", '{"name": "a/b", "prompt": "a"}', "a.jsonl:1 name: found 'a/b', expected at most 100 letters"),
        ("a.jsonl", '{"prompt": ""}', "a.jsonl:1 prompt: found '', expected some text"),
        ("a.jsonl", '{"seed": 1}', "a.jsonl:1 prompt: is missing"),
        ("a.yaml", "", "a.yaml: is empty"),
        ("a.yaml", "prompts: [a]", "a.yaml:1:1: found settings, expected a list of prompts"),
        ("a.yaml", "- a\n- b: c\n", "a.yaml:2: found a mapping that begins with 'b': if it is a prompt with a colon"),
        ("a.yaml", "- 'a\n", "a.yaml:1:3: is not YAML: the quote that is opened here is never closed"),
        ("a.yaml", "- a\n- {prompt: b, prompt: c}\n", "is a duplicate: the key is already in line 2"),
        ("a.yaml", "- a\n- 3\n", "a.yaml:2: found 3, expected a text"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused(problems: Problems, name: str, content: str, expected: str) -> None:
    written(name, content)
    assert expected in problems(f"sample: {{prompts_file: {name}}}")[0]


def test_no_mistake_hides_the_others(problems: Problems, tmp_path: Path) -> None:
    lines = [
        '{"name": "x", "prompt": "a"}',
        '{"prompt": "b"',
        '{"name": "X", "prompt": "c", "fps": 0}',
        "3",
        '{"prompt": "d", "seed": NaN}',
        '{"prompt": "e", "seed": -1}',
    ]
    written("a.jsonl", "\n".join(lines))
    assert problems("sample: {seed: x, prompts_file: a.jsonl}") == [
        "config.yaml:3:16 sample.seed: found 'x', expected a whole number",
        f"{tmp_path}/a.jsonl:2:15: not JSON: Expecting ',' delimiter",
        f"{tmp_path}/a.jsonl:3: 'X' is also the name of the prompt in line 1: give each prompt its own name",
        f"{tmp_path}/a.jsonl:3 fps: found 0, expected at least 0.01",
        f"{tmp_path}/a.jsonl:4: found 3, expected a text, or settings as in sample.prompts, such as "
        "{prompt: a cat, seed: 5}",
        f"{tmp_path}/a.jsonl:5: found NaN, expected a finite number",
        f"{tmp_path}/a.jsonl:6 seed: found -1, expected at least 0",
        "  hint: write one entry a line: a text in quotes, or an object in braces",
    ]
    written("a.yaml", "- 3\n- a cat\n- a cat\n- {prompt: a dog, seed: -1}\n")
    assert problems("sample: {prompts_file: a.yaml}") == [
        f"{tmp_path}/a.yaml:1: found 3, expected a text, or settings as in sample.prompts, such as "
        "{prompt: a cat, seed: 5}",
        f"{tmp_path}/a.yaml:3: says the same as the prompt in line 2: remove one, or ask for several seeds",
        f"{tmp_path}/a.yaml:4:25 seed: found -1, expected at least 0",
    ]


def test_a_file_that_is_not_there(problems: Problems, tmp_path: Path) -> None:
    found = problems("sample: {prompts_file: a.txt}")
    assert found == [
        f"config.yaml:3:24 sample.prompts_file: there is no file {tmp_path}/a.txt; expected a file of prompts (.yaml, "
        ".jsonl or .txt)"
    ]
    Path("a.txt").mkdir()
    assert "a.txt is a folder; expected a file of prompts" in problems("sample: {prompts_file: a.txt}")[0]
    assert "found 3, expected text" in problems("sample: {prompts_file: 3}")[0]


def test_names_of_the_config_and_of_the_file_differ(problems: Problems, tmp_path: Path) -> None:
    written("a.jsonl", '"a dog"\n{"name": "cat", "prompt": "a"}')
    assert problems("sample: {prompts_file: a.jsonl, prompts: [{name: cat, prompt: b}]}") == [
        f"{tmp_path}/a.jsonl:2 name: 'cat' is also the name of prompts[0]: give each prompt its own name"
    ]


def test_too_many_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"a cat of {number}" for number in range(MOST_PROMPTS + 1)))
    with pytest.raises(ConfigError, match="10,001 prompts, at most 10,000"):
        read_prompts(path, tmp_path)


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0\ufeff")
"""Those of UTF-8: all but halves of characters. (To name the codec makes Hypothesis try each of a million.)"""
LINES = st.text(CHARACTERS, min_size=1).map(str.strip).filter(bool)


@given(st.lists(LINES.filter(lambda line: not line.startswith("#")), min_size=1, max_size=8, unique=True))
def test_any_lines_come_back_as_they_are_with_names_for_files(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("prompts") / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    entries = read_prompts(path, path.parent).entries
    assert [entry["prompt"] for entry in entries] == lines
    names = [str(entry["name"]) for entry in entries]
    assert len({name.lower() for name in names}) == len(names)
    assert all(map(SAFE.fullmatch, names))
