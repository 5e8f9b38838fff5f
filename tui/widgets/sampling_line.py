"""One line on what is being sampled again: how far it is, and how it ended."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from hv15.terminal_text import visible
from tui.data.jobs import Job, JobState
from tui.project_files import JobsView

RULE = "sample"
"""The only job of a run that makes samples again; the workflow has none of this name."""


class SamplingLine(Static):
    """Shown while such a run is alive, and after it was seen to fail; gone when it has made its samples."""

    DEFAULT_CSS = """
    SamplingLine { height: auto; max-height: 3; display: none; padding: 0 1; }
    SamplingLine.-shown { display: block; }
    SamplingLine.-failed { color: $error; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._job: Job | None = None
        self._seen = False
        """Whether it was seen alive."""
        self._run = self._why = self._said = ""

    @property
    def log_file(self) -> str | None:
        """The log of the command while it runs, from the project folder."""
        job = self._job
        return job.log[0] if job is not None and job.state is JobState.RUNNING and job.log else None

    def show_jobs(self, view: JobsView) -> bool:
        """Show the run of these jobs; return whether its samples have just been finished."""
        before, job = self._job, next((each for each in view.jobs if each.rule == RULE), None)
        was_running = before is not None and before.state is JobState.RUNNING
        same = view.run == self._run
        self._seen = job is not None and (job.state in (JobState.WAITING, JobState.RUNNING) or (same and self._seen))
        self._job, self._run, self._said = job, view.run, self._said if same else ""
        failures = [each.failure for each in view.failures]
        self._why = next((f"{each.cause} ({each.cure})" if each.cure else each.cause for each in failures), "")
        self._show()
        return was_running and job is not None and job.state is JobState.DONE

    def say(self, line: str) -> None:
        """Show the last line that the command has printed."""
        self._said = line
        self._show()

    def _show(self) -> None:
        job = self._job
        failed = job is not None and job.state in (JobState.FAILED, JobState.CUT)
        self.set_class(self._seen and job is not None and job.state is not JobState.DONE, "-shown")
        self.set_class(failed, "-failed")
        if job is None:
            return
        name = visible(job.wildcards.get("title", job.name))
        if failed:
            words = "was stopped" if job.state is JobState.CUT else visible(self._why) or "failed: see its log"
            text = Content.assemble("✗ ", (name, "bold"), f": {words}")
        else:
            text = Content.assemble("▶ sampling ", (name, "bold"), f"  {visible(self._said)}")
        if self.content != text:
            self.update(text)
