"""What `hv15 check` looks at. Each check yields (line, is it a problem)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from hv15.data.clips import plan_clips
from hv15.data.media import MediaError
from hv15.data.probe import probe
from hv15.errors import UserError
from hv15.model_files import Role
from hv15.project import Project

Line = tuple[str, bool]

SHOWN = 20
"""Unusable files that are listed by name."""


def model_lines(project: Project) -> Iterator[Line]:
    """Each model file: is it there, can its header be read, and do the numbers in it suit training?"""
    from hv15.models.header import read_header

    roles: list[Role] = ["dit", "vae", "text_encoder", "glyph_encoder"]
    roles += ["image_encoder"] if project.settings.task == "i2v" else []
    for role in roles:
        path = project.models.path(role)
        if not path.exists():
            made = project.settings.models.source != "files"
            yield f"{role:14} {path}: {'will be made by the workflow' if made else 'does not exist'}", not made
            continue
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        try:
            sizes = [read_header(file).size for file in files]
        except UserError as error:
            yield f"{role:14} {error.message}", True
            continue
        yield f"{role:14} {path}: {sum(sizes) / 2**30:.2f} GiB", False


def dataset_lines(project: Project) -> Iterator[Line]:
    """Each dataset: how many files give how many clips, in which buckets, and which files cannot be used."""
    bad: list[str] = []
    buckets: dict[str, int] = {}
    for number, source, _ in project.sources:
        try:
            for clip in plan_clips(probe(source.path, source.kind), project.settings.datasets[number]):
                name = f"{clip.frames} x {clip.height} x {clip.width}"
                buckets[name] = buckets.get(name, 0) + 1
        except MediaError as error:
            bad.append(error.message)
    captions = len({source.caption for _, source, _ in project.sources})
    clips = sum(buckets.values())
    yield f"dataset        {len(project.sources)} files, {clips} clips, {captions} distinct captions", clips == 0
    for name, count in sorted(buckets.items()):
        yield f"  bucket       {name} (frames, height, width): {count} clips", False
    for message in bad[:SHOWN]:
        yield f"  unusable     {message}", project.settings.cache.bad_clips == "stop"
    if len(bad) > SHOWN:
        yield f"  unusable     ... and {len(bad) - SHOWN} more", project.settings.cache.bad_clips == "stop"


def disk_lines(project: Project) -> Iterator[Line]:
    """Free space where the cache is."""
    folder = project.cache
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    yield f"disk           {free:.1f} GiB free for {project.cache}", free < 1
