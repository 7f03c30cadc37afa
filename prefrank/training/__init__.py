"""Training: a recipe and comparisons in, a checkpoint out. Needs `pip install 'prefrank[train]'`."""

from prefrank.training.foresight.dry_run import Forecast, dry_run
from prefrank.training.loop.train import Trained, train
from prefrank.training.recipe import DataSource, Recipe
from prefrank.training.recipe_file import load_recipe, make_recipe

__all__ = ["DataSource", "Forecast", "Recipe", "Trained", "dry_run", "load_recipe", "make_recipe", "train"]
