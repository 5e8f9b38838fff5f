"""Notes on a dataset that do not stop a run, in a few sentences however many files they are about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

from hv15.cache.long_texts import TokenCounts, long_texts
from hv15.data.caption_texts import TRIGGER
from hv15.data.media import Source
from hv15.data.survey import counted
from hv15.errors import UserError
from hv15.models.tokenizer import PromptTokenizer, load_qwen_tokenizer
from hv15.project import Project
from hv15.records.cache_paths import CachePaths
from hv15.records.problems import dotted
from hv15.sample.plan import first_set

MOST_NAMED = 5
"""The most files that a sentence names; the others are counted."""


def dataset_notes(project: Project) -> Iterator[str]:
    """Yield notes on folders and captions: files that are not used, empty captions, texts whose end is cut off.

    Raises:
        UserError: a dataset cannot be used.
    """
    for survey in project.dataset.surveys:
        yield from survey.notes
    root = project.root
    if empty := [path for survey in project.dataset.surveys for path in survey.empty]:
        yield _files(empty, "an empty caption", root)
    places = {
        text: _caption_place(each.source) for each in reversed(project.dataset.sources) for text in each.source.texts
    }
    yield from _too_long(project, places, "caption")
    yield from _trigger_notes(project)
    sample = project.settings.sample
    prompts = {
        text: prompt.name
        for prompt in sample.prompts
        for text in (prompt.prompt, first_set(prompt.negative_prompt, sample.negative_prompt))
    }
    yield from _too_long(project, prompts, "prompt")


def media_notes(notes: Mapping[str, Collection[str]], root: Path) -> Iterator[str]:
    """Yield a sentence for each note that reading the files gave (note -> paths), the most frequent first."""
    for note, paths in sorted(notes.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"{counted(len(paths), 'file')}: {note}: {names(paths, root)}"


def names(paths: Collection[str], root: Path) -> str:
    """Return the first of many files, relative to the project folder, and how many more there are."""
    listed = ", ".join(path.removeprefix(f"{root}/") for path in islice(paths, MOST_NAMED))
    return listed + (f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else "")


def _files(paths: Collection[str], what: str, root: Path) -> str:
    return f"{counted(len(paths), 'file')} {'has' if len(paths) == 1 else 'have'} {what}: {names(paths, root)}"


def _caption_place(source: Source) -> str:
    """Return where a caption is written, or the medium that gets `default_caption`."""
    if source.row is not None:
        return f"{source.caption_file}:{source.row + 1}"
    return source.place if source.is_default else source.caption_file


def _trigger_notes(project: Project) -> Iterator[str]:
    """Yield a note on each dataset that has a trigger word and no place for it, or the other way round."""
    for number, survey in enumerate(project.dataset.surveys):
        around = survey.dataset.caption_prefix + survey.dataset.caption_suffix
        found = [source.place for source in survey.sources if TRIGGER in source.written or TRIGGER in around]
        setting = dotted(project.dataset.setting(number))
        if survey.dataset.trigger is not None and not found and survey.sources:
            yield f"{setting}: trigger is set, but no caption, prefix or suffix holds {TRIGGER}"
        if survey.dataset.trigger is None and found:
            yield f"{setting}: {TRIGGER} stays as it is without a trigger: {names(found, project.root)}"


def _too_long(project: Project, places: Mapping[str, str], what: str) -> Iterator[str]:
    """Yield a note if some of the texts (text -> where it is written) are too long for an encoder."""
    models = project.models
    try:
        counts = TokenCounts(CachePaths(project.cache).token_counts, models.identity("tokenizer"))
        found = long_texts(places, lambda: PromptTokenizer(load_qwen_tokenizer(models.tokenizer)), counts)
    except UserError:  # not downloaded yet, or wrong: the check of the models reports that
        yield f"some {what}s are long: their tokens can be counted only when the tokenizer is there"
        return
    if found:
        notable = [f"{places[text]} ({long.reason})" for text, long in found.items()]
        number = f"{counted(len(found), what)} {'is' if len(found) == 1 else 'are'}"
        yield f"{number} too long for an encoder, the end is cut off: {names(notable, project.root)}"
