"""Whatever the small files and texts of others hold, their readers read or refuse them.

Those of larger kinds have their tests beside them: config (tests/config/test_hostile.py), datasets and captions
(tests/data/test_musubi.py, test_rows.py, test_captions.py), media (tests/data/test_damage.py), headers
(tests/models/weights/test_header.py), LoRAs (tests/lora/test_hostile_files.py), records of runs and plans
(tests/runs/test_hostile_files.py), states (tests/train/test_hostile_states.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from hv15.cache.register import registered
from hv15.commands.provenance import config_of, describe
from hv15.data.encode import write_image, write_video
from hv15.data.images import read_image
from hv15.demo.tokenizer import build_tokenizer
from hv15.errors import UserError
from hv15.lora import read_lora
from hv15.models import facts
from hv15.models.dit_sizes import read_config
from hv15.models.tokenizer import PromptTokenizer, load_qwen_tokenizer
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.models.weights.fp8_files import WeightReader
from hv15.project.metadata import product_metadata
from hv15.records.device_rates import read_device_rates
from hv15.records.json_values import RecordError, parse_object
from hv15.records.metadata import CONFIG, MADE_FROM, MODEL_SIZES, SAMPLE
from hv15.runs.foreign_messages import failure_by_exit, failure_in_log, failure_of_run
from hv15.sample.files import read_latents
from hv15.sample.prompts import LoRAFile, SampleSpec
from tests.data.profiles import P3, rgb_profile, srgb_curve
from tests.hostile.damage import damaged
from tests.hostile.loras import WEIGHTS
from tests.models.golden_dit import tensors
from tui.data.samples import _recorded_settings

FRAMES = np.zeros((5, 32, 32, 3), np.uint8)
PROFILE = rgb_profile(P3, srgb_curve(np.linspace(0, 1, 64)))
INDEX = json.dumps({"metadata": {"total_size": 4}, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
ROPE = {"rope_dim_list": [4, 10, 10], "rope_theta": 256.0}
SIZES = json.dumps(ROPE)
DIT_CONFIG = json.dumps({"ideal_resolution": "480p", "ideal_task": "i2v", "use_meanflow": True, **ROPE})
PEFT = json.dumps({"r": 2, "lora_alpha": 2, "rank_pattern": {"attn": 4}, "alpha_pattern": {}, "use_rslora": False})
QUANTISED = json.dumps({"layers": {"double_blocks.0.img_attn_q": {"format": "float8_e4m3fn"}}})
RATES = json.dumps({"version": 1, "device": "cpu", "memory": 9, "torch": "2.9", "products": {"float32": 1e9}})
SAMPLED = json.dumps(
    SampleSpec(
        "one", "t2v", "a cat", "", 64, 64, 5, 1, 6.0, 5.0, 1, 24.0, "video", "auto", "none", 0, 0.25, "480p_t2v", 1.0,
        None, (LoRAFile("a.safetensors", "f", 0.5),), {"dit": "a", "vae": "b", "text_encoder": "c"},
    ).to_json()
)  # fmt: skip
CONTENT = json.dumps({"task": "t2v", "train": {"network_dim": 4}, "models": {"dit": "a"}})
LOG = """Traceback (most recent call last):
  File "a.py", line 3, in <module>
subprocess.CalledProcessError: Command 'x' returned non-zero exit status 137.
WorkflowError in rule train:
    what it was
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
"""


class Parser(NamedTuple):
    """A reader of somebody's content."""

    content: bytes
    """As it should be."""
    put: Callable[[Path, bytes], object]
    """Puts such content into a folder."""
    read: Callable[[Path], object]
    """Reads it from there."""


def _file(name: str) -> Callable[[Path, bytes], object]:
    return lambda folder, content: (folder / name).write_bytes(content)


def _metadata(
    name: str, weights: dict[str, torch.Tensor], *, file: str = "a.safetensors"
) -> Callable[[Path, bytes], object]:
    return lambda folder, content: save_file(weights, folder / file, {name: content.decode("utf-8", "replace")})


def _shards(folder: Path, content: bytes) -> None:
    for name, file in (("x", "a"), ("y", "b")):
        save_file({name: torch.zeros(1)}, folder / f"{file}.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(content)


def _config_beside(folder: Path, content: bytes) -> None:
    save_file(tensors("dit_weights"), folder / "a.safetensors")
    (folder / "config.json").write_bytes(content)


def _sizes(folder: Path) -> None:
    with suppress(UserError):
        facts.describe(folder / "a.safetensors")
    read_config(open_checkpoint(folder / "a.safetensors"))


def _png(folder: Path, content: bytes) -> None:
    write_image(folder / "a.png", FRAMES[0], {SAMPLE: content.decode("utf-8", "replace").replace("\0", "")})


def _profile(folder: Path, content: bytes) -> None:
    Image.fromarray(FRAMES[0]).save(folder / "a.png", icc_profile=content)


def _video(folder: Path, content: bytes) -> None:
    path = folder / "a.mp4"
    if not path.exists():
        write_video(path, FRAMES, 24.0, {SAMPLE: SAMPLED})
        (folder / "whole").write_bytes(path.read_bytes())
    whole = (folder / "whole").read_bytes()
    place = whole.index(SAMPLED.encode())
    path.write_bytes(whole[:place] + content + whole[place + len(SAMPLED) :])


def _log(folder: Path) -> None:
    lines = (folder / "log").read_bytes().decode("utf-8", "replace").splitlines()
    for failure in (failure_in_log(lines), failure_of_run(lines, "it ended")):
        assert failure.cure
    for line in lines:
        failure_by_exit(line)


def _shown(folder: Path) -> None:
    for path in folder.glob("a.*"):
        with suppress(UserError):
            describe(path)
        with suppress(UserError):
            config_of(path)
        with suppress(UserError):
            product_metadata(path)
        _recorded_settings(path)


def _project_notes(folder: Path, content: bytes) -> None:
    (folder / "projects").mkdir(exist_ok=True)
    (folder / "projects/a.json").write_bytes(content)


PARSERS: dict[str, Parser] = {
    "shard index": Parser(INDEX.encode(), _shards, lambda folder: list(open_checkpoint(folder))),
    "config.json of a model": Parser(DIT_CONFIG.encode(), _config_beside, _sizes),
    "sizes in a header": Parser(SIZES.encode(), _metadata(MODEL_SIZES, tensors("dit_weights")), _sizes),
    "formats in a header": Parser(
        QUANTISED.encode(),
        _metadata("_quantization_metadata", {"double_blocks.0.img_attn_q.weight": torch.zeros(2, 2)}),
        lambda folder: WeightReader(open_checkpoint(folder / "a.safetensors"), ""),
    ),
    "settings of PEFT": Parser(
        PEFT.encode(), _metadata("lora_adapter_metadata", WEIGHTS), lambda folder: read_lora(folder / "a.safetensors")
    ),
    "config of a LoRA": Parser(CONTENT.encode(), _metadata(CONFIG, WEIGHTS), _shown),
    "latents of a sample": Parser(
        SAMPLED.encode(),
        _metadata(SAMPLE, {"latents": torch.zeros(4, 2, 8, 8)}),
        lambda folder: read_latents(folder / "a.safetensors"),
    ),
    "what a product was made from": Parser(CONTENT.encode(), _metadata(MADE_FROM, WEIGHTS), _shown),
    "text of a PNG": Parser(SAMPLED.encode(), _png, _shown),
    "text of a video": Parser(SAMPLED.encode(), _video, _shown),
    "a JSON that is shown": Parser(CONTENT.encode(), _file("a.json"), _shown),
    "ICC profile": Parser(PROFILE, _profile, lambda folder: read_image(folder / "a.png")),
    "rates of a device": Parser(
        RATES.encode(), _file("rates"), lambda folder: read_device_rates(parse_object((folder / "rates").read_bytes()))
    ),
    "projects of a store": Parser(
        b'{"version": 1, "root": "../.."}', _project_notes, lambda folder: list(registered(folder))
    ),
    "log of a job": Parser(LOG.encode(), _file("log"), _log),
}

fuzzed = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _says_nothing() -> Iterator[None]:
    """A captured log that holds half a character cannot be sent to pytest's main process."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of each odd tag
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "config.json of a model" else ()) for name in PARSERS]
)  # the sizes in a header have the same reader
@fuzzed
@given(data=st.data())
def test_it_is_read_or_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    parser = PARSERS[name]
    parser.put(tmp_path, data.draw(damaged(parser.content)))
    try:
        parser.read(tmp_path)
    except (UserError, RecordError) as error:
        assert str(error)  # noqa: PT017 (both ends are right)


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_whole_is_read(name: str, tmp_path: Path) -> None:
    """So that the other test begins with something that its parser knows."""
    parser = PARSERS[name]
    parser.put(tmp_path, parser.content)
    parser.read(tmp_path)


TOKENIZER = json.loads(build_tokenizer().to_str())


@settings(fuzzed, max_examples=15)
@given(data=st.data())
def test_a_tokenizer_of_any_content(data: st.DataObject, tmp_path: Path) -> None:
    """Its vocabulary is long, so what is damaged is the rest; then some of its tokens are another's."""
    rest = {key: value for key, value in TOKENIZER.items() if key != "model"}
    content = data.draw(damaged(json.dumps(rest | {"model": "MODEL"}).encode()))
    model = TOKENIZER["model"] | data.draw(
        st.fixed_dictionaries({}, optional={"vocab": st.sampled_from([{}, [], {"a": -1}, {"a": 2**40}]),
                                            "merges": st.sampled_from([[], ["a"], [["a", "b", "c"]], None]),
                                            "type": st.sampled_from(["WordPiece", "", None])})
    )  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content.replace(b'"MODEL"', json.dumps(model).encode()))
    try:
        PromptTokenizer(load_qwen_tokenizer(file)).rows(["a red circle"])
    except UserError as error:
        assert str(file) in str(error)  # noqa: PT017
