"""FastViT, MobileCLIP's MCi and FastViTHD: vision encoders that train with many branches and run with one."""

from .checkpoint import load, save
from .config import CONFIGS, Config
from .create import create_model, list_models
from .engines import engine
from .forms import form_of
from .images.preprocess import Preprocess
from .model import FastViT
from .multiscale import MultiScaleEncoder
from .overparam import overparameterize
from .registry import register_timm
from .reparam import reparameterize
from .verify import verify
from .weights.tensors import WeightsError

__version__ = "0.1.0"

__all__ = [
    "CONFIGS",
    "Config",
    "FastViT",
    "MultiScaleEncoder",
    "Preprocess",
    "WeightsError",
    "create_model",
    "engine",
    "form_of",
    "list_models",
    "load",
    "overparameterize",
    "register_timm",
    "reparameterize",
    "save",
    "verify",
]
