"""LoRA for HunyuanVideo 1.5: training, applying and merging it, and all layouts of its files.

The public names are listed in `__init__.pyi`. Type checkers read it, and lazy_loader imports each name on first use, so
`import hv15.lora` does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
