"""What do intervals cost: alone, and beside the scoring that an evaluation needs anyway?

First, 12 figures of 20,000 prompts from 10,000 resamples, with and without strata, and the same figures of two scorers
compared. Then a random model of MiniLM's shape scores the starter comparisons, repeated with other prompts, and
everything else that `evaluate` does is shown beside that.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py
    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py --items 4000
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, say, show

from prefrank import RewardModel
from prefrank.data import load_comparisons
from prefrank.evaluation import Bootstrap, evaluate
from prefrank.evaluation.comparing import compare
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure, mean_figure
from prefrank.types import Comparison, Prompt, Score, Turn

SUBSETS, SEED = 23, 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20_000, help="of the figures")
    parser.add_argument("--figures", type=int, default=12)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=2000, help="comparisons to evaluate a model on")
    return parser.parse_args()


def figures(count: int, prompts: int, seed: int) -> dict[str, Figure]:
    """Weighted means, for which there is no shortcut."""
    random, places = np.random.default_rng(seed), np.arange(prompts)
    return {
        f"figure {i}": mean_figure(random.random(prompts), places, random.random(prompts) + 0.1) for i in range(count)
    }


def timed(task: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    task()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def intervals(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    bootstrap = Bootstrap(resamples=options.resamples)
    first, second = (figures(options.figures, options.prompts, seed) for seed in (SEED, SEED + 1))
    strata = np.arange(options.prompts) % SUBSETS
    return {
        "one scorer": timed(lambda: estimate_all(first, bootstrap)),
        f"one scorer, {SUBSETS} subsets": timed(lambda: estimate_all(first, bootstrap, strata=strata)),
        "two scorers compared": timed(lambda: compare(first, second, bootstrap)),
    }


def evaluation(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Scoring, and the rest of `evaluate`."""
    comparisons = repeated(load_comparisons("starter").comparisons, options.items)
    model = RewardModel.load(minilm(folder), device="cpu")
    spent: list[dict[str, float]] = []

    def score_pairs(pairs: Sequence[tuple[Prompt, str]]) -> Sequence[Score]:
        scores: list[Score] = []
        spent.append(timed(lambda: scores.extend(model.score_pairs(pairs))))
        return scores

    whole = timed(lambda: evaluate(score_pairs, comparisons, name="minilm", bootstrap=Bootstrap(options.resamples)))
    rest = {name: whole[name] - spent[0][name] for name in whole}
    return {
        "comparisons": len(comparisons),
        "subsets": len({comparison.source for comparison in comparisons}),
        "scoring": spent[0],
        "rest": rest,
        "rest_percent": 100 * rest["cpu_s"] / spent[0]["cpu_s"],
    }


def repeated(comparisons: Sequence[Comparison], count: int) -> list[Comparison]:
    """As many as asked for; each round has prompts of its own, so that no reply is scored twice."""
    rounds = range(-(-count // len(comparisons)))
    copies = chain.from_iterable((_of_round(comparison, number) for comparison in comparisons) for number in rounds)
    return list(copies)[:count]


def _of_round(comparison: Comparison, number: int) -> Comparison:
    first = Turn(comparison.prompt[0].role, f"{number}: {comparison.prompt[0].text}")
    return replace(comparison, prompt=(first, *comparison.prompt[1:]), id=f"{comparison.id} {number}")


def minilm(folder: Path) -> Path:
    """A random BERT of MiniLM's shape (6 layers, width 384) with a WordPiece vocabulary of the starter's own words."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    tokenizer = BertWordPieceTokenizer()
    texts = [
        text
        for comparison in load_comparisons("starter").comparisons
        for text in (comparison.prompt[-1].text, *comparison.replies)
    ]
    tokenizer.train_from_iterator(texts, vocab_size=8000, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=1536, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def seconds(spent: dict[str, float]) -> list[str]:
    return [f"{spent['cpu_s']:.2f}", f"{spent['wall_s']:.2f}"]


def main() -> None:
    options = arguments()
    say(f"{options.figures} figures of {options.prompts:,} prompts, {options.resamples:,} resamples")
    costs = intervals(options)
    show("intervals", ["", "CPU s", "s"], [[name, *seconds(spent)] for name, spent in costs.items()])
    with tempfile.TemporaryDirectory() as folder:
        whole = evaluation(options, Path(folder))
    title = f"an evaluation of {whole['comparisons']:,} comparisons in {whole['subsets']} subsets"
    rows = [["scoring", *seconds(whole["scoring"])], ["the rest of evaluate", *seconds(whole["rest"])]]
    show(title, ["", "CPU s", "s"], rows)
    finish(
        {
            "benchmark": "evaluation_cost",
            "prompts": options.prompts,
            "figures": options.figures,
            "resamples": options.resamples,
            "threads": torch.get_num_threads(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "intervals": costs,
            "evaluation": whole,
        }
    )


if __name__ == "__main__":
    main()
