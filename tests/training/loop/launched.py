"""Runs the jobs of a JSON file one after the other, under a launcher: recipes, and a step to stop after or null.

Writes `steps.json` beside each run: the loss and the gradient's norm of every step. A job that fails writes its error.
"""

import json
import os
import signal
import sys
from pathlib import Path

from prefrank.errors import Interrupted, PrefrankError
from prefrank.training import make_recipe, train
from prefrank.training.records.events import Event, StepDone


def run(values: dict, stop: int | None) -> None:
    steps: list[tuple[int, float, float]] = []

    def report(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append((event.step, event.loss, event.grad_norm))
            if event.step == stop:
                os.kill(os.getpid(), signal.SIGINT)

    error = None
    try:
        train(make_recipe(values), callback=report)
    except Interrupted:
        pass
    except PrefrankError as one:
        error = str(one)
    if int(os.environ.get("RANK", "0")) == 0:
        (Path(values["output_dir"]) / "steps.json").write_text(json.dumps({"steps": steps, "error": error}))


if __name__ == "__main__":
    for values, stop in json.loads(Path(sys.argv[1]).read_text()):
        run(values, stop)
