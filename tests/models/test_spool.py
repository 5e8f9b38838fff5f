"""Videos that wait in a file: they come back, in any part, and the file has no name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from hv15.models.spool import Spool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_videos_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    one, two = (torch.randn(2, 3, 5, *size).to(dtype) for size in ((4, 6), (7, 1)))
    with Spool(tmp_path) as spool:
        assert [spool.add(each.split([1, 3, 1], dim=2)) for each in (one, two)] == [0, 1]
        assert list(tmp_path.iterdir()) == []
        for number, video in ((1, two), (0, one), (1, two)):
            for frames in (slice(0, 5), slice(2, 4), slice(4, 5)):
                assert torch.equal(spool.read(number, frames), video[:, :, frames])
        three = torch.randn(1, 1, 1, 2, 2).to(dtype)
        assert spool.add([three]) == 2  # also after reading
        assert torch.equal(spool.read(2, slice(0, 1)), three)
        assert torch.equal(spool.read(0, slice(0, 5)), one)


def test_a_video_may_be_made_of_another(tmp_path: Path) -> None:
    video = torch.randn(1, 2, 4, 3, 3)
    with Spool(tmp_path) as spool:
        first = spool.add([video])
        second = spool.add(2 * spool.read(first, slice(frame, frame + 1)) for frame in range(4))
        assert torch.equal(spool.read(second, slice(0, 4)), 2 * video)
        assert torch.equal(spool.read(first, slice(0, 4)), video)


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.add([torch.ones(1, 1, 1, 2, 2)])
        spool.read(0, slice(0, 1)).zero_()
        assert spool.read(0, slice(0, 1)).sum() == 4


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as raised:
        Spool(tmp_path / "missing")
    assert raised.value.errno == errno.ENOENT
