"""Names of the demo's model files. Needs no torch, because the workflow plans with them."""

from __future__ import annotations

DEMO_VERSION = "2"
"""The recipe of the demo's models: a change of it makes everything that depends on them new."""

DEMO_FILES = {
    "dit": "demo/dit.safetensors",
    "vae": "demo/vae.safetensors",
    "text_encoder": "demo/qwen.safetensors",
    "tokenizer": "demo/tokenizer",
    "glyph_encoder": "demo/byt5.safetensors",
    "image_encoder": "demo/siglip.safetensors",
}
"""Role -> file or folder, from the models directory."""

DEMO_OUTPUTS = (
    *(name for role, name in DEMO_FILES.items() if role != "tokenizer"),
    *(f"{DEMO_FILES['tokenizer']}/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
)
"""Every file that making the demo's models writes."""
