"""One process that trains a recipe or forecasts it, as the command line does: prints the peak, or parts, as JSON."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from prefrank.cli.allocator import keep_freed_memory
from prefrank.training import dry_run, make_recipe, train
from prefrank.training.foresight.memory import peak


def main(task: str, recipe_file: str) -> None:
    recipe = make_recipe(json.loads(Path(recipe_file).read_text()))
    with keep_freed_memory():
        if task == "train":
            train(recipe)
            sys.stdout.write(json.dumps({"peak": peak(torch.device("cpu"))}))
        else:
            sys.stdout.write(json.dumps(asdict(dry_run(recipe).memory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
