"""A project: one config, its dataset as it is on disk now, and what follows from the two.

Everything here is cheap and loads no model: the Snakefile, `hv15 check` and the jobs all ask the same object, so that
a job can tell whether the dataset is still the one that was planned for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hv15.cache.batches import TrainingItem
from hv15.cache.plan import LatentNeed, Plan
from hv15.config import DatasetSettings, Settings, digest_view, load_config
from hv15.data.captions import caption_key
from hv15.data.index import FileIndex
from hv15.data.media import Source
from hv15.data.scan import scan
from hv15.digest import digest, short
from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.errors import UserError
from hv15.model_files import ModelFiles, Role
from hv15.models.grid import latent_size
from hv15.models.weights.fingerprint import FingerprintCache, model_fingerprint
from hv15.sample.plan import BASE_SUFFIX, plan_samples
from hv15.sample.prompts import SampleSpec

CONTACT_SHEET = "results/samples/contact_sheet.png"
SHOWN = (".mp4", ".frames")
"""How the names of samples end that can be looked at."""


def clip_rule(dataset: DatasetSettings) -> str:
    """The digest of the settings that decide which frames a dataset's clips have and how they are resized."""
    fields = ["resolution", "enable_bucket", "bucket_no_upscale", "source_fps", "target_fps", "background"]
    if dataset.kind == "video":
        fields += ["frame_extraction", *EXTRACTION_FIELDS[dataset.frame_extraction]]
    return short({name: getattr(dataset, name) for name in fields})


EXTRACTION_FIELDS = {
    "head": ["target_frames"],
    "chunk": ["target_frames"],
    "slide": ["target_frames", "frame_stride"],
    "uniform": ["target_frames", "frame_sample"],
    "full": ["max_frames"],
}
"""The further settings that each kind of `frame_extraction` reads."""


@dataclass(frozen=True)
class Pair:
    """One captioned medium of one dataset: what training draws from."""

    media: str
    caption: str
    rule: str
    dataset: int

    @property
    def source_key(self) -> str:
        return f"{self.media}-{self.rule}"


class Project:
    """The config of a folder and what it asks for.

    Args:
        config: the config file; its folder is the project.
        overrides: settings given on the command line, nested as in the file.
    """

    def __init__(self, config: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self.config = Path(config)
        self.overrides = dict(overrides or {})
        self.settings: Settings = load_config(self.config, self.overrides)
        self.root = self.settings.root
        self.cache = self.settings.resolve(self.settings.cache.directory)
        self._fingerprints = FingerprintCache(self.cache / "fingerprints.json")
        self.models = ModelFiles(self.settings, self._fingerprints)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which a command of a job opens the same project.

        They are not on its command line, because Snakemake would take a changed one for a reason to run it again.
        """
        return {CONFIG_VARIABLE: str(self.config), OVERRIDES_VARIABLE: json.dumps(self.overrides, sort_keys=True)}

    # -- the dataset ------------------------------------------------------------------------------------------------

    @cached_property
    def sources(self) -> list[tuple[int, Source, str]]:
        """(dataset index, source, media key) of everything the datasets hold now."""
        self._render_demo()
        found: list[tuple[int, Source]] = []
        problems: list[UserError] = []
        for number, dataset in enumerate(self.datasets):
            try:
                found += [(number, source) for source in scan(dataset, self.root)]
            except UserError as error:
                problems.append(UserError(f"datasets[{number}]: {error.message}", hint=error.hint))
        if problems:
            raise UserError("\n".join(each.message for each in problems), hint=problems[0].hint)
        keys = FileIndex(self.cache / "index.json").media_keys([source for _, source in found])
        return [(number, source, key) for (number, source), key in zip(found, keys, strict=True)]

    def _render_demo(self) -> None:
        """The demo's clips are drawn before the first plan: a plan needs the content of the dataset."""
        if self.settings.models.source != "demo":
            return
        asked = [self.settings.resolve(each.video_directory) for each in self.datasets if each.video_directory]
        if missing := [folder for folder in asked if not folder.exists()]:
            from hv15.demo.clips import DEMO_FOLDERS

            for name, write in DEMO_FOLDERS.items():
                if self.root / name in missing:
                    write(self.root / name)

    @property
    def datasets(self) -> tuple[DatasetSettings, ...]:
        return self.settings.datasets

    @cached_property
    def _rules(self) -> list[str]:
        return [clip_rule(dataset) for dataset in self.datasets]

    @cached_property
    def _identities(self) -> list[str]:
        """What a dataset is to the training, whatever its place in the list: clips, weight, batch size."""
        return [
            short([rule, dataset.num_repeats, dataset.batch_size])
            for rule, dataset in zip(self._rules, self.datasets, strict=True)
        ]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every captioned medium, in an order that depends on content alone."""
        pairs = [Pair(key, caption_key(source.caption), self._rules[n], n) for n, source, key in self.sources]
        return sorted(pairs, key=lambda pair: (pair.media, pair.caption, pair.rule, pair.dataset))

    @cached_property
    def dataset_digest(self) -> str:
        """The digest of all pairs with their weights; file names do not enter."""
        return digest(sorted([pair.media, pair.caption, self._identities[pair.dataset]] for pair in self.pairs))

    # -- what has to be encoded -------------------------------------------------------------------------------------

    @cached_property
    def latents(self) -> Plan[LatentNeed]:
        cache, i2v = self.settings.cache, self.settings.task == "i2v"
        settings = {
            "vae": self.models.identity("vae"),
            "vision": self.models.identity("image_encoder") if i2v else None,
            "compute_dtype": cache.dtype,
            "dtype": cache.latent_dtype,
            "tile": [cache.vae_sample_size, cache.vae_tile_overlap] if cache.vae_sample_size else None,
        }
        needed = {
            f"{key}-{self._rules[number]}": LatentNeed(source, key, self.datasets[number])
            for number, source, key in self.sources
        }
        return Plan("latents", self.cache, settings, needed, cache.shards)

    @cached_property
    def texts(self) -> Plan[str]:
        """Each distinct caption and prompt once; the empty text serves caption dropout and the CFG negative."""
        cache = self.settings.cache
        settings = {
            "text_encoder": self.models.identity("text_encoder"),
            "tokenizer": self.models.identity("tokenizer"),
            "glyph_encoder": self.models.identity("glyph_encoder"),
            "compute_dtype": cache.dtype,
            "dtype": cache.text_dtype,
            "fp8_vl": cache.fp8_vl,
            "text_encoder_cpu": cache.text_encoder_cpu,
        }
        texts = {"", *(source.caption for _, source, _ in self.sources), *self.prompt_texts}
        return Plan("text", self.cache, settings, {caption_key(text): text for text in texts}, cache.shards)

    @property
    def prompt_texts(self) -> set[str]:
        """The prompts and negative prompts of all samples."""
        return {text for spec in self.samples.values() for text in (spec.prompt, spec.negative_prompt)}

    # -- what training reads ----------------------------------------------------------------------------------------

    def training_items(self) -> list[TrainingItem]:
        """Every clip with its caption, as the manifests list them.

        Raises:
            UserError: something is not encoded yet, or no clip is left.
        """
        entries = self.latents.entries()
        self.texts.entries()
        items = [
            TrainingItem(
                clip["key"],
                pair.caption,
                latent_size(clip["frames"], clip["height"], clip["width"]),
                dataset=self._identities[pair.dataset],
                batch_size=self.datasets[pair.dataset].batch_size,
                repeats=self.datasets[pair.dataset].num_repeats,
            )
            for pair in self.pairs
            for clip in entries[pair.source_key].get("clips", ())
        ]
        if not items:
            raise UserError(f"{self.config}: no clip is left to train on", hint=f"see {self.latents.report_path}")
        return items

    # -- what training depends on -----------------------------------------------------------------------------------

    @cached_property
    def train_spec(self) -> dict[str, Any]:
        """Everything that changes the trained LoRA, without names and paths."""
        train = self.settings.train
        weights = self._named_digest("train.network_weights", train.network_weights) if train.network_weights else None
        return {
            "task": self.settings.task,
            "train": {**digest_view(train), "network_weights": weights},
            "dit": self.models.identity("dit"),
            "latents": self.latents.settings_digest,
            "text": self.texts.settings_digest,
            "dataset": {"digest": self.dataset_digest, "size": len(self.pairs)},
        }

    # -- samples ----------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> dict[str, SampleSpec]:
        """What is sampled, by name."""
        roles: list[Role] = ["dit", "vae", "text_encoder", "tokenizer", "glyph_encoder"]
        if self.settings.task == "i2v":
            roles.append("image_encoder")
        models: dict[str, str] = {role: self.models.identity(role) for role in roles}
        specs = plan_samples(self.settings, self.models.variant, models, self._file_digest)
        return {spec.name: spec for spec in specs}

    def sample(self, name: str) -> SampleSpec:
        """One sample's spec.

        Raises:
            UserError: the config has no prompt of that name.
        """
        if name not in self.samples:
            raise UserError(
                f"{self.config}: no sample is called {name}; there are: {', '.join(self.samples) or 'none'}",
                hint="add it to sample.prompts",
            )
        return self.samples[name]

    @cached_property
    def products(self) -> list[str]:
        """The samples and conversions that belong to a finished LoRA, relative to the project folder."""
        samples = [file for name in self.samples for file in self._sample_files(name)]
        sheet = [CONTACT_SHEET] if self.sheet_samples else []
        return samples + sheet + [f"results/lora.{layout}.safetensors" for layout in self.settings.convert.formats]

    @cached_property
    def sheet_samples(self) -> dict[str, tuple[str, str | None]]:
        """The samples of the contact sheet, by name: the video or folder of images, and the one without the LoRA.

        Nothing if there are not at least two: the sheet is there to compare.
        """
        shown = {name: file for name in self.samples if (file := self._sample_files(name)[0]).endswith(SHOWN)}
        own = {name: file for name, file in shown.items() if not name.endswith(BASE_SUFFIX)}
        return {name: (file, shown.get(name + BASE_SUFFIX)) for name, file in own.items()} if len(shown) > 1 else {}

    def _sample_files(self, name: str) -> list[str]:
        suffixes = {
            "video": [".mp4"],
            "images": [".frames"],
            "latent": [".latents.safetensors"],
            "both": [".mp4", ".latents.safetensors"],
        }
        return [f"results/samples/{name}{suffix}" for suffix in suffixes[self.sample(name).output_type]]

    def _named_digest(self, setting: str, path: str) -> str:
        """The fingerprint of a file that a setting names; an error names the setting."""
        try:
            return self._file_digest(self.settings.resolve(path))
        except UserError as error:
            raise UserError(f"{setting}: {error.message}", hint=error.hint) from error

    def _file_digest(self, path: Path) -> str:
        return model_fingerprint(path, cache=self._fingerprints)

    def save_caches(self) -> None:
        """Keep what was learnt about files, so that the next plan is quick."""
        self._fingerprints.save()
