"""Filter training data: keep each prompt's best reply. Usage: keep_the_best.py MODEL IN.jsonl OUT.jsonl

A row of the input has `prompt` and a list `replies`.
"""

import json
import sys
import tempfile
from operator import itemgetter
from pathlib import Path

from prefrank import RewardModel
from prefrank.scoring.files import score_file


def main(name: str, source: str, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scored = Path(folder) / "scored.jsonl"
        report = score_file(RewardModel.load(name), source, scored)
        rows = [json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()]
    with open(output, "w", encoding="utf-8") as file:
        for row in rows:
            best = max(zip(row["score"], row["replies"], strict=True), key=itemgetter(0))
            file.write(json.dumps({"prompt": row["prompt"], "reply": best[1], "score": best[0]}) + "\n")
    print(f"{report.replies} replies scored, {report.rows} kept, {report.cut_replies} had been cut")


if __name__ == "__main__":
    main(*sys.argv[1:])
