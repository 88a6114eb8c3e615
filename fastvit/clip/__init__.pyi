from .checkpoint import list_models as list_models
from .checkpoint import load as load
from .checkpoint import save as save
from .classifier import zero_shot as zero_shot
from .model import CLIP as CLIP
from .text import TextConfig as TextConfig
from .text import TextEncoder as TextEncoder
from .tokens import tokenize as tokenize
