"""Memory and time of every stage before it runs: the code of each stage, run on tensors without data."""
