"""One process that trains or foresees a recipe, for tests of memory: prints the peak, and foreseen parts, as JSON."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from prefrank.training import dry_run, make_recipe, train
from prefrank.training.foresight.memory import peak


def main(task: str, recipe_file: str) -> None:
    recipe = make_recipe(json.loads(Path(recipe_file).read_text()))
    if task == "train":
        import torch

        train(recipe)
        sys.stdout.write(json.dumps({"peak": peak(torch.device("cpu"))}))
    else:
        sys.stdout.write(json.dumps(asdict(dry_run(recipe).memory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
