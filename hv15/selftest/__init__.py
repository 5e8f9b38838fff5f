"""What works on this machine, how fast, and whether the plan is true: `hv15 selftest`, or `python -m hv15.selftest`.

It needs torch, pydantic, safetensors, einops and numpy; checks that need more are skipped where that is missing. The
models are made on the device with random weights, so it needs no files.
"""
