"""What the base config of a project and its experiments have in common: so it is looked at, and encoded, once.

Equal datasets are one object. Of several runs that need the same items, encoded in the same way, the first one has the
manifests, and the jobs that make them; the others read these. A run that needs something of its own has manifests of
its own, in its folder. The items themselves are in the store either way, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from hv15.cache.encoding import Encoding, NeededClips, NeededMask
from hv15.choices import Role
from hv15.config import Settings
from hv15.config.load import ConfigSource
from hv15.digest import digest
from hv15.models.weights.fingerprint import FingerprintCache
from hv15.project.dataset import ProjectDataset
from hv15.project.encodings import encode_clips, encode_masks, encode_texts, latents_settings, text_settings
from hv15.project.model_files import ModelFiles
from hv15.records.cache_paths import CachePaths
from hv15.records.paths import ProjectPaths
from hv15.records.trained_dataset import TrainedDataset

Needed = TypeVar("Needed")


class Family:
    """The base config and its experiments.

    Args:
        file: the config.
        own_models: files that a command names instead of the config's.
        only: what is trained on, if that is not everything that the datasets hold now.

    Raises:
        ConfigError: the config is wrong.
    """

    def __init__(self, file: ConfigSource, own_models: Mapping[Role, Path], only: TrainedDataset | None = None) -> None:
        self.file, self._only = file, only
        base = file.settings()
        self.store = base.resolve(base.cache.directory)
        self.fingerprints = FingerprintCache(CachePaths(self.store).model_fingerprints)
        self._own_models = own_models
        self._models: dict[str, ModelFiles] = {}
        self._datasets: dict[str, ProjectDataset] = {}
        self._encodings: dict[Hashable, Encoding[object]] = {}
        self._owned: list[Encoding[object]] = []
        """Each of them once, in the order of the runs that have the manifests."""

    def models(self, settings: Settings) -> ModelFiles:
        """The model files that settings name."""
        named = digest([settings.models.model_dump(mode="json"), settings.task, settings.sample.enlarging])
        if named not in self._models:
            self._models[named] = ModelFiles(settings, self.fingerprints, self._own_models)
        return self._models[named]

    def dataset(self, settings: Settings) -> ProjectDataset:
        """The captioned media that settings name."""
        validation = settings.train.validation
        parts = (settings.datasets, validation.datasets)
        named = digest([*([each.model_dump(mode="json") for each in part] for part in parts), validation.fraction])
        if named not in self._datasets:
            self._datasets[named] = ProjectDataset(
                settings.datasets, validation, settings.root, self.store, only=self._only
            )
        return self._datasets[named]

    # -- encodings --------------------------------------------------------------------------------------------------

    def latents(
        self, settings: Settings, models: ModelFiles, dataset: ProjectDataset, paths: ProjectPaths
    ) -> Encoding[NeededClips]:
        """The clips to encode.

        Raises:
            UserError: a model file is missing, or a dataset cannot be used.
        """
        return self._shared(
            (not paths.run, "latents", id(dataset), digest(latents_settings(settings, models))),
            lambda: encode_clips(settings, models, dataset, self.store, paths),
        )

    def masks(self, settings: Settings, dataset: ProjectDataset, paths: ProjectPaths) -> Encoding[NeededMask]:
        """The masks to make.

        Raises:
            UserError: a dataset cannot be used.
        """
        return self._shared(
            (not paths.run, "masks", id(dataset)), lambda: encode_masks(settings, dataset, self.store, paths)
        )

    def texts(
        self,
        settings: Settings,
        models: ModelFiles,
        dataset: ProjectDataset,
        prompts: Iterable[str],
        paths: ProjectPaths,
    ) -> Encoding[str]:
        """The captions and prompts to encode.

        Raises:
            UserError: a model file is missing, or a dataset cannot be used.
        """
        distinct = tuple(dict.fromkeys(prompts))
        return self._shared(
            (not paths.run, "text", id(dataset), digest(text_settings(settings, models)), distinct),
            lambda: encode_texts(settings, models, dataset.texts, distinct, self.store, paths),
        )

    def _shared(self, named: tuple[Hashable, ...], make: Callable[[], Encoding[Needed]]) -> Encoding[Needed]:
        """Return the first encoding that includes what this one needs; it is made if there is none.

        Args:
            named: what it depends on; first whether it is of the base config, which has its own in any case.
        """
        if named not in self._encodings:
            new = make()
            first = new if named[0] else next((each for each in self._owned if each.includes(new)), new)
            if first is new:
                self._owned.append(new)
            self._encodings[named] = first
        return cast("Encoding[Needed]", self._encodings[named])
