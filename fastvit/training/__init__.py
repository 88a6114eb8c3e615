"""`fastvit train`: a recipe, the run that follows it, and what a run leaves behind."""

from .presets import RECIPES
from .recipe import Recipe, RecipeError
from .trainer import Run, Stopped

__all__ = ["RECIPES", "Recipe", "RecipeError", "Run", "Stopped"]
