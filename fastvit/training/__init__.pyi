from .presets import RECIPES as RECIPES
from .recipe import Recipe as Recipe
from .recipe import RecipeError as RecipeError
from .trainer import Run as Run
from .trainer import Stopped as Stopped
