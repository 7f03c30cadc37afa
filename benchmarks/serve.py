"""How fast, how evenly and how rightly does `prefrank serve` answer, beside other servers on the same weights?

Makes environments for the peers (under build/bench, on first use), computes the score of every row alone with
`RewardModel.score`, starts all servers, each with one thread on one core, the same for all, and asks one at a time from
another core while the others are stopped. For each workload it measures every server's capacity (closed loops,
interleaved), then sends requests at random times at 25 to 200 percent of the server's own capacity. Latencies count
from when a request was due. Every reply is held against the solo scores: to the bit for ours on the native kernels, to
1e-4 for the peers.

    python benchmarks/serve.py                  # about 25 minutes on a quiet machine
    python benchmarks/serve.py --quick          # two minutes, no figures to keep
    python benchmarks/serve.py --servers ours naive --workloads W1 W2 --seconds 20
    python benchmarks/serve.py --report build/bench/serve.json   # the tables of a record
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import say
from peers import Failed, make_environment
from score_report import machine
from serve_extra import cross_check, overhead, padding
from serve_load import many_files
from serve_measure import Measured, Sent, burst, capacity, load, settle, solo
from serve_plot import plot
from serve_report import report
from serve_servers import KINDS, OWN, Server
from serve_traffic import Workload, decoder_workloads, encoder_folder, encoder_workloads, rendered, with_scores
from train import others_share

from prefrank.scoring import RewardModel

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = Path(__file__).with_name("serve-requirements")
WORKLOADS = ("W1", "W2", "W3", "W5", "W6", "W8a", "W8b")
QUICK = ("W1", "W2", "W3")
OWN_LOADS, PEER_LOADS = (25, 50, 75, 90, 110, 200), (75, 200)
ROUNDS = 2
"""Of a workload's capacity, half as long as a load each."""
BOUND_S = 3.0
"""An answer is of use within so many seconds; `MAX_WAIT_S` of `serve_servers.py` goes with it."""
PEERS_PART = 0.5
"""How long a peer's loads last beside ours."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--seconds", type=float, default=8.0, help="of one load of ours; peers have half")
    parser.add_argument("--servers", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--loads", nargs="+", type=int, default=list(OWN_LOADS), help="percent of capacity, for ours")
    parser.add_argument("--core", type=int, default=cores[-1], help="that every server is pinned to")
    parser.add_argument("--generator-core", type=int, default=cores[0], help="that this process is pinned to")
    parser.add_argument("--model", type=Path, help="a folder of a BERT reward model, in place of a random head's")
    parser.add_argument("--bases", type=Path, default=REPOSITORY / "runs/bases", help="what `make weights` wrote")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    parser.add_argument("--quick", action="store_true", help="about two minutes, no figures to keep")
    parser.add_argument("--report", type=Path, metavar="JSON", help="report the record of an earlier run again")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the capacities")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.loads = min(options.seconds, 2.0), [75, 200]
    options.workloads = options.workloads or list(QUICK if options.quick else WORKLOADS)
    return options


def start(
    folder: Path, names: Sequence[str], pythons: dict[str, Path | str], options: argparse.Namespace, stack: ExitStack,
    skipped: dict[str, str],
) -> dict[str, Server]:  # fmt: skip
    """All servers on one model folder, stopped; and why there is none of some."""
    servers: dict[str, Server] = {}
    for name in names:
        kind = KINDS[name]
        python = pythons[kind.environment]
        try:
            if isinstance(python, str):
                raise Failed(python)
            log = options.cache / "logs" / f"serve-{name}-{folder.name}.log"
            servers[name] = Server(kind, python, folder, options.core, log)
        except Failed as failure:
            skipped[name] = str(failure)
            say(f"  {kind.title}: {failure}")
            continue
        stack.callback(servers[name].close)
        say(f"  {kind.title}: ready after {servers[name].ready_s:.1f} s, {servers[name].memory_mb():.0f} MB")
        servers[name].sleep()
    return servers


def measure_workload(
    workload: Workload, servers: dict[str, Server], whole: Sequence[str], options: argparse.Namespace
) -> list[Measured]:
    """Capacities of all servers, interleaved; then each one's loads."""
    say(f"{workload.name}: {workload.title}")
    sent = {name: Sent.of(workload, server.kind, whole) for name, server in servers.items()}
    results = {name: Measured(name, workload.name) for name in servers}
    rounds = 1 if options.quick or workload.storm else ROUNDS
    for number in range(rounds):
        names = list(servers)
        for name in names[number:] + names[:number]:
            server, result = servers[name], results[name]
            server.wake()
            if not number:
                first = solo(server.port, sent[name], options.seconds / (2 if name == OWN else 4))
                result.solo = first.p50
                result.outcomes.append(first)
            if workload.storm:
                rate, outcome = burst(server.port, sent[name], bound=30.0)
            else:
                rate, outcome = capacity(server.port, sent[name], options.seconds / rounds)
            server.sleep()
            result.rounds.append(rate)
            result.outcomes.append(outcome)
            say(f"  {server.kind.title}: {rate:.2f} requests/s, solo {result.solo or 0:.1f} ms, {outcome.wrong} wrong")
    if workload.storm:
        return list(results.values())
    for name, server in servers.items():
        loads = options.loads if name == OWN else () if options.quick else PEER_LOADS
        _loads(server, sent[name], results[name], loads, options)
    return list(results.values())


def _loads(server: Server, sent: Sent, result: Measured, loads: Sequence[int], options: argparse.Namespace) -> None:
    own = result.server == OWN
    if not result.capacity:
        return
    server.wake()
    seconds = options.seconds * (1.0 if own else PEERS_PART)
    settings: dict[str, Any] = {"capacity": result.capacity, "seconds": seconds, "bound": BOUND_S}
    ways = [(percent, False) for percent in loads] + ([(75, True)] if own and not options.quick else [])
    for seed, (percent, even) in enumerate(sorted(ways)):
        outcome = load(server.port, sent, percent, seed=seed, even=even, **settings)
        result.outcomes.append(outcome)
        settle(server.port, sent, outcome)
        say(
            f"  {server.kind.title} at {percent} %{' evenly' if even else ''}: {outcome.answered} answered,"
            f" {outcome.refused} refused, p50 {outcome.p50 or 0:.0f} ms, p99 {outcome.p99 or 0:.0f} ms,"
            f" good {outcome.good:.2f}/s, {outcome.wrong} wrong"
        )
    server.sleep()


def measure_model(
    folder: Path, make: Any, pythons: dict[str, Path | str], options: argparse.Namespace, record: dict[str, Any]
) -> list[Measured]:
    """All workloads of one model folder."""
    model = RewardModel.load(folder, num_threads=1)
    workloads = [each for each in make(model, quick=options.quick) if each.name in options.workloads]
    if not workloads:
        return []
    workloads = [with_scores(each, model, options.cache / "serve") for each in workloads]
    decoder = workloads[0].model == "decoder"
    texts = {each.name: rendered(model, each.rows) if decoder else [] for each in workloads}
    skipped = {name: KINDS[name].decoders for name in options.servers if decoder and KINDS[name].decoders}
    results: list[Measured] = []
    with ExitStack() as stack:
        names = [name for name in options.servers if name not in skipped]
        servers = start(folder, names, pythons, options, stack, skipped)
        for workload in workloads:
            for server in servers.values():  # before memory is looked at, each has done all of it once
                server.wake()
                solo(server.port, Sent.of(workload, server.kind, texts[workload.name]), 0.5)
                server.sleep()
        memory = {name: server.memory_mb() for name, server in servers.items()}
        for workload in workloads:
            record["others"].append(round(others_share(), 3))
            results += measure_workload(workload, servers, texts[workload.name], options)
            results += [Measured(name, workload.name, skipped=reason) for name, reason in skipped.items()]
        record["memory"][folder.name] = {
            name: {"before": round(memory[name], 1), "after": round(server.memory_mb(), 1)}
            for name, server in servers.items()
        }
        if OWN in servers:
            servers[OWN].wake()
            record["padding"][folder.name] = padding(servers[OWN])
            if workloads[0].name == "W1" and not workloads[0].storm:
                sent = Sent.of(workloads[0], KINDS[OWN], texts["W1"])
                record["cross_check"] = cross_check(servers[OWN].port, sent, options.cache / "serve", options.seconds)
    return results


def main() -> None:
    options = arguments()
    options.cache = options.cache.resolve()
    if options.report:
        finish(json.loads(options.report.read_text(encoding="utf-8")), options.plot)
        return
    pythons = {name: make_environment(name, REQUIREMENTS, options.cache) for name in environments(options.servers)}
    many_files()
    os.sched_setaffinity(0, {options.generator_core})
    begun = time.perf_counter()
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/serve.py", *sys.argv[1:]]), "machine": machine(),
        "cores": {"server": options.core, "generator": options.generator_core}, "quick": options.quick,
        "seconds": options.seconds, "others": [], "memory": {}, "padding": {}, "cross_check": None,
    }  # fmt: skip
    folder = encoder_folder(options.cache / "models", options.model)
    results = measure_model(folder, encoder_workloads, pythons, options, record)
    if any(name.startswith("W8") for name in options.workloads):
        results += measure_decoder(pythons, options, record)
    record["overhead"] = (
        overhead(folder, options.core, options.cache, options.seconds) if OWN in options.servers else None
    )
    record["results"] = [result.to_json() for result in results]
    record["minutes"] = round((time.perf_counter() - begun) / 60, 1)
    (options.cache / "serve.json").write_text(json.dumps(record), encoding="utf-8")
    finish(record, options.plot)


def finish(record: dict[str, Any], picture: Path | None) -> None:
    """Draw and report a run."""
    if picture is not None:
        plot(record, picture)
    report(record)


def measure_decoder(
    pythons: dict[str, Path | str], options: argparse.Namespace, record: dict[str, Any]
) -> list[Measured]:
    from decoders_data import make_model

    if not (options.bases / "smollm2/config.json").exists():
        say(f"W8 is left out: there is no {options.bases / 'smollm2'}; run: make weights")
        return []
    model = make_model("smollm2", options.bases, options.cache / "models")
    return measure_model(model.texts, decoder_workloads, pythons, options, record)


def environments(servers: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(KINDS[name].environment for name in servers))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
