"""FastViT, MobileCLIP's MCi and FastViTHD: vision encoders that train with many branches and run with one."""

import lazy_loader

from ._version import __version__ as __version__

# The public names stand in __init__.pyi, for type checkers too. Each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
