"""The format numbers of what is computed. Each is part of the spec of what it names.

Raise a number when the values change on purpose: then everything of that kind, and what was made from it, is made
anew, and a half-done training is never continued by other arithmetic. A change that keeps the values keeps the number.
"""

from __future__ import annotations

LATENTS = 3
"""Encoded clips: which frames are read, how they are resized, what the VAE and SigLIP make of them; how it is kept."""
TEXT = 3
"""Encoded captions and prompts: templates, limits, encoders; how it is kept."""
TRAINING = 1
"""The trained LoRA: draws, loss, optimizers, order of the clips."""
CONDITION = 1
"""The encoded first image of an i2v sample."""
DENOISING = 1
"""A sample's latents: noise, schedule, guidance."""
DECODING = 1
"""A sample's pixels and its file."""
CONVERSION = 1
"""The LoRA in other programs' names."""
