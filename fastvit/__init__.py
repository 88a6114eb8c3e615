"""FastViT, MobileCLIP's MCi and FastViTHD: vision encoders that train with many branches and run with one."""

from .checkpoint import load, save
from .create import create_model, list_models
from .deploy.engines.select import engine
from .images.preprocess import Preprocess
from .models.config import CONFIGS, Config
from .models.fastvit import FastViT
from .models.forms import form_of
from .models.multiscale import MultiScaleEncoder
from .models.overparam import overparameterize
from .models.reparam import reparameterize
from .timm_registry import register_timm
from .verification import verify
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
