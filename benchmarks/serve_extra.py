"""What is measured of our server beside the workloads: its own time, its peak as wrk sees it, and its padding."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import say
from peers import Failed
from serve_load import closed_loop, open_loop, poisson
from serve_measure import Sent
from serve_servers import API_SCORE, Kind, Server
from serve_traffic import Request, Workload

WRK_CONNECTIONS = 16
STUB_RATE = 500
"""Requests a second of the stub's open loop."""
SHORT, LONG = ("how do I bake bread at home", "mix flour water salt and yeast and wait an hour"), 100
"""Of the stub's requests: the texts of the first, and how many words the others have."""


def overhead(folder: Path, core: int, cache: Path, seconds: float) -> dict[str, Any] | None:
    """Our server around an engine that answers at once: milliseconds of a request alone and at 500 a second, and
    requests a second of 16 connections."""
    program = str(Path(__file__).with_name("serve_stub.py"))

    def words(folder: Path, port: int, core: int) -> list[str]:
        return [program, "--folder", str(folder), "--port", str(port), "--core", str(core)]

    kind = Kind("a model that answers at once", "own", words, API_SCORE, "/ready")
    try:
        server = Server(kind, Path(sys.executable), folder, core, cache / "logs/serve-stub.log")
    except Failed as failure:
        say(f"the server's own time is not measured: {failure}")
        return None
    rows = [(SHORT[0], f"{SHORT[1]} {number} " + "word " * (number % LONG)) for number in range(2000)]
    workload = Workload("stub", "single pairs", "stub", rows, [Request((number,)) for number in range(len(rows))])
    requests = Sent.of(workload, kind, []).requests
    try:
        closed_loop(server.port, requests, connections=4, seconds=1)
        alone = closed_loop(server.port, requests, connections=1, seconds=seconds / 2)
        peak = closed_loop(server.port, requests, connections=16, seconds=seconds / 2)
        steady = open_loop(server.port, requests, poisson(STUB_RATE, seconds / 2, seed=0))
        crossed = _wrk(server.port, Sent.of(workload, kind, []), cache / "serve", seconds / 2)
    finally:
        server.close()
    result: dict[str, Any] = {"per_s": round(len(peak.samples) / peak.seconds, 1), "rate": STUB_RATE, "wrk": crossed}
    for name, phase in (("alone", alone), ("steady", steady)):
        latencies = [sample.latency * 1e3 for sample in phase.samples if sample.status == 200]
        if len(latencies) != len(phase.samples) or not latencies:
            say(f"the server around a stub answered {len(latencies)} of {len(phase.samples)} requests")
            return None
        result[f"{name}_p50"], result[f"{name}_p99"] = (round(x, 3) for x in np.percentile(latencies, [50, 99]))
    return result


def cross_check(port: int, sent: Sent, cache: Path, seconds: float) -> dict[str, Any] | None:
    """Requests a second as wrk counts them, beside our own generator's at as many connections."""
    crossed = _wrk(port, sent, cache, seconds / 2)
    if crossed is None:
        return None
    phase = closed_loop(port, sent.requests, connections=WRK_CONNECTIONS, seconds=seconds / 2)
    last = max(sample.done for sample in phase.samples)
    return crossed | {"generator_per_s": round(len(phase.samples) / (last - phase.begun), 2)}


def _wrk(port: int, sent: Sent, cache: Path, seconds: float) -> dict[str, Any] | None:
    """wrk (Debian's package of that name) on the same requests; None where it is not installed."""
    if shutil.which("wrk") is None:
        say("wrk is not installed, so the peak is not cross-checked (Debian: wrk)")
        return None
    bodies = [request.split(b"\r\n\r\n", 1)[1] for request in sent.requests]
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "bodies.txt").write_bytes(b"\n".join(bodies) + b"\n")
    script = cache / "wrk.lua"
    script.write_text(
        "local bodies, at = {}, 0\n"
        f'for line in io.lines("{cache / "bodies.txt"}") do bodies[#bodies + 1] = line end\n'
        'local headers = {["Content-Type"] = "application/json"}\n'
        "request = function()\n"
        "  at = at % #bodies + 1\n"
        f'  return wrk.format("POST", "{sent.form.path}", headers, bodies[at])\n'
        "end\n",
        encoding="utf-8",
    )
    words = ["wrk", "-t1", f"-c{WRK_CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    outcome = subprocess.run([*words, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=False)
    found = re.search(r"Requests/sec:\s+([\d.]+)", outcome.stdout)
    if found is None:
        say(f"wrk failed: {(outcome.stderr or outcome.stdout).strip()[:200]}")
        return None
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", outcome.stdout)
    return {"wrk_per_s": float(found[1]), "wrk_errors": int(errors[1]) if errors else 0}


def padding(server: Server) -> float | None:
    """Tokens that were computed beyond those of the rows, for each of these, by the server's metrics; None without.

    Rows that share their beginnings compute fewer than they have. What torch pads inside a model is not seen here.
    """
    status, body = server.get("/metrics")
    if status != 200:
        return None
    sums = {"computed": 0.0, "scored": 0.0}
    for line in body.decode().splitlines():
        for name in sums:
            if line.startswith(f"prefrank_{name}_tokens_total"):
                sums[name] += float(line.rsplit(" ", 1)[1])
    return max(0.0, sums["computed"] / sums["scored"] - 1) if sums["scored"] else None
