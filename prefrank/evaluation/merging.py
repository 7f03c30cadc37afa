"""Several runs as one: suites of equal data are joined, a scorer stands once, with the first result of each suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prefrank.errors import BadData, BadInput
from prefrank.evaluation.items import ItemFacts
from prefrank.evaluation.results import PairedTest, PairedTests, Run, ScorerRecord, SuiteRecord, SuiteResult, check_run


@dataclass(frozen=True, slots=True)
class _Share:
    """What is taken of a scorer from one run.

    Args:
        scorer: as that run holds it.
        suites: its names of those whose results are taken.
        results: by the names of the merged run.
    """

    scorer: ScorerRecord
    suites: tuple[str, ...]
    results: Mapping[str, SuiteResult]


def merged(runs: Sequence[Run]) -> Run:
    """Several runs as one, models first. How it was made is the first run's; the time is that of the last.

    A suite with the name of another and not its data gets its hash added; scorers of one name that are not the same
    get a number.

    Raises:
        BadInput: no run, or something else in its place.
        BadData: two runs say that their data are equal, and they are not.
    """
    if not runs:
        raise BadInput("there is no run to report; give at least one run file")
    for run in runs:
        check_run(run)
    suites: dict[str, SuiteRecord] = {}
    shares: dict[tuple[str, str, str], list[_Share]] = {}
    pairs: list[PairedTest] = []
    refused: list[str] = []
    for run in runs:
        names = {name: _suite_name(name, suite.data, suites) for name, suite in run.suites.items()}
        for name, suite in run.suites.items():
            suites.setdefault(names[name], _titled(suite, name, names[name]))
        for scorer in run.scorers:
            same = shares.setdefault((scorer.name, scorer.model, repr(scorer.format)), [])
            known = {name for share in same for name in share.results}
            new = tuple(name for name in scorer.results if names[name] not in known)
            results = {
                names[name]: _in_order(scorer.results[name], run.suites[name].items, suites[names[name]].items)
                for name in new
            }
            same.append(_Share(scorer, new, results))
        if run.comparison is not None:
            pairs += [replace(pair, suite=names.get(pair.suite, pair.suite)) for pair in run.comparison.pairs]
            refused += run.comparison.refused
    scorers = sorted(map(_joined, shares.values()), key=lambda scorer: scorer.is_baseline)
    return replace(
        runs[0],
        suites=suites,
        scorers=tuple(_told_apart(scorers)),
        command="\n".join(dict.fromkeys(run.command for run in runs if run.command)) or None,
        comparison=PairedTests(tuple(pairs), tuple(refused)),
        created=max(run.created for run in runs),
    )


def _joined(shares: Sequence[_Share]) -> ScorerRecord:
    """One scorer of several runs, with what the results that were taken cost."""
    return replace(
        shares[0].scorer,
        results={name: result for share in shares for name, result in share.results.items()},
        audit=next((share.scorer.audit for share in shares if share.scorer.audit is not None), None),
        replies=sum(round(share.scorer.replies * _part(share)) for share in shares),
        tokens=sum(round(share.scorer.tokens * _part(share)) for share in shares),
        scoring_s=sum(share.scorer.scoring_s * _part(share) for share in shares),
        evaluating_s=sum(share.scorer.evaluating_s * _part(share) for share in shares),
    )


def _part(share: _Share) -> float:
    """The share of what the run spent on the scorer: by tokens, or by replies if the scorer reports no tokens."""
    results = share.scorer.results
    if len(share.suites) == len(results):
        return 1.0
    sizes = {name: _size(result, by_tokens=bool(share.scorer.tokens)) for name, result in results.items()}
    return sum(sizes[name] for name in share.suites) / max(1, sum(sizes.values()))


def _size(result: SuiteResult, *, by_tokens: bool) -> int:
    """Tokens, or replies, of a suite's results."""
    return sum(map(sum if by_tokens else len, result.tokens))


def _in_order(result: SuiteResult, theirs: Sequence[ItemFacts], ours: Sequence[ItemFacts]) -> SuiteResult:
    """A result with its columns in the order of `ours`: equal data may be stored in any order."""
    if theirs is ours:
        return result
    places = {(item.subset, item.id): place for place, item in enumerate(theirs)}
    if places.keys() != {(item.subset, item.id) for item in ours} or len(theirs) != len(ours):
        raise BadData("two runs give one hash to data of different items, so one was changed; evaluate again")
    order = [places[item.subset, item.id] for item in ours]
    if order == list(range(len(order))):
        return result
    return replace(
        result,
        scores=tuple(result.scores[place] for place in order),
        tokens=tuple(result.tokens[place] for place in order),
        cut_prompt=tuple(result.cut_prompt[place] for place in order),
        cut_reply=tuple(result.cut_reply[place] for place in order),
    )


def _suite_name(name: str, data: str, known: Mapping[str, SuiteRecord]) -> str:
    return name if name not in known or known[name].data == data else f"{name} ({data[:8]})"


def _titled(suite: SuiteRecord, name: str, new: str) -> SuiteRecord:
    return suite if name == new else replace(suite, title=f"{suite.title or name} (data {suite.data[:8]})")


def _told_apart(scorers: Sequence[ScorerRecord]) -> list[ScorerRecord]:
    """Scorers of one name get a number."""
    seen: dict[str, int] = {}
    named = []
    for scorer in scorers:
        seen[scorer.name] = number = seen.get(scorer.name, 0) + 1
        named.append(scorer if number == 1 else replace(scorer, name=f"{scorer.name} ({number})"))
    return named
