"""The networks of HunyuanVideo 1.5 and the reading of their checkpoints.

The public names are listed in `__init__.pyi`. Type checkers read it, and each name is imported on first use, so
`import hv15.models` does not load torch.
"""

from hv15.lazy_names import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
