"""The picture of the serving benchmark: capacity of each server as a multiple of the plain one's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_servers import KINDS, OWN

from prefrank.palette import COLORS

TITLES = {
    "W1": "single pairs", "W2": "16 candidates,\nmixed lengths", "W3": "256 samples\nat once",
    "W5": "30 % duplicates", "W6": "one long among\nshort", "W8a": "8 samples of a prompt,\none request (decoder)",
    "W8b": "8 samples of a prompt,\n8 requests (decoder)",
}  # fmt: skip
PLAIN = "naive"


def plot(record: Mapping[str, Any], path: Path) -> None:
    """A group of bars for each workload, one for each server but the plain one, which is the line at 1."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    capacities = {(each["workload"], each["server"]): each["capacity"] for each in record["results"]}
    workloads = [name for name in TITLES if capacities.get((name, PLAIN)) and capacities.get((name, OWN))]
    servers = [name for name in KINDS if name != PLAIN and any(capacities.get((w, name)) for w in workloads)]
    figure, axis = plt.subplots(figsize=(1.75 * len(workloads) + 1.5, 4.4))
    width = 0.8 / len(servers)
    for number, server in enumerate(servers):
        for place, workload in enumerate(workloads):
            value = (capacities.get((workload, server)) or 0.0) / capacities[workload, PLAIN]
            left = place + (number - len(servers) / 2 + 0.5) * width
            label = KINDS[server].title if not place else None
            axis.bar(left, value, width * 0.92, color=COLORS[number], label=label)
            if server == OWN:
                axis.annotate(f"{value:.1f}", (left, value), ha="center", va="bottom", fontsize=9, color=COLORS[number])
    axis.axhline(1, color="#5b6673", linewidth=0.8, label=f"{KINDS[PLAIN].title}, the plain one")
    axis.set_xticks(range(len(workloads)), [TITLES[name] for name in workloads], fontsize=8.5)
    axis.set_ylabel("requests a second at capacity, plain = 1", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", length=0)
    axis.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
