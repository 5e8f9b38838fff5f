"""The format numbers of computed results. Each is part of the spec of its kind of result.

Increase a number when the computed values change on purpose. Then everything of that kind, and everything made from it,
is made again, and a half-done training is never resumed with other arithmetic. A change that does not affect the values
keeps the number.
"""

from __future__ import annotations

LATENTS = 3
"""Encoded clips: choice of frames, resizing, VAE, SigLIP, form of the items."""
TEXT = 3
"""Encoded captions and prompts: templates, limits, encoders, form of the items."""
MASKS = 1
"""Encoded masks: resizing, weights of latent positions, form of the items."""
TRAINING = 2
"""The trained LoRA: random draws, loss, optimizers, order of the clips."""
CONDITION = 1
"""The encoded first image of an i2v sample."""
DENOISING = 2
"""A sample's latents: noise, schedule, guidance."""
DECODING = 1
"""A sample's pixels and its file."""
CONVERSION = 2
"""The LoRA in the layouts of other programs."""
GRID = 1
"""The sheet and the video of all checkpoints."""
COMPARISON = 3
"""The comparison of experiments: its page, tables and pictures."""
REPORT = 2
"""The page of all results."""
CARD = 2
"""The model card."""
