"""Models that stay in memory from one sample to the next, as `hv15 sample -i` needs them.

Each is loaded when it is first needed. When memory runs out, the others make room and are loaded anew later, so a
session needs no more memory than the largest model, and is quickest where all fit.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from hv15.commands.encode import text_encoder
from hv15.commands.interruption import Interruption
from hv15.commands.notes import denoising_notes, log_notes
from hv15.commands.running_previews import running_previews
from hv15.commands.sample import Parts, encode_first_images, file_of, is_denoised
from hv15.commands.sample_work import LatentsWork, loaded_decoder, prepared, write_latents
from hv15.commands.terminal_picture import show_frames
from hv15.config.transformer import TransformerSettings
from hv15.digest import digest
from hv15.gpus import take_gpu
from hv15.out_of_memory import OutOfMemory, is_out_of_memory
from hv15.project import Project
from hv15.records.outputs import decoded_outputs
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.models.glyphs import GlyphEncoder
    from hv15.models.text import TextEncoder
    from hv15.sample.decode import SampleDecoder
    from hv15.sample.sampler import Sampler

Model = TypeVar("Model")

log = logging.getLogger(__name__)


class Evictable(Protocol):
    """What can give its memory back."""

    @property
    def is_taken(self) -> bool: ...

    def drop(self) -> None: ...


class Slot(Generic[Model]):
    """The place of one model in memory."""

    def __init__(self) -> None:
        self._key = ""
        self._model: Model | None = None
        self._after = ExitStack()

    @property
    def is_taken(self) -> bool:
        return self._model is not None

    def get(self, key: str, load: Callable[[ExitStack], Model]) -> Model:
        """Return the model, which is loaded unless that of the same key is there.

        Args:
            key: stands for the model's file and all settings with which it is loaded.
            load: may leave on the stack what has to be closed when the model is dropped.
        """
        if self._model is None or key != self._key:
            self.drop()
            with ExitStack() as stack:
                self._model = load(stack)
                self._after, self._key = stack.pop_all(), key
        return self._model

    def drop(self) -> None:
        """Give the model's memory back."""
        self._model = None
        self._after.close()
        self._after = ExitStack()


class ResidentModels:
    """The models of samples. A changed setting or file is noticed: then the model is loaded anew.

    Args:
        tells: whether videos and images say how they were made.
    """

    def __init__(self, *, tells: bool = True) -> None:
        self._tells = tells
        self._text: Slot[TextEncoder] = Slot()
        self._glyphs: Slot[GlyphEncoder] = Slot()
        self._sampler: Slot[Sampler] = Slot()
        self._decoder: Slot[SampleDecoder] = Slot()
        self._said: set[str] = set()

    def make(self, project: Project, specs: Sequence[SampleSpec], parts: Parts, interruption: Interruption) -> None:
        """Make samples; encoded images and latents that are there already are used.

        Raises:
            UserError: a model, an image or a LoRA cannot be used, or a file cannot be written.
            KeyboardInterrupt: the user has asked to stop.
        """
        take_gpu(project.settings.runtime.device)
        self._with_room(partial(self._encode_texts, project), self._sampler, self._decoder)
        interruption.check()
        every = (self._text, self._glyphs, self._sampler, self._decoder)
        self._with_room(partial(encode_first_images, project, specs, parts), *every)
        for spec in specs:
            interruption.check()
            if not is_denoised(project, spec, parts):
                work = partial(self._denoise, project, spec, parts, interruption)
                self._with_room(work, self._text, self._glyphs, self._decoder)
        for spec in specs:
            interruption.check()
            self._with_room(partial(self._decode, project, spec, parts), self._text, self._glyphs, self._sampler)

    def drop(self) -> None:
        """Give all memory back."""
        for slot in (self._text, self._glyphs, self._sampler, self._decoder):
            slot.drop()
        _free()

    def _with_room(self, work: Callable[[], None], *others: Evictable) -> None:
        """Do some work; when memory runs out, drop one model after the other that it does not need, and try again."""
        waiting = list(others)
        while True:
            try:
                return work()
            except Exception as error:
                waiting = [slot for slot in waiting if slot.is_taken]
                if not waiting or not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                    raise
            waiting.pop(0).drop()
            _free()
            print("memory is full: a model makes room, and is loaded again when it is needed", file=sys.stderr)

    def _encode_texts(self, project: Project) -> None:
        encoder = text_encoder(project)
        key, text, glyphs = project.texts.settings_digest, encoder.load_text, encoder.load_glyphs
        resident = replace(
            encoder,
            load_text=lambda: self._text.get(key, lambda _: text()),
            load_glyphs=lambda: self._glyphs.get(key, lambda _: glyphs()),
        )
        for shard in range(project.texts.shards):
            resident.run(shard)

    def _denoise(self, project: Project, spec: SampleSpec, parts: Parts, interruption: Interruption) -> None:
        """Denoise one sample and write its latents."""
        made_from = spec.denoising(None, project.texts.settings_digest)
        ready = prepared(project, LatentsWork(spec, made_from, parts.latents(spec), condition=parts.condition(spec)))
        self._say(project, spec, [lora.path for lora in ready.loras])
        previews = running_previews(project, show_frames)
        sampler = self._loaded_sampler(project, spec)
        sampler.after_step = lambda step: None if step == spec.steps else interruption.check()
        write_latents(project, sampler, ready, previews)

    def _loaded_sampler(self, project: Project, spec: SampleSpec) -> Sampler:
        from hv15.plan.guidance import batch_need
        from hv15.sample.sampler import loaded_sampler

        sample, device = project.settings.sample, project.settings.runtime.device
        settings = sample.model_dump(
            mode="json", include={*TransformerSettings.model_fields, "cuda_graphs", "sage_blocks"}
        )
        key = digest([project.models.identity("dit"), settings, spec.dtype, device])
        path, need = project.models.path("dit"), batch_need(project.settings)
        return self._sampler.get(
            key, lambda stack: stack.enter_context(loaded_sampler(path, sample, spec.dtype, device, need=need))
        )

    def _decode(self, project: Project, spec: SampleSpec, parts: Parts) -> None:
        outputs = decoded_outputs(spec.output_type)
        if not outputs:
            return
        device, patch_conv = project.settings.runtime.device, project.settings.sample.vae_enable_patch_conv
        decoder = self._decoder.get(
            digest([project.models.identity("vae"), spec.dtype_of_vae, device, patch_conv]),
            lambda _: loaded_decoder(project, spec),
        )
        made_from = spec.decoding(None, project.texts.settings_digest)
        for output in outputs:
            file = file_of(spec, output, parts.out)
            decoder.decode(parts.latents(spec), file, spec, made_from=made_from, tells=self._tells)

    def _say(self, project: Project, spec: SampleSpec, loras: Iterable[Path]) -> None:
        """Log the checkpoint, and each note the first time that it is due."""
        notes = [note for note in denoising_notes(project, [spec], loras) if note not in self._said]
        if not self._said:
            log_notes(log, project, notes)
        else:
            for note in notes:
                log.warning("note: %s", note)
        self._said |= {"the checkpoint", *notes}


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
