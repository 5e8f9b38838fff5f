"""Settings of a project: what config.yaml may contain, with defaults and help. Does not load torch."""

from hv15.config.cache import CacheSettings
from hv15.config.convert import ConvertSettings
from hv15.config.datasets import DatasetSettings
from hv15.config.fields import FieldInfo, digest_view, encoding_view, fields, help_text, marked_view
from hv15.config.load import load_config
from hv15.config.loras import LoraSettings
from hv15.config.models import ModelSettings
from hv15.config.presets import new_project, preset_names, preset_text
from hv15.config.runtime import RuntimeSettings
from hv15.config.sample import PromptSettings, SampleSettings
from hv15.config.section import Section
from hv15.config.settings import Settings
from hv15.config.train import TrainSettings

__all__ = [
    "CacheSettings",
    "ConvertSettings",
    "DatasetSettings",
    "FieldInfo",
    "LoraSettings",
    "ModelSettings",
    "PromptSettings",
    "RuntimeSettings",
    "SampleSettings",
    "Section",
    "Settings",
    "TrainSettings",
    "digest_view",
    "encoding_view",
    "fields",
    "help_text",
    "load_config",
    "marked_view",
    "new_project",
    "preset_names",
    "preset_text",
]
