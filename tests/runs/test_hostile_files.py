"""Files of runs that were cut, flipped or forged: whoever looks at them says what is there, and never falls over."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15 import cli
from hv15.records.checks import read_checks
from hv15.records.device_rates import DeviceRates, read_device_rates
from hv15.records.estimate import read_estimate
from hv15.records.events import EVENTS, read_event, read_run
from hv15.records.failures import Failure, FailureKind, FailureRecord, read_failure
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.manifest import EncodedClip, Entry, Manifest, item_keys, read_entry
from hv15.records.metrics import read_metrics
from hv15.records.spec import Spec
from hv15.records.trained_dataset import TrainedDataset, TrainedPair
from hv15.runs.metrics import trainings_progress
from hv15.runs.record import history
from hv15.runs.state import current
from hv15.workflow.made_from import MadeFromReader
from tests.hostile.damage import damaged
from tests.records.steps import lines, start_record, step_record
from tests.workflow.stub_hv15 import write_safetensors
from tui.data.history import HistoryReader
from tui.data.jobs import JobsReader
from tui.data.log_file import LogFile
from tui.data.metrics import MetricsReader
from tui.demo.replay import RECORDING

RECORDED = RECORDING / "project/runs-folder/runs"
RUN = max(RECORDED.iterdir())
METRICS = lines(start_record(4), *(step_record(step) for step in range(1, 5))).encode()
FAILURE = json.dumps(
    to_json(
        FailureRecord(rule="train", command=("hv15", "train"), failure=Failure("it broke", "mend it", FailureKind.USER))
    )
).encode()

RATES = DeviceRates(device="cpu", memory=9, torch="2", products={"fp8": 1.5}, fragments=0.1, utilisation={"train": 0.5})

few = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
more = settings(few, max_examples=100)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)

RECORDS: dict[str, tuple[Callable[[JsonObject], object], list[bytes]]] = {
    "run": (read_run, [(RUN / "run.json").read_bytes()]),
    "event": (read_event, (RUN / "events.jsonl").read_bytes().splitlines()[:40]),
    "metrics": (read_metrics, METRICS.splitlines()),
    "failure": (read_failure, [FAILURE]),
    "checks": (
        read_checks,
        [b'{"checks": [{"state": "ok", "subject": "a", "text": "b", "place": null}], "version": 1}'],
    ),
    "estimate": (read_estimate, [b'{"version": 1}']),
    "rates": (read_device_rates, [json.dumps(to_json(RATES)).encode()]),
}


QUICK = ("run", "event", "metrics", "failure")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RECORDS]
)
@more
@given(data=st.data())
def test_a_record_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, examples = RECORDS[name]
    content = data.draw(damaged(data.draw(st.sampled_from(examples))))
    try:
        read(parse_object(content))
    except RecordError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.slow
@more
@given(kind=st.sampled_from(sorted(EVENTS)), fields=st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_an_event_of_any_fields(kind: str, fields: JsonObject) -> None:
    try:
        read_event({**fields, "event": kind, "time": 1.0})
    except RecordError as error:
        assert str(error)  # noqa: PT017


@few
@given(data=st.data())
def test_a_run_is_looked_at_whatever_its_files_hold(data: st.DataObject, tmp_path: Path) -> None:
    """By `hv15 status`, and by the dashboard."""
    root = tmp_path / "project"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(RUN, root / ".hv15/runs" / RUN.name)
    (root / "config.yaml").write_text("task: t2v\n")
    metrics = root / "results/train/metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_bytes(METRICS)
    run = history(root)[0]
    for path in (run.record_file, run.events, run.output, metrics, run.stop):
        if data.draw(st.booleans()):
            path.write_bytes(
                data.draw(damaged(path.read_bytes() if path.exists() else b'{"time": 1.0, "now": true}\n'))
            )
    assert current(root) is not None
    trainings_progress(root)
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()):
        assert cli.main(["status", str(root)]) in (0, 2)
        assert cli.main(["status", str(root), "--json"]) in (0, 2)
    assert said.getvalue()
    reader = HistoryReader(root)
    reader.refresh(full=True)
    assert len(reader.rows) == 1


def same_as_new(reader: JobsReader | MetricsReader | LogFile, new: JobsReader | MetricsReader | LogFile) -> bool:
    for each in (reader, new):
        each.refresh(5.0)
    if isinstance(reader, JobsReader):
        assert isinstance(new, JobsReader)
        return (reader.jobs, reader.bad_lines, reader.ended) == (new.jobs, new.bad_lines, new.ended)
    if isinstance(reader, MetricsReader):
        assert isinstance(new, MetricsReader)
        return (reader.rows, reader.bad_lines) == (new.rows, new.bad_lines)
    return reader.lines == new.lines


READERS: dict[str, tuple[Callable[[Path], JobsReader | MetricsReader | LogFile], bytes]] = {
    "events": (lambda path: JobsReader(path, clock=lambda: 2e9), (RUN / "events.jsonl").read_bytes()),
    "metrics": (lambda path: MetricsReader(path), METRICS),
    "log": (lambda path: LogFile(path), (RUN / "output.log").read_bytes()[:2000]),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "events" else pytest.mark.slow) for name in READERS]
)
@few
@given(data=st.data())
def test_a_follower_ends_where_a_new_reader_does(name: str, data: st.DataObject, tmp_path: Path) -> None:
    """Whatever is appended, in pieces of any length, by whomever."""
    make, content = READERS[name]
    path = tmp_path / "followed"
    path.unlink(missing_ok=True)
    path.touch()
    reader = make(path)
    whole = data.draw(damaged(content))
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    for start, end in zip([0, *places], [*places, len(whole)], strict=True):
        with path.open("ab") as file:
            file.write(whole[start:end])
        reader.refresh(5.0)
    assert same_as_new(reader, make(path))
    other = tmp_path / "other"
    other.write_bytes(data.draw(damaged(content)))
    other.replace(path)
    assert same_as_new(reader, make(path))


MANIFEST = Manifest(
    "latents", {"format": 1}, "needs", {"k": Entry("a.mp4", (EncodedClip("c" * 64, 0, 9, 64, 64),)).to_json()}
)


@few
@given(data=st.data())
def test_what_a_plan_reads(data: st.DataObject, tmp_path: Path) -> None:
    """A manifest, a spec, the list of what was trained, what products tell and the memory of it."""
    path = tmp_path / "record.json"

    def spoil(write: Callable[[Path], None]) -> Path:
        write(path)
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        return path

    with suppress(RecordError):
        manifest = Manifest.load(spoil(MANIFEST.write))
        for key, entry in manifest.entries.items():
            item_keys(key, entry)
            read_entry(entry)
    with suppress(RecordError):
        Spec.load(spoil(Spec({"a": 1}, {"b": [2]}, True, 5).write))
    with suppress(RecordError):
        TrainedDataset.load(spoil(TrainedDataset("d", [TrainedPair("a", "b", "c", "d")]).write))
    product = tmp_path / "a.safetensors"
    write_safetensors(product, {"hv15.made_from": json.dumps({"a": {"b": 1}}), "hv15.convert.to": "comfyui"})
    MadeFromReader(path).made_from(product)
    reader = MadeFromReader(tmp_path / "none.json")
    product.write_bytes(data.draw(damaged(product.read_bytes())))
    reader.made_from(product)


def test_lines_without_end_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"[" * (4 << 20) + b"\n" + b'{"kind": "step", "step": ' + b"9" * (4 << 20) + b"}\n" + METRICS)
    start = time.process_time()
    reader = MetricsReader(path)
    reader.refresh(60.0)
    assert (reader.rows, reader.bad_lines) == (4, 2)
    assert time.process_time() - start < 10
