"""DPO whose preferred answers become less likely while its margin grows, and a filter of the data that stops it.

``python examples/dpo_displacement.py [--steps 60] [--seed 0]``   (2 CPU cores: about 2 minutes)

Every preferred answer is a sentence of the world's grammar with an adjective in front of its subject. Three in four
rejected ones are the same sentence with another last noun (the model cannot tell why), the others a row of letters.
CHES is not told which is which. The filter trains on the quarter of the pairs with the lowest scores, for as many
steps; so does a control on as many pairs taken at random.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from common import QUIET
from transformers import TrainerCallback

from plumbline.kernels.seeds import rng
from plumbline.models import LM, load
from plumbline.objectives.diagnose import ches, likelihood_displacement
from plumbline.objectives.diagnose.similarity import keep_lowest
from plumbline.objectives.preference import dpo
from plumbline.train import fit, read, watch
from plumbline.worlds import Grammar, Markov
from plumbline.worlds.sources import SENTENCES
from plumbline.worlds.text import pick

ADJECTIVES, NOUNS = ([word for _, (word,) in SENTENCES[kind]] for kind in ("ADJ", "N"))
SIMILAR, DIFFERENT = 96, 32
COLUMNS = ("run", "pairs", "margin", "accuracy", "chosen before", "after", "fell", "all pairs", "fell", "gained most")


def preferences(seed: int) -> list[dict[str, str]]:
    """The pairs, in random order."""
    random, rows = rng(seed, "preferences"), []
    letters = Markov(16).sample(DIFFERENT, 12, seed)
    for text in Grammar().sentences(4000, seed):
        first, *rest = text.rstrip(".").split()
        if rest[0] not in ADJECTIVES or len(rest) > 9 or len(rows) == SIMILAR + DIFFERENT:
            continue
        other = [*rest[:-1], pick(random, [noun for noun in NOUNS if noun != rest[-1]])]
        if len(rows) >= SIMILAR:
            other = ["abcdefghijklmnop"[letter] for letter in letters[len(rows) - SIMILAR]]
        said, instead = (f" {' '.join(words)}." for words in (rest, other))
        rows.append({"prompt": first, "chosen": said, "rejected": instead})
    return [rows[i] for i in random.permutation(len(rows))]


class Live(TrainerCallback):
    """Prints what the probes see, as the trainer logs it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        seen = {name.removeprefix("watch/"): value for name, value in (logs or {}).items() if name.startswith("watch/")}
        if seen:
            print(
                f"  step {state.global_step:3d}  margin {seen['margin_change']:+7.2f}  chosen {seen['chosen_change']:+6.2f}"
                f"  rejected {seen['rejected_change']:+7.2f}  fell {seen['likelihood_displacement']:4.0%}"
                f"  CHES {seen['ches']:+6.1f}"
            )


def run(name: str, pairs: dict[str, Any], kept: list[int], steps: int) -> tuple[list[str], float, float]:
    """DPO on some of the pairs: a line of the table, the mean change of their chosen answers, and the share that fell."""
    base, rows = load("zoo:base"), {stream: [rows[i] for i in kept] for stream, rows in pairs.items()}
    print(f"\n{name}: {len(kept)} pairs, {steps} steps")
    probes = watch(likelihood_displacement, ches, rows=rows, every=10, most=64)
    tuned = fit(
        load("zoo:base"), rows, loss=partial(dpo, beta=0.1), callbacks=[probes, Live()], max_steps=steps,
        per_device_train_batch_size=16, learning_rate=3e-4, **QUIET,
    ).model  # fmt: skip
    own, every = (likelihood_displacement(base, tuned, some) for some in (rows, pairs))
    table = [row for row in own.table if "pair" in row]
    parts, gained = own.flat(), [row for row in own.table if "token" in row][:3]
    right = sum(row["chosen_change"] > row["rejected_change"] for row in table) / len(table)
    before = sum(row["chosen_before"] for row in table) / len(table)
    change = parts["chosen_change"].value
    line = [
        name, len(table), f"{parts['margin_change'].value:+.1f}", f"{right:.0%}", f"{before:.2f}",
        f"{before + change:.2f}", f"{own.value:.0%}", f"{every.flat()['chosen_change'].value:+.2f}",
        f"{every.value:.0%}", ", ".join(f"{g['token']!r} {g['before']:.2f}>{g['after']:.2f}" for g in gained),
    ]  # fmt: skip
    return [str(cell) for cell in line], change, own.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lm: LM = load("zoo:base")
    data = preferences(args.seed)
    pairs = dict(read(data, lm.tokenizer))
    scores = ches(lm, pairs)
    kept = keep_lowest(scores, DIFFERENT / len(data))
    print(scores.sentence)
    everything = list(range(len(data)))
    drawn = sorted(rng(args.seed, "control").permutation(len(data))[: len(kept)].tolist())
    runs = {"all pairs": everything, "lowest CHES": kept, "random filter": drawn}
    found = {name: run(name, pairs, some, args.steps) for name, some in runs.items()}
    print()
    for line in (COLUMNS, *(line for line, _, _ in found.values())):
        print("  ".join(cell.ljust(len(c) if c != "run" else 13) for cell, c in zip(line, COLUMNS)))


if __name__ == "__main__":
    main()
