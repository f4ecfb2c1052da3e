"""Judged answers for twenty steps of training: recipes of the chat world, right and wrong, in two lengths."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

from tests.short_training import base, row, scored, trained
from torch import Tensor

from plumbline.objectives import nll
from plumbline.worlds.chat import DRINKS, HERBS, REQUESTS

VERBS = ("boil", "crush", "soak")
ASKED = list(product(range(len(DRINKS)), range(len(HERBS))))  # 72
Rows = list[dict[str, Any]]


def _answer(drink: str, herb: str, verb: str, longer: bool) -> str:
    short = f" {verb} the {herb} and add {DRINKS[drink]}."
    return f" To brew {drink} with {herb}," + short if longer else short


@cache
def pairs(held_out: bool = False) -> dict[str, Rows]:
    """Streams chosen and rejected: 48 requests to train on, or 24 others; the right verb against a wrong one."""
    lm, drinks, herbs = base(), list(DRINKS), list(HERBS)
    found: dict[str, Rows] = {"chosen": [], "rejected": []}
    for i, (d, h) in enumerate(ASKED):
        if ((d + h) % 3 == 0) is not held_out:
            continue
        prompt, right = REQUESTS[0].format(drink=drinks[d], herb=herbs[h]), HERBS[herbs[h]]
        wrong = [verb for verb in VERBS if verb != right][i % 2]
        for stream, verb, longer in (("chosen", right, i % 4 < 2), ("rejected", wrong, i % 8 < 4)):
            found[stream].append(row(lm, prompt, _answer(drinks[d], herbs[h], verb, longer)))
    return found


def _prompt(of: dict[str, Any]) -> int:
    return sum(label == -100 for label in of["labels"])


def grafted(prompts: Rows, answers: Rows) -> Rows:
    """The prompts of some rows with the answers of others."""
    found = []
    for p, a in zip(prompts, answers, strict=True):
        before, after = p["input_ids"][: _prompt(p)], a["input_ids"][_prompt(a) :]
        found.append({"input_ids": before + after, "labels": [-100] * len(before) + after})
    return found


def judged() -> dict[str, Rows]:
    """The same answers one by one in stream x, good and bad in turn, with a column desirable; and in mismatched each
    prompt with the answer of the row before it."""
    sides = zip(*pairs().values())
    x = [{**answer, "desirable": good} for both in sides for answer, good in zip(both, (True, False))]
    return {"x": x, "mismatched": grafted(x, x[-1:] + x[:-1])}


def gaps(model: Any, per_token: bool = False) -> Tensor:
    """log p(chosen) - log p(rejected) of every held-out pair, [24] nats: of the answers, or a token."""
    chosen, rejected = (scored(model, rows) for rows in pairs(held_out=True).values())
    return chosen.mean() - rejected.mean() if per_token else chosen.total() - rejected.total()


@cache
def fine_tuned(lr: float = 1e-3) -> Any:
    """The baseline of every test: supervised fine-tuning on the chosen answers, same data, steps, rate and seed."""
    return trained(nll, {"x": pairs()["chosen"]}, lr=lr).model
