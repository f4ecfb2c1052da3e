"""DPO whose preferred answers become less likely while its margin grows, and a filter of the data that prevents it.

``python examples/dpo_displacement.py [--steps 60] [--seed 0]``   (2 CPU cores: about 1 minute)

Every preferred answer is the rest of a sentence of the world's grammar. Of three in four pairs the rejected answer is
the same but for its last noun, which nothing foretells; of the others it is a row of letters. CHES is not told which is
which. The filter keeps the quarter of the pairs that it scores lowest; a control keeps as many at random.

Two things to know. Without the filter the preferred answers of both kinds fall alike: a pair's score tells what its
training does to all of them, not how far its own will fall. And what the filter leaves is easy: the margin is won
within ten steps, by the rejected answers.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from common import QUIET
from transformers import TrainerCallback

from plumbline.kernels.seeds import rng
from plumbline.models import load
from plumbline.objectives.diagnose import ches, likelihood_displacement
from plumbline.objectives.diagnose.similarity import keep_lowest
from plumbline.objectives.preference import dpo
from plumbline.train import fit, read, watch
from plumbline.worlds import Grammar, Markov
from plumbline.worlds.sources import SENTENCES
from plumbline.worlds.text import pick

ADJECTIVES, NOUNS = ([word for _, (word,) in SENTENCES[kind]] for kind in ("ADJ", "N"))
SIMILAR, DIFFERENT = 96, 32


def preferences(seed: int) -> list[dict[str, str]]:
    """Pairs in random order: after "the" or "a", a subject with an adjective, and what it does."""
    random = rng(seed, "preferences")
    texts = [text.rstrip(".").split() for text in Grammar().sentences(2000, seed)]
    chosen = [words for words in texts if words[1] in ADJECTIVES and len(words) <= 10][: SIMILAR + DIFFERENT]
    rejected = [[*w[1:-1], pick(random, [noun for noun in NOUNS if noun != w[-1]])] for w in chosen[:SIMILAR]]
    rejected += [["abcdefghijklmnop"[letter] for letter in row] for row in Markov().sample(DIFFERENT, 12, seed)]
    rows = [
        {"prompt": words[0], "chosen": f" {' '.join(words[1:])}.", "rejected": f" {' '.join(other)}."}
        for words, other in zip(chosen, rejected, strict=True)
    ]
    return [rows[i] for i in random.permutation(len(rows))]


class Live(TrainerCallback):
    """Prints what the probes see, as the trainer logs it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        seen = {name.removeprefix("watch/"): value for name, value in (logs or {}).items() if name.startswith("watch/")}
        if seen:
            print(
                f"  step {state.global_step:3d}  margin {seen['margin_change']:+7.2f}   chosen "
                f"{seen['chosen_change']:+6.2f} nats, {seen['likelihood_displacement']:4.0%} of them fell   rejected "
                f"{seen['rejected_change']:+7.2f}   CHES {seen['ches']:+6.1f}",
                flush=True,
            )


def run(name: str, pairs: dict[str, Any], kept: list[int], steps: int) -> dict[str, Any]:
    """DPO on some of the pairs, and how these and all pairs fared."""
    print(f"\n{name}: {len(kept)} pairs, {steps} steps (the first 64 pairs are watched)")
    before, lm = load("zoo:base"), load("zoo:base")
    rows = {stream: [of_all[i] for i in kept] for stream, of_all in pairs.items()}
    probes = watch(likelihood_displacement, ches, rows=rows, every=10, most=64)
    fit(
        lm, rows, loss=partial(dpo, beta=0.1), callbacks=[probes, Live()], max_steps=steps,
        per_device_train_batch_size=16, learning_rate=2e-4, **QUIET,
    )  # fmt: skip
    own, overall = likelihood_displacement(before, lm, rows), likelihood_displacement(before, lm, pairs)
    told = [row for row in own.table if "pair" in row]
    tokens = [f"{row['token']!r} {row['before']:.2f} > {row['after']:.2f}" for row in own.table if "token" in row]
    start = sum(row["chosen_before"] for row in told) / len(told)
    change, margin = (own.flat()[what].value for what in ("chosen_change", "margin_change"))
    ordered = sum(row["chosen_change"] > row["rejected_change"] for row in told) / len(told)
    lines = {
        "pairs": str(len(told)), "margin, nats": f"{margin:+.1f}", "accuracy": f"{ordered:.0%}",
        "log p(chosen) before": f"{start:.2f}", "log p(chosen) after": f"{start + change:.2f}",
        "chosen that fell": f"{own.value:.0%}", "on all: change": f"{overall.flat()['chosen_change'].value:+.2f}",
        "on all: fell": f"{overall.value:.0%}", "where they part,": tokens[0], "  gained the most": tokens[1],
        "": tokens[2], "  lost the most": tokens[10],
    }  # fmt: skip
    displaced = change < -1 and own.value > 0.5
    return {"lines": lines, "learnt": margin > 0, "displaced": displaced, "kept": change >= 0 and own.value < 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lm, data = load("zoo:base"), preferences(args.seed)
    pairs = dict(read(data, lm.tokenizer))
    kept = keep_lowest(ches(lm, pairs), DIFFERENT / len(data))
    drawn = sorted(rng(args.seed, "control").permutation(len(data))[: len(kept)].tolist())
    for i in (next(i for i in range(len(data)) if i not in kept), kept[0]):
        print(f"{'kept' if i in kept else 'filtered out'}: {data[i]}")
    subsets = {"all pairs": list(range(len(data))), "lowest CHES": kept, "random filter": drawn}
    found = {name: run(name, pairs, some, args.steps) for name, some in subsets.items()}
    whole, low, control = found.values()
    print(f"\n{'':22}" + "".join(f"{name:26}" for name in found))
    for line in whole["lines"]:
        print(f"{line:22}" + "".join(f"{one['lines'][line]:26}" for one in found.values()))
    wanted = {
        "every margin grows": all(one["learnt"] for one in found.values()),
        "chosen answers fall without a filter": whole["displaced"], "not with the filter": low["kept"],
        "and still with a random one": control["displaced"],
    }  # fmt: skip
    print("\n" + "; ".join(f"{what}: {'yes' if holds else 'NO'}" for what, holds in wanted.items()))
    raise SystemExit(0 if all(wanted.values()) else 1)


if __name__ == "__main__":
    main()
