"""The keys of metadata in hv15's files: in a .safetensors header, an mp4, or a PNG's text."""

from __future__ import annotations

MADE_FROM = "hv15.made_from"
"""The spec that the file was made from, as JSON (hv15.records.spec); for a LoRA that of its training. The planner
compares it with the current one."""
CONFIG = "hv15.config"
"""The whole resolved config, as JSON; `hv15 show --config` prints it."""
STEPS = "hv15.steps"
"""The number of finished steps of a LoRA's training."""
SEGMENTS = "hv15.segments"
"""The trainings one after the other that made a LoRA, as JSON (`hv15.train.segments`); absent if it was one."""
VERSION = "hv15.version"
TASK = "hv15.task"
"""The task that a LoRA was trained for, t2v or i2v."""
MODEL_SIZES = "hv15.model_sizes"
"""Sizes of a model that do not follow from its tensors, as JSON."""
KOHYA_BASE_NAME = "ss_sd_model_name"
"""File name of the checkpoint that a LoRA was trained on; the key is kohya's."""
DORA_NORM = "hv15.dora_norm"
"""Which norms a LoRA file's DoRA magnitudes are relative to: "base" for those of the base weight's rows, as in ComfyUI;
without it those of the changed weight, as in LyCORIS and PEFT."""

SAMPLE = "hv15.sample"
"""The SampleSpec of a sample, as JSON."""
LORAS = "hv15.loras"
"""The LoRAs that were applied to a sample."""

MERGED = "hv15.merged"
"""The LoRAs merged into a checkpoint."""
MERGED_BASE = "hv15.merged.base"
"""The checkpoint that they were merged into."""

CONVERTED_FROM = "hv15.convert.from"
CONVERTED_TO = "hv15.convert.to"
"""The layouts that a LoRA was converted from and to."""
CONVERSION_FORMAT = "hv15.convert.format"
"""Format number of the conversion (hv15.records.formats)."""
CONVERSION_NOTE = "hv15.convert.note"
"""What a conversion approximated, or had to write in a larger form."""
