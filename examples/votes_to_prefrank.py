"""Several people's votes on pairs of replies, ties included, as prefrank's own format: one line for each pair.

    python examples/votes_to_prefrank.py pairs-crowd.jsonl crowd-comparisons.csv votes.jsonl

The first file has `id`, `text`, `result_x`, `result_y` (as in github.com/dustalov/llmfao); the second one line for each
vote, with that `id` and a `winner`: left, right or tie. Pairs with the same prompt and replies become one record.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

SIDES = {"left": (0, 1, 1.0), "right": (1, 0, 1.0), "tie": (0, 1, 0.5)}  # winner, loser, probability


def convert(pairs: list[dict], votes: list[dict]) -> list[dict]:
    by_id = defaultdict(list)
    for vote in votes:
        by_id[str(vote["id"])].append(SIDES[vote["winner"]])
    records: dict[tuple[str, ...], dict] = {}
    for pair in pairs:
        replies = [pair["result_x"].strip(), pair["result_y"].strip()]
        fresh = {"id": str(pair["id"]), "prompt": pair["text"], "replies": replies, "preferences": []}
        record = records.setdefault((pair["text"], *sorted(replies)), fresh)
        side = [record["replies"].index(reply) for reply in replies]
        record["preferences"] += [[side[winner], side[loser], p] for winner, loser, p in by_id[str(pair["id"])]]
    return [record for record in records.values() if record["preferences"]]


if __name__ == "__main__":
    pairs_file, votes_file, out = map(Path, sys.argv[1:])
    pairs = [json.loads(line) for line in pairs_file.open(encoding="utf-8")]
    records = convert(pairs, list(csv.DictReader(votes_file.open(encoding="utf-8", newline=""))))
    out.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    print(f"{len(records)} pairs with {sum(len(r['preferences']) for r in records)} votes in {out}")
