"""The networks of HunyuanVideo 1.5 and the reading of their checkpoints.

The public names stand in `__init__.pyi`, for type checkers and for lazy_loader, which resolves them on first use: so
`import hv15.models` loads no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
