"""Training a LoRA by flow matching: draws, loop, state, records. The entry is hv15.train.run.train."""
