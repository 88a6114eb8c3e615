"""FastViT, MobileCLIP's MCi and FastViTHD: vision encoders that train with many branches and run with one."""

from .config import CONFIGS, Config
from .create import create_model, list_models, load, save
from .model import FastViT
from .preprocess import Preprocess
from .reparam import reparameterize
from .weights.files import WeightsError

__version__ = "0.1.0"

__all__ = [
    "CONFIGS",
    "Config",
    "FastViT",
    "Preprocess",
    "WeightsError",
    "create_model",
    "list_models",
    "load",
    "reparameterize",
    "save",
]
