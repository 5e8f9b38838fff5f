"""`hv15 gc` of one project never removes what another needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hv15.cache.collect import removable, use_of
from hv15.cache.encoding import Encoding
from hv15.cache.register import register, registered
from hv15.digest import digest
from hv15.records.manifest import Entry
from hv15.records.paths import ProjectPaths
from hv15.records.spec import Spec


def key(name: str) -> str:
    return digest(name)


class User:
    """A project that uses the store."""

    def __init__(self, root: Path, store: Path, *names: str) -> None:
        self.paths = ProjectPaths(root)
        needed = {key(name): name for name in names}
        self.encoding = Encoding("text", store, self.paths.manifests("text"), {"model": "m"}, needed, 1)
        root.mkdir(exist_ok=True)
        register(store, root)

    def encode(self) -> None:
        manifest = self.encoding.new_manifest(0)
        for name in self.encoding.needed:
            path = self.encoding.store.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            manifest.put(name, Entry())
        manifest.write(self.encoding.manifest_path(0))

    def plan(self, *, runs: bool) -> None:
        """What the planner leaves behind."""
        wanted = {"settings": self.encoding.settings, "shard": "0 of 1", "needs": self.encoding.needs_digest(0)}
        Spec(wanted, runs=runs).write(self.paths.spec("encode_texts.0"))


def names(store: Path) -> set[str]:
    return {path.stem for path in removable(store, use_of(store))}


def test_what_any_project_needs_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    User(tmp_path / "one", store, "a", "b").encode()
    two = User(tmp_path / "two", store, "b", "c")
    two.encode()
    assert names(store) == set()
    two.encoding.manifest_path(0).unlink()
    assert names(store) == {key("c")}


def test_what_a_lora_needs_that_is_made_again_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = User(tmp_path / "one", store, "a")
    one.encode()
    kept = one.paths.manifests("text").rename(tmp_path / "kept")
    assert names(store) == {key("a")}
    shutil.copytree(kept, one.paths.reproduction("ab12").manifests("text"))
    assert names(store) == set()


def test_unused_items_of_one_project_are_kept_for_another(tmp_path: Path) -> None:
    store = tmp_path / "store"
    User(tmp_path / "one", store, "a", "b").encode()
    User(tmp_path / "two", store, "b", "c").encode()
    use = use_of(store)
    now = User(tmp_path / "one", store)  # its config needs neither any more
    use.forget_unused(now.paths.root, {now.encoding.store.folder: now.encoding.needed_items()})
    assert {path.stem for path in removable(store, use)} == {key("a")}


def test_nothing_goes_while_a_project_encodes(tmp_path: Path) -> None:
    """Its items wait for a manifest that does not name them yet."""
    store = tmp_path / "store"
    one = User(tmp_path / "one", store, "a")
    one.plan(runs=True)
    path = one.encoding.store.path(key("a"))
    path.parent.mkdir(parents=True)
    path.touch()
    assert list(use_of(store).unfinished.values()) == [tmp_path / "one"]
    assert names(store) == set()
    one.encode()
    assert use_of(store).unfinished == {}


def test_a_manifest_that_holds_more_than_is_needed_is_finished(tmp_path: Path) -> None:
    store = tmp_path / "store"
    User(tmp_path / "one", store, "a", "b").encode()
    User(tmp_path / "one", store, "a").plan(runs=False)
    assert use_of(store).unfinished == {}


def test_a_torn_manifest_keeps_everything_of_its_settings(tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = User(tmp_path / "one", store, "a")
    one.encode()
    path = one.encoding.manifest_path(0)
    path.write_bytes(path.read_bytes()[:-5])
    assert names(store) == set()


def test_a_project_that_is_gone_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = User(tmp_path / "one", store, "a")
    one.encode()
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    use = use_of(store)
    assert [project.root for project in use.unreachable] == [tmp_path / "one"]
    register(store, tmp_path / "elsewhere")
    assert names(store) == set(), "known again by its new place"


def test_a_project_is_registered_once(tmp_path: Path) -> None:
    for _ in range(2):
        register(tmp_path / "store", tmp_path)
    assert [project.root for project in registered(tmp_path / "store")] == [tmp_path]


def test_a_spec_that_cannot_be_read_keeps_everything_of_its_kind(tmp_path: Path) -> None:
    """It may be of an unfinished encoding, such as one that a newer hv15 has planned."""
    store = tmp_path / "store"
    one = User(tmp_path / "one", store, "a")
    one.plan(runs=True)
    path = one.encoding.store.path(key("a"))
    path.parent.mkdir(parents=True)
    path.touch()
    one.paths.spec("encode_texts.0").write_text('{"version": 99}')
    assert list(use_of(store).unfinished.values()) == [tmp_path / "one"]
    assert names(store) == set()


@pytest.mark.parametrize("content", ['{"version": 2, "place": "../one"}', '{"version": 1, "ro', '{"version": 1}'])
def test_a_project_whose_note_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    """It is not known what it needs, so gc stops without --forget."""
    store = tmp_path / "store"
    User(tmp_path / "one", store, "a").encode()
    (note,) = (store / "projects").iterdir()
    note.write_text(content)
    assert [project.note for project in use_of(store).unreachable] == [note]


def test_a_project_that_lost_its_results_keeps_what_they_named(tmp_path: Path) -> None:
    store = tmp_path / "store"
    one, two = User(tmp_path / "one", store, "a"), User(tmp_path / "two", store, "b")
    for user in (one, two):
        user.encode()
        user.plan(runs=False)
        user.paths.runs.mkdir(parents=True)
    shutil.rmtree(two.paths.results)
    assert names(store) == set()
    assert list(use_of(store).unfinished.values()) == [tmp_path / "two"]
