"""Ask `prefrank serve` which of several replies is best. Usage: ask_server.py URL PROMPT REPLY REPLY ..."""

import sys

from prefrank.serving.client import Client


def main(url: str, prompt: str, *replies: str) -> None:
    with Client(url) as client:
        client.wait_ready(60.0)
        ranking = client.rank(prompt, replies)
    print(f"{ranking.model} ({ranking.fingerprint[:12]})")
    for place in ranking.ranking:
        what = place.error if place.score is None else f"{place.score:+.2f}, best with probability {place.weight:.2f}"
        print(f"  {replies[place.index]!r}: {what}")


if __name__ == "__main__":
    main(*sys.argv[1:])
