"""What is said below a sample: what it shows, how it was made, and where it is."""

from __future__ import annotations

from pathlib import Path

from textual.content import Content

from hv15.terminal_text import clean, visible
from tui.data.lora_names import name_of_loras
from tui.data.samples import Sample
from tui.units import size
from tui.widgets.sample_list import standing_words


def sample_facts(sample: Sample, root: Path) -> Content:
    """Return the lines about a sample; `root` is the project folder."""
    path = sample.path.relative_to(root) if sample.path.is_relative_to(root) else sample.path
    settings = sample.settings
    named = (
        ("seed", settings.seed),
        ("steps", settings.steps),
        ("guidance", settings.guidance_scale),
        ("shift", settings.flow_shift),
    )
    facts = [f"{name} {value}" for name, value in named if value is not None]
    facts += [f"with the moving average ({sample.ema_decay:g})"] if sample.ema_decay is not None else []
    facts += [f"{settings.width} x {settings.height}"] if sample.kind == "enlarged" else []
    facts += [f"with {name_of_loras(sample, root)}"] if sample.kind == "again" or settings.loras else []
    texts = (("prompt ", settings.prompt), ("not    ", settings.negative_prompt))
    lines = [Content.assemble((name, "$faint"), clean(text.replace("\n", " "))) for name, text in texts if text]
    if words := standing_words(sample):
        lines.insert(0, Content.styled(words, "$warning"))
    lines.append(Content.styled(visible(str(path)), "$faint"))
    lines.append(Content.styled(" · ".join([*facts, size(sample.size)]), "$faint"))
    return Content("\n").join(lines)
