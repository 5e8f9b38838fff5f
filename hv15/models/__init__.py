"""The networks of HunyuanVideo 1.5 and the reading of their checkpoints.

The public names are listed in `__init__.pyi`. Type checkers read it, and lazy_loader imports each name on first use, so
`import hv15.models` does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
