from .callback import Callback as Callback
from .presets import RECIPES as RECIPES
from .recipe import Recipe as Recipe
from .recipe import RecipeError as RecipeError
from .signals import Stopped as Stopped
from .sources import open_sources as open_sources
from .trained_run import TrainedRun as TrainedRun
from .trainer import Trainer as Trainer
