"""Is a scorer of your own any good? Beside baselines on the probes, with tests. Usage: judge_a_scorer.py"""

from prefrank.evaluation import (
    SUITES,
    Bootstrap,
    Entrant,
    Task,
    compare_runs,
    load_suite,
    longer_wins,
    random_scorer,
    run_all,
)
from prefrank.types import Score

WORDS = ("please", "thank", "because", "first", "then")


def plain_words(pairs: list) -> list[Score]:
    """A reply is worth the plain words in it, which is to say: not much."""
    counts = [sum(word in reply.lower() for word in WORDS) for _, reply in pairs]
    return [Score(float(count), tokens=0, cut_prompt=0, cut_reply=0, model="plain-words") for count in counts]


def main() -> None:
    task = Task(SUITES["probes"], load_suite("probes"), "prefrank")
    others = [Entrant("longer", "baseline", longer_wins), Entrant("random", "baseline", random_scorer())]
    run = run_all([Entrant("mine", "python", plain_words), *others], [task], bootstrap=Bootstrap(2000))
    for test in compare_runs({"": run}, SUITES).pairs:
        if test.headline:
            gap = test.difference
            print(f"{test.a} less {test.b}: {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}], {test.verdict}")


if __name__ == "__main__":
    main()
