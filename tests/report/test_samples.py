"""The samples of a page: which stand beside one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from hv15.data.encode import write_video
from hv15.pages.inlined import Inliner
from hv15.project import Project
from hv15.project.products import shown_samples
from hv15.records.outputs import VIDEO
from hv15.report.samples import shown_prompts
from tests.project.conftest import MakeProject, open_project, root  # noqa: F401  (fixtures)
from tests.project.test_comparison import lora


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


def test_strengths_and_loras_of_a_prompt_stand_in_its_row(
    open_project: MakeProject,  # noqa: F811
    root: Path,  # noqa: F811
) -> None:
    compare = [{"path": lora(root / "style.safetensors")}]
    prompts = [{"name": "cat", "prompt": "a cat", "video_size": [16, 16]}]
    project = open_project(sample={"prompts": prompts, "strengths": [0.5, 1], "compare": compare, "with_base": True})
    for file in shown_samples(project.samples, project.paths).values():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, np.zeros((1, 16, 16, 3), np.uint8))
    (row,) = shown_prompts(project.samples, project.paths, Inliner(project.paths.results))
    assert (row.name, row.title) == ("cat", "a cat")
    assert [each.label for each in row.media] == [
        "without the LoRA",
        "with the LoRA at 0.5",
        "with the LoRA",
        "with-style.x0.5",
        "with-style.x1",
    ]
