"""What the fields of each product's spec are called in the config (the `names` of `hv15.workflow.differences`)."""

from __future__ import annotations

from hv15.sample.prompts import LOW
from hv15.train.origin import ENTRY

TRAINING_NAMES = {
    "format": "hv15 trains in a new way.",
    "dit": "another transformer (models.dit).",
    "train.network_weights": "another file for train.network_weights.",
    "train.base_weights": "other files or strengths in train.base_weights.",
    f"train.{ENTRY}": f"another start (train.{ENTRY}).",
    "train.validation.clips": "other clips in the validation, which decides when it ends (patience).",
    "latents": "",
    "text": "",
    "masks": "",
    "dataset": "",
}
SAMPLE_NAMES = {
    "format": "hv15 samples in a new way.",
    "condition_format": "hv15 encodes first images in a new way.",
    "trained": "",
    "text": "",
    "models.dit": "another transformer (models.dit).",
    "models.vae": "another VAE (models.vae).",
    "models.image_encoder": "another image encoder (models.image_encoder).",
    "models.sr_dit": "another transformer of super resolution (models.sr_dit).",
    "models.upsampler": "another latent upsampler (models.upsampler).",
    "image": "another first image.",
    "loras": "other LoRAs besides the trained one.",
    "height": "video_size, height",
    "width": "video_size, width",
    "frames": "video_length",
    "steps": "infer_steps",
    "latents": "",
    LOW: "",
    "vae": "another VAE (models.vae).",
    "image_encoder": "another image encoder (models.image_encoder).",
    "size": "",
    "enlarged_to": "",
    "enlarges": "super resolution to another size.",
}
ENLARGING_NAMES = SAMPLE_NAMES | {"steps": "sr_steps", "flow_shift": "sr_flow_shift"}
CONVERSION_NAMES = {
    "format": "hv15 converts in a new way.",
    "about": "convert: says something else about it.",
    "trained": "",
    "layout": "",
}
REPORT_NAMES = {
    "format": "hv15 writes reports in a new way.",
    "about": "convert: says something else about it.",
    "grid": "the samples of the checkpoints are new.",
    "trained": "",
    "samples": "",
}
CARD_NAMES = {
    "format": "hv15 writes model cards in a new way.",
    "about": "convert: says something else about it.",
    "copies": "convert.formats",
    "trained": "",
    "samples": "",
}
