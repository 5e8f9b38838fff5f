"""`hv15 sample -i`: a prompt a line, and commands that begin with /. The models stay in memory.

An error ends a sample, not the session. Lines may come from a pipe; then there is no history, and the exit code says
whether all went well. What is made is printed to stdout, a file a line; everything else goes to stderr.
"""

from __future__ import annotations

import io
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hv15.atomic import check_writable
from hv15.commands.fetched_models import fetch_models
from hv15.commands.interruption import Interruption
from hv15.commands.line_history import LineHistory, history_file
from hv15.commands.logs import log_to_stderr
from hv15.commands.options.sample import Sample
from hv15.commands.options.seeds import agreed_seeds, read_seed
from hv15.commands.resident import ResidentModels
from hv15.commands.sample import Parts, file_of, is_made
from hv15.commands.sample_work import check_later_models, check_machine
from hv15.commands.terminal_picture import SHOWN, has_colors, show_frames
from hv15.errors import USER_ERROR, UserError, of_the_system
from hv15.out_of_memory import is_out_of_memory, without_stage
from hv15.progress import clock
from hv15.project import Project
from hv15.project.comparison import Compared, make_table
from hv15.project.request import SampleRequest, open_project
from hv15.records.json_values import Json
from hv15.records.outputs import OUTPUT_TYPES
from hv15.sample.prompts import SampleSpec
from hv15.sample.resolutions import parse_size
from hv15.terminal_text import one_line

LONGEST = 1 << 16
"""Characters of a line; the text encoder reads about 5,000."""
PROMPT = "prompt> "
HISTORY = "sample-history"


def interact(options: Sample, request: SampleRequest) -> int | None:
    """Read lines until there are no more, and make what they ask for.

    Raises:
        UserError: the project, a model or an option cannot be used.
    """
    if options.compare or options.checkpoint or options.strength or options.sheet or options.prompts_file:
        raise UserError(
            "-i makes one sample after the other, without sheets, comparisons and files of prompts",
            hint="leave out -i, or pipe the prompts into it",
        )
    session = Session(options, replace(request, prompts=()), models=ResidentModels(tells=not options.no_metadata))
    project = session.open()
    log_to_stderr(project.settings.runtime.log_level)
    if project.settings.sample.context_parallel > 1:
        raise UserError(
            f"{project.settings.sample.asks_for_gpus}, but -i works on one GPU",
            hint="add --set sample.context_parallel=1",
        )
    check_machine(project)
    check_writable(options.out)
    fetch_models(project)
    check_later_models(project)
    try:
        for prompt in options.prompts:
            session.line(f" {prompt}")
        if sys.stdin.isatty():
            _converse(session)
            return None
        for line in _lines():
            if not session.line(line):
                break
        return USER_ERROR if session.failures else None
    finally:
        session.close()


def _show(file: Path, spec: SampleSpec) -> None:
    """Show a few frames of a finished video or folder of images in the terminal."""
    from hv15.sample.contact_sheet import few_frames, read_sample

    if has_colors(sys.stderr):
        show_frames(few_frames(read_sample(file), SHOWN), one_line(spec.prompt))


def _converse(session: Session) -> None:
    """Read from a terminal."""
    print("a prompt a line; /help lists the commands, /quit leaves", file=sys.stderr)
    history = LineHistory(history_file(HISTORY))
    history.read()
    try:
        while True:
            try:
                line = input(PROMPT)
            except KeyboardInterrupt:
                print("\n/quit leaves", file=sys.stderr)
                continue
            except EOFError:
                print(file=sys.stderr)
                return
            if not session.line(line):
                return
    finally:
        history.write()


def _lines() -> Iterator[str]:
    """Yield the lines of stdin; of one that is too long, as much as shows that it is."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is an error of its line
    while line := sys.stdin.readline(LONGEST + 2):
        part = line
        while len(part) > LONGEST and not part.endswith("\n"):
            part = sys.stdin.readline(LONGEST + 2)
        yield line


@dataclass
class Session:
    """The settings of the next samples, and the models that make them."""

    options: Sample
    request: SampleRequest
    failures: int = 0
    """How many lines could not be done."""
    models: ResidentModels = field(default_factory=ResidentModels)
    _last: str = ""
    """The last prompt."""
    _with_images: list[SampleSpec] = field(default_factory=list)
    """Samples whose encoded first images are kept for others."""

    def line(self, line: str) -> bool:
        """Do what a line asks for; return whether the session goes on."""
        text = line.strip()
        if not text:
            return True
        if not line.startswith("/"):
            self.attempt(lambda: self.prompt(text))
            return True
        word, _, rest = text.partition(" ")
        if word in ("/quit", "/exit", "/q"):
            return False
        self.attempt(lambda: self._command(word, rest.strip()))
        return True

    def attempt(self, work: Callable[[], None]) -> None:
        """Do something. What goes wrong is said in one line; Ctrl-C stops it."""
        try:
            work()
        except UserError as error:
            self._fail(error)
        except OSError as error:
            if error.filename is None and not is_out_of_memory(error):
                raise
            self._fail(of_the_system(error) if error.filename is not None else without_stage(error))
        except KeyboardInterrupt:
            self.failures += 1
            print("stopped", file=sys.stderr)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._fail(without_stage(error))

    def open(self, *prompts: str) -> Project:
        """Return the project that samples prompts with the present settings.

        Raises:
            UserError: a setting cannot be used.
        """
        return open_project(self.options.config, self.options.overrides, replace(self.request, prompts=prompts))

    def prompt(self, text: str) -> None:
        """Make the samples of a prompt.

        Raises:
            UserError: they cannot be made.
            KeyboardInterrupt: the user has stopped it.
        """
        _check(text)
        self._last = text
        began, out = time.monotonic(), self.options.out
        project = self.open(text)
        specs = make_table(project, Compared()).samples()
        parts = Parts(out)
        due = [spec for spec in specs if not is_made(project, spec, out, tells=not self.options.no_metadata)]
        with Interruption() as interruption:
            try:
                self.models.make(project, due, parts, interruption)
            except KeyboardInterrupt:
                if interruption.was_sudden:
                    self.models.drop()
                raise
        parts.remove(due, keep_images=True)
        self._with_images += [spec for spec in due if spec.image is not None]
        for spec in specs:
            for output in OUTPUT_TYPES[spec.output_type]:
                file = file_of(spec, output, out)
                if output.is_decoded:
                    _show(file, spec)
                print(one_line(str(file)), flush=True)
        print(f"{clock(time.monotonic() - began)}" if due else "already there", file=sys.stderr)

    def close(self) -> None:
        """Give the memory back, and remove what was kept for further samples."""
        self.models.drop()
        parts = Parts(self.options.out)
        with parts.in_use() as is_alone:
            alone = is_alone()
            parts.remove(self._with_images, keep_images=not alone)
            if alone:
                parts.remove_torn(())

    # -- commands ---------------------------------------------------------------------------------------------------

    def _command(self, word: str, rest: str) -> None:
        command = COMMANDS.get(word)
        if command is None:
            raise UserError(
                f"{word}: there is no such command",
                hint="/help lists them; a prompt that begins with / is written with a space before it",
            )
        command.run(self, rest)

    def change(self, **changes: object) -> None:
        """Change settings, unless something is then wrong that was not wrong before.

        Raises:
            UserError: it is; the settings stay as they were.
        """
        before, known = self.request, self._problems()
        self.request = replace(before, typed="/", **changes)  # type: ignore[arg-type]  # the names and values are those of the commands
        if wrong := [line for line in self._problems() if line not in known]:
            self.request = before
            raise UserError("; ".join(wrong), hint="the setting stays as it was")

    def sets(self, name: str, value: Json) -> None:
        """Change a setting of `sample`; None means the project's.

        Raises:
            UserError: as `change`.
        """
        self.change(sample={**self.request.sample, name: value})

    def again(self) -> None:
        """Make the last prompt with the present settings.

        Raises:
            UserError: there is none; or as `prompt`.
        """
        if not self._last:
            raise UserError("/again: there was no prompt yet", hint="write one")
        self.prompt(self._last)

    def _problems(self) -> list[str]:
        try:
            _ = self.open("a prompt").samples
        except UserError as error:
            return error.message.split("\n")
        return []

    def _fail(self, error: UserError) -> None:
        self.failures += 1
        message = "; ".join(error.message.split("\n"))
        print(f"error: {message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)


def _check(text: str) -> None:
    """Refuse a line that cannot be a prompt.

    Raises:
        UserError: it is too long, or not UTF-8.
    """
    if len(text) > LONGEST:
        raise UserError(f"a line of more than {LONGEST:,} characters", hint="write a shorter prompt")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the line is not UTF-8", hint="write it in UTF-8") from None
    if "\0" in text:
        raise UserError("the line holds a NUL character", hint="delete it")


# -- the commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlashCommand:
    """A line that begins with /."""

    usage: str
    help: str
    run: Callable[[Session, str], None]


def _words(text: str) -> list[str]:
    """The words of a line; those in quotes may hold spaces.

    Raises:
        UserError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text:.80}: {str(error).lower()}", hint="close the quotes") from None


def _seed(session: Session, text: str) -> None:
    seeds = [read_seed(word) if word == "random" else _whole("/seed", word) for word in _words(text)]
    session.change(seeds=agreed_seeds(seeds))


def _size(session: Session, text: str) -> None:
    session.sets("video_size", list(parse_size(tuple(_words(text)), "/size")) if text else None)


def _lora(session: Session, text: str) -> None:
    session.change(loras=tuple(_words(text)))


def _image(session: Session, text: str) -> None:
    words = _words(text)
    if len(words) > 1:
        raise UserError(f"/image {text:.80}: expected one file", hint="put a name with spaces in quotes")
    session.change(image=Path(words[0]).expanduser() if words else None)


def _text(name: str) -> Callable[[Session, str], None]:
    return lambda session, text: session.sets(name, text or None)


def _count(name: str, word: str) -> Callable[[Session, str], None]:
    return lambda session, text: session.sets(name, _whole(word, text) if text else None)


def _number(name: str, word: str) -> Callable[[Session, str], None]:
    def run(session: Session, text: str) -> None:
        try:
            session.sets(name, float(text) if text else None)
        except ValueError:
            raise UserError(f"{word} {text:.40}: expected a number", hint=f"for example {word} 6") from None

    return run


def _whole(word: str, text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 20):
        raise UserError(f"{word} {text:.40}: expected a whole number", hint=f"for example {word} 5")
    return int(text)


def _settings(session: Session, _: str) -> None:
    request = session.request
    given = {name: value for name, value in request.sample.items() if value is not None}
    shown: dict[str, object] = {name: value for name, value in given.items() if name != "sr"}  # it is always off here
    shown |= {"seed": " ".join(map(str, request.seeds)), "lora": " ".join(request.loras), "image": request.image}
    for name, value in shown.items():
        if value:
            print(one_line(f"{name}: {value}"), file=sys.stderr)
    print("all others are the project's", file=sys.stderr)


def _help(_session: Session, _: str) -> None:
    for command in COMMANDS.values():
        print(f"{command.usage:26} {command.help}", file=sys.stderr)
    print("without a value, a command goes back to the project's setting; Ctrl-C stops a sample", file=sys.stderr)


_LISTED = (
    SlashCommand("/seed N ...", "a video for each seed", _seed),
    SlashCommand("/size 720p 16:9 | H W", "an official size, or height and width in pixels", _size),
    SlashCommand("/frames N", "number of frames, 4k+1", _count("video_length", "/frames")),
    SlashCommand("/steps N", "denoising steps", _count("infer_steps", "/steps")),
    SlashCommand("/guidance X", "guidance scale", _number("guidance_scale", "/guidance")),
    SlashCommand("/shift X", "flow shift", _number("flow_shift", "/shift")),
    SlashCommand("/negative TEXT", "what the video does not show", _text("negative_prompt")),
    SlashCommand("/lora FILE[:STRENGTH] ...", "LoRAs; names with spaces in quotes", _lora),
    SlashCommand("/image FILE", "the first frame (i2v)", _image),
    SlashCommand("/previews N", "a picture every N steps; 0: none", _count("preview_every_n_steps", "/previews")),
    SlashCommand("/again", "the last prompt once more", lambda session, _: session.again()),
    SlashCommand("/settings", "what is set here", _settings),
    SlashCommand("/help", "this list", _help),
    SlashCommand("/quit", "leave; also Ctrl-D", lambda _session, _: None),
)
COMMANDS = {command.usage.split()[0]: command for command in _LISTED}
"""Word -> command. `/quit` is only listed: it ends the loop."""
