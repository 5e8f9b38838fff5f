"""What `hv15 check` looks at. Each check yields (line, is it a problem), or raises a UserError that ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hv15.commands.disk import planned_clips
from hv15.commands.notes import file_notes, lora_notes, sample_notes
from hv15.errors import UserError
from hv15.models.advice import about_memory, about_sizes, about_training
from hv15.project import Project, Role

if TYPE_CHECKING:
    from hv15.models import DiT

Line = tuple[str, bool]

SHOWN = 20
"""Files of a kind of trouble that are listed by name."""


def model_lines(project: Project) -> Iterator[Line]:
    """Each model file: is it there, is it the right model and complete, and do all of them belong together?"""
    from hv15.models.condition import check_widths

    dit: DiT | None = None
    widths: dict[str, int] = {}
    roles: list[Role] = ["dit", "vae", "text_encoder", "glyph_encoder"]
    roles += ["image_encoder"] if project.settings.task == "i2v" else []
    for role in roles:
        path = project.models.path(role)
        if not path.exists():
            made = project.settings.models.source != "files"
            yield f"{role:14} {path}: {'will be made by the workflow' if made else 'does not exist'}", not made
            continue
        try:
            model = _on_meta(project, role, path)
        except UserError as error:
            yield f"{role:14} {error}", True
            continue
        if role == "dit":
            dit = model
            yield f"{role:14} {path}: {project.models.facts}", False
            facts, settings = project.models.facts, project.settings
            yield from _noted(file_notes(project) + about_training(facts, settings.train.quantize))
            yield from _noted(about_memory(facts, "sample", settings.sample.quantize))
            yield from _speed_lines(project, model.config.num_blocks)
            continue
        files = path.rglob("*.safetensors") if path.is_dir() else [path]
        yield f"{role:14} {path}: {sum(file.stat().st_size for file in files) / 2**30:.2f} GiB", False
        widths |= _width(role, model)
    if dit is not None:
        try:
            check_widths(dit.config, widths)
        except UserError as error:
            yield str(error), True


def _speed_lines(project: Project, blocks: int) -> Iterator[Line]:
    """Settings of memory and speed that the transformer, or this machine, cannot meet: found out before the encoding.

    What only this machine lacks is no problem: the check may run beside the machine with the GPU.
    """
    from hv15.models.attention import pick_attention
    from hv15.models.weights.quantised import check_kind
    from hv15.models.weights.swap import swapped_indices
    from hv15.precision import pick_device, pick_dtype

    device = pick_device(project.settings.runtime.device)
    for name, section in (("train", project.settings.train), ("sample", project.settings.sample)):
        try:
            swapped_indices(blocks, section.blocks_to_swap)
        except UserError as error:
            yield f"{name:14} {error}", True
        try:
            dtype = pick_dtype(section.dtype, device)
            pick_attention(section.attn_mode, split=False, device=device, dtype=dtype, training=name == "train")
            if section.quantize != "none":
                check_kind(section.quantize, device)
        except UserError as error:
            yield from _noted([f"{name}, on this machine: {error.message}: {error.hint}"])


def _width(role: Role, model: Any) -> dict[str, int]:
    """How many channels a loaded model's latents or states have, by their name in the store."""
    if role == "vae":
        return {"latents": model.config.latent_channels}
    if role == "image_encoder":
        return {"vision": model.config.hidden_size}
    name = "text" if role == "text_encoder" else "glyphs"
    return {name: model.model.get_parameter("embed_tokens.weight").shape[1]}


def _on_meta(project: Project, role: Role, path: Path) -> Any:
    """Load a model on the meta device: every tensor's name and shape is compared, no weight is read.

    Raises:
        UserError: the file is damaged, is not that model, or its numbers do not suit training.
    """
    from hv15 import models
    from hv15.precision import pick_device, pick_dtype
    from hv15.train.run import check_dtype

    if role == "dit":
        check_dtype(path, pick_dtype(project.settings.train.dtype, pick_device(project.settings.runtime.device)))
    load: dict[Role, Callable[[], object]] = {
        "dit": lambda: models.load_dit(path, device="meta"),
        "vae": lambda: models.load_vae(path, device="meta"),
        "text_encoder": lambda: models.load_text_encoder(path, project.models.tokenizer, device="meta"),
        "glyph_encoder": lambda: models.load_glyph_encoder(path, device="meta"),
        "image_encoder": lambda: models.load_image_encoder(path, device="meta"),
    }
    return load[role]()


def file_lines(project: Project) -> Iterator[Line]:
    """The LoRAs and first images that the config names."""
    from hv15.data.images import image_size
    from hv15.lora import read_lora

    train, sample = project.settings.train, project.settings.sample
    loras = [train.network_weights] if train.network_weights else []
    loras += [lora.path for lora in (*sample.loras, *(lora for each in sample.prompts for lora in each.loras or ()))]
    images = [prompt.image_path for prompt in sample.prompts if prompt.image_path]
    files: list[tuple[str, str, Callable[[Path], object]]] = [("lora", path, read_lora) for path in loras]
    files += [("image", path, image_size) for path in images]
    for name, path, look in dict.fromkeys(files):
        file = project.settings.resolve(path)
        try:
            look(file)
        except UserError as error:
            yield f"{name:14} {error}", True
        else:
            yield f"{name:14} {file}", False
            if name == "lora":
                yield from _noted(lora_notes(project, file))


def sample_lines(project: Project) -> Iterator[Line]:
    """What is unusual in the samples' settings for this checkpoint."""
    try:
        specs = project.samples
    except UserError:
        return  # a model, an image or a LoRA is missing, which the other checks tell
    notes: dict[str, list[str]] = {}
    for name, spec in specs.items():
        for sentence in sample_notes(project, spec):
            notes.setdefault(sentence, []).append(name)
    yield from _noted([f"sample {', '.join(names)}: {sentence}" for sentence, names in notes.items()])


def _noted(sentences: Iterable[str]) -> Iterator[Line]:
    """Advice: worth a thought, and no problem."""
    return ((f"{'note':14} {sentence}", False) for sentence in sentences)


def dataset_lines(project: Project) -> Iterator[Line]:
    """Each dataset: how many files give how many clips, in which buckets, and which files cannot be used."""
    clips = planned_clips(project)
    buckets = Counter(f"{clip.frames} x {clip.height} x {clip.width}" for _, clip in clips.found)
    captions = len({each.source.caption for each in project.dataset.sources})
    count = len(clips.found)
    yield (
        f"dataset        {len(project.dataset.sources)} files, {count} clips, {captions} distinct captions",
        count == 0,
    )
    for name, number in sorted(buckets.items()):
        yield f"  bucket       {name} (frames, height, width): {number} clips", False
    sizes = Counter((clip.height, clip.width) for _, clip in clips.found)
    yield from _noted(about_sizes(project.models.found_variant.variant, sizes))
    yield from _listed("too short", clips.too_short, is_problem=False)
    yield from _listed("unusable", clips.unusable, is_problem=project.settings.cache.bad_clips == "stop")


def _listed(kind: str, messages: list[str], *, is_problem: bool) -> Iterator[Line]:
    for message in messages[:SHOWN]:
        yield f"  {kind:12} {message}", is_problem
    if len(messages) > SHOWN:
        yield f"  {kind:12} ... and {len(messages) - SHOWN} more", is_problem
