"""The samples of a page: which stand beside one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from hv15.data.encode import write_video
from hv15.pages.inlined import Inliner
from hv15.project import Project
from hv15.records.outputs import VIDEO
from hv15.report.samples import shown_prompts


def test_a_sample_before_and_after_super_resolution(tmp_path: Path) -> None:
    """The models are those of the Hub, of which no file is needed to know the sizes."""
    prompts = [{"name": "one", "prompt": "a cat"}, {"name": "two", "prompt": "a dog", "sr": "off"}]
    sample = {"sr": "auto", "prompts": prompts, "video_size": [480, 848]}
    config = {"models": {"source": "hub", "variant": "480p_t2v"}, "sample": sample}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    project = Project(tmp_path / "config.yaml")
    for name in ("one", "one.sr", "two"):
        write_video(VIDEO.path(project.paths, name), np.zeros((1, 16, 16, 3), np.uint8))
    one, two = shown_prompts(project.samples, project.paths, Inliner(tmp_path), project.enlarged)
    assert [(each.label, each.width, each.height) for each in one.media] == [
        ("", 848, 480),
        ("1280 \N{MULTIPLICATION SIGN} 720 by super resolution", 1280, 720),
    ]
    assert len(two.media) == 1
