"""hv15: from a folder of captioned clips to a HunyuanVideo 1.5 LoRA."""

__version__ = "0.1.0"
