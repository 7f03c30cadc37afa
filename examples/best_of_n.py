"""Pick the best of several replies, and say how sure the model is. Usage: best_of_n.py MODEL PROMPT REPLY REPLY ..."""

import sys

from prefrank import RewardModel, win_probability


def main(name: str, prompt: str, *replies: str) -> None:
    model = RewardModel.load(name)
    best, *others = model.rank(prompt, replies)
    print(best.reply)
    for other in others:
        print(f"  preferred to {other.reply!r} with probability {win_probability(best.score, other.score):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
