"""LoRA for HunyuanVideo 1.5: training it, applying and merging it, and every layout of its files.

The public names stand in `__init__.pyi`, for type checkers and for lazy_loader, which resolves them on first use: so
`import hv15.lora` loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
