"""Trains a LoRA by flow matching: random draws, loop, saved state, records. The entry point is hv15.train.run.train."""
