"""Damaged media: whatever bytes are changed, a file is read or named, soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import plan_clips
from hv15.data.decode import read_clips
from hv15.data.media import MediaError, MediaKind
from hv15.data.probe import probe
from tests.data.profiles import P3, rgb_profile, srgb_curve
from tests.data.videos import make_video

VIDEOS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "mpg": "mpeg2video", "gif": "gif"}
IMAGES = ("png", "jpg", "webp", "tif", "bmp", "avif", "heic")

changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A sound file of each ending."""
    folder = tmp_path_factory.mktemp("whole")

    def made(suffix: str) -> bytes:
        path = folder / f"a.{suffix}"
        if suffix in VIDEOS and not path.exists():
            make_video(path, 12, codec=VIDEOS[suffix], pix_fmt="rgb8" if suffix == "gif" else "yuv420p")
        elif not path.exists():
            if suffix == "heic":
                pytest.importorskip("pillow_heif").register_heif_opener()
            colours = np.random.default_rng(4).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            profile = rgb_profile(P3, srgb_curve(np.linspace(0, 1, 64)))
            Image.fromarray(colours).save(path, **({} if suffix == "bmp" else {"icc_profile": profile}))
        return path.read_bytes()

    return made


@pytest.mark.filterwarnings("ignore")  # Pillow warns of each odd tag
@pytest.mark.parametrize("suffix", [*VIDEOS, *IMAGES])
@given(changed=changes, share=st.just(1.0) | st.floats(0, 1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_named(
    tmp_path: Path, whole: Callable[[str], bytes], suffix: str, changed: list[tuple[float, bytes]], share: float
) -> None:
    data = bytearray(whole(suffix))
    for place, content in changed:
        data[int(place * len(data)) : int(place * len(data)) + len(content)] = content
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    kind: MediaKind = "video" if suffix in VIDEOS else "image"
    source = {"video_directory": ".", "target_frames": [5], "frame_extraction": "chunk"}
    chosen = DatasetSettings.model_validate(
        {"resolution": [64, 48], **(source if kind == "video" else {"image_directory": "."})}
    )
    start = time.process_time()
    try:
        info = probe(path, kind)
        for _, pixels in read_clips(path, kind, plan_clips(info, chosen)[:4], chosen, info):
            assert pixels.shape[3] == 3
    except MediaError as error:
        assert path.name in error.message  # noqa: PT017 (both ends are right)
    assert time.process_time() - start < 20
