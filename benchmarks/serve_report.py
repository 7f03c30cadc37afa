"""The tables of the serving benchmark, what of the targets was reached, and its last line."""

from collections.abc import Mapping, Sequence
from typing import Any

from common import finish, say, show
from serve_servers import KINDS, NAIVE, OWN

TARGETS = (
    ("x_naive", 3.0, "at least"), ("x_best_peer", 1.5, "at least"), ("p99_x_solo_75", 3.0, "at most"),
    ("goodput_200", 0.9, "at least"), ("refusal_ms_most", 50.0, "at most"), ("overhead_ms_p50", 3.0, "at most"),
    ("wrong_scores", 0.0, "at most"), ("padding", 0.0, "at most"),
)  # fmt: skip
RANKING = "W2"
"""The workload whose capacities are compared: mixed lengths."""
QUIET = 0.05
Result = Mapping[str, Any]


def report(record: Mapping[str, Any]) -> None:
    """Print everything; the last line is one JSON object."""
    results: list[Result] = record["results"]
    _conditions(record)
    _capacities(results)
    _own_loads(results)
    _peer_loads(results)
    _groups(results)
    _others(record)
    summary = summarize(record)
    for name, target, way in TARGETS:
        value = summary[name]
        if value is None:
            say(f"{name}: not measured (wanted {way} {target:g})")
            continue
        reached = value >= target if way == "at least" else value <= target
        say(f"{name}: {value:g}, wanted {way} {target:g}: {'reached' if reached else 'NOT reached'}")
    finish(summary)


def summarize(record: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the last line.

    `p99_x_solo_75` and `goodput_200` are the worst of all workloads that are sent in an open loop; `_by` has each.
    `p99_x_ideal_75` compares with a server of the same capacity that has no overhead at all, at the same arrivals.
    """
    results: list[Result] = record["results"]
    own = {each["workload"]: each for each in results if each["server"] == OWN and not each["skipped"]}
    ranking = {each["server"]: each["capacity"] for each in results if each["workload"] == RANKING and each["capacity"]}
    p99 = {name: _of(each, 75, lambda o, r: o["p99"] / r["solo"]) for name, each in own.items()}
    even = {name: _of(each, 75, lambda o, r: o["p99"] / r["solo"], even=True) for name, each in own.items()}
    ideal = {name: _of(each, 75, lambda o, r: o["p99"] / o["ideal_p99"]) for name, each in own.items()}
    least = {name: _of(each, 75, lambda o, r: o["ideal_p99"] / r["solo"]) for name, each in own.items()}
    good = {name: _of(each, 200, lambda o, r: o["good"] / r["capacity"]) for name, each in own.items()}
    refusals = [o["refusal_most"] for each in own.values() for o in each["outcomes"] if o["refusal_most"] is not None]
    memory = [each[OWN] for each in record["memory"].values() if OWN in each]
    overhead, paddings = record["overhead"], [each for each in record["padding"].values() if each is not None]
    return {
        "x_naive": _ratio(ranking, [name for name in ranking if name in NAIVE]),
        "x_best_peer": _ratio(ranking, [name for name in ranking if name != OWN]),
        "p99_x_solo_75": _worst(p99, max),
        "p99_x_solo_75_even": _worst(even, max),
        "p99_x_ideal_75": _worst(ideal, max),
        "goodput_200": _worst(good, min),
        "refusal_ms_most": max(refusals, default=None),
        "wrong_scores": sum(o["wrong"] for each in own.values() for o in each["outcomes"]) if own else None,
        "peers_wrong_scores": sum(o["wrong"] for e in results if e["server"] != OWN for o in e["outcomes"]),
        "checked_replies": sum(o["answered"] for each in own.values() for o in each["outcomes"]),
        "overhead_ms_p50": overhead and overhead["alone_p50"],
        "memory_growth_mb": round(max((each["after"] - each["before"] for each in memory), default=0.0), 1),
        "padding": max(paddings, default=None),
        "p99_x_solo_75_by": _rounded(p99),
        "p99_x_solo_75_least_possible_by": _rounded(least),
        "goodput_200_by": _rounded(good),
        "capacity_per_s": {f"{e['server']} {e['workload']}": e["capacity"] for e in results if e["capacity"]},
        "minutes": record["minutes"],
        "quick": record["quick"],
        "others_share": max(record["others"], default=0.0),
    }


def _of(result: Result, load: int, figure: Any, *, even: bool = False) -> float | None:
    outcome = next((o for o in result["outcomes"] if o["load"] == load and o["even"] == even), None)
    if outcome is None or outcome["p99"] is None or not result["solo"]:
        return None
    return float(figure(outcome, result))


def _worst(figures: Mapping[str, float | None], worst: Any) -> float | None:
    known = [figure for figure in figures.values() if figure is not None]
    return round(worst(known), 3) if known else None


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(figure, 3) for name, figure in figures.items() if figure is not None}


def _ratio(capacities: Mapping[str, float], others: Sequence[str]) -> float | None:
    if OWN not in capacities or not others:
        return None
    return round(capacities[OWN] / max(capacities[name] for name in others), 2)


def _conditions(record: Mapping[str, Any]) -> None:
    machine, cores = record["machine"], record["cores"]
    say(f"{machine['processor']}, {machine['cores']} cores; every server alone on core {cores['server']} with one")
    say(f"thread, the generator on core {cores['generator']}; {record['minutes']} minutes")
    late = [o["late_p99"] or 0.0 for each in record["results"] for o in each["outcomes"] if o["load"]]
    say(f"the generator sent 99 % of the requests within {max(late, default=0.0):.1f} ms of when they were due")
    if max(record["others"], default=0.0) > QUIET:
        say(f"other processes took up to {100 * max(record['others']):.0f} % of the machine: figures are off")


def _capacities(results: Sequence[Result]) -> None:
    workloads = list(dict.fromkeys(each["workload"] for each in results))
    rows = []
    for server in dict.fromkeys(each["server"] for each in results):
        own = {each["workload"]: each for each in results if each["server"] == server}
        cells = [_capacity(own.get(name)) for name in workloads]
        rows.append([KINDS[server].title, *cells])
    show("Capacity, requests a second (milliseconds of one alone)", ["server", *workloads], rows)
    for each in results:
        if each["skipped"]:
            say(f"{KINDS[each['server']].title} is not measured on {each['workload']}: {each['skipped']}")


def _capacity(result: Result | None) -> str:
    if result is None or result["skipped"] or not result["capacity"]:
        return "-"
    return f"{result['capacity']:.4g} ({result['solo'] or 0:.0f})"


LOADED = ["load", "asked/s", "answered", "refused", "lost", "p50 ms", "p99 ms", "ideal p99", "refused ms", "good/cap.",
          "wrong"]  # fmt: skip


def _loaded(result: Result, outcome: Result) -> list[str]:
    lost = outcome["failed"] + outcome["unanswered"]
    return [
        f"{outcome['load']} %{' even' if outcome['even'] else ''}", f"{outcome['rate']:.4g}",
        str(outcome["answered"]), str(outcome["refused"]), str(lost), _number(outcome["p50"]), _number(outcome["p99"]),
        _number(outcome["ideal_p99"]), _number(outcome["refusal_most"]),
        f"{100 * outcome['good'] / max(result['capacity'], 1e-9):.0f} %", str(outcome["wrong"]),
    ]  # fmt: skip


def _own_loads(results: Sequence[Result]) -> None:
    rows = [
        [each["workload"], *_loaded(each, outcome)]
        for each in results
        if each["server"] == OWN
        for outcome in each["outcomes"]
        if outcome["load"]
    ]
    show("Ours, requests at random times at a percentage of its capacity", ["workload", *LOADED], rows)


def _peer_loads(results: Sequence[Result]) -> None:
    rows = [
        [f"{each['workload']} {KINDS[each['server']].title}", *_loaded(each, outcome)]
        for each in results
        if each["server"] != OWN
        for outcome in each["outcomes"]
        if outcome["load"]
    ]
    if rows:
        show("Peers, at a percentage of their own capacity", ["workload and server", *LOADED], rows)


def _groups(results: Sequence[Result]) -> None:
    """Of the mix of long and short rows: what the short ones wait."""
    rows = [
        [KINDS[each["server"]].title, f"{outcome['load'] or 'closed'}", group, f"{p50:.1f}", f"{p99:.1f}"]
        for each in results
        for outcome in each["outcomes"]
        for group, (p50, p99) in outcome["groups"].items()
    ]
    if rows:
        show("W6: short rows among long ones", ["server", "load %", "rows", "p50 ms", "p99 ms"], rows)


def _others(record: Mapping[str, Any]) -> None:
    for folder, each in record["memory"].items():
        words = [f"{KINDS[name].title} {m['before']:.0f} to {m['after']:.0f} MB" for name, m in each.items()]
        say(f"memory on {folder}: {', '.join(words)}")
    if record["overhead"]:
        own = record["overhead"]
        say(
            f"around an engine that answers at once: {own['alone_p50']:.2f} ms (p99 {own['alone_p99']:.2f}) one after"
            f" the other, {own['steady_p50']:.2f} ms (p99 {own['steady_p99']:.2f}) at {own['rate']} a second, at most"
            f" {own['per_s']:.0f} requests a second on one core (wrk: {own['wrk'] and own['wrk']['wrk_per_s']})"
        )
    if record["cross_check"]:
        crossed = record["cross_check"]
        say(f"W1 at 16 connections: {crossed['generator_per_s']} a second, by wrk {crossed['wrk_per_s']}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
