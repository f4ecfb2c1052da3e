"""SimpleRL-Zoo: rule-based rewards for reinforcement straight from base models, and the settings that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import mean
from typing import Any

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.lab.answering import Answering, Style
from plumbline.objectives.rl.verifiers import after_thinking, boxed, equal, final_answer

# the paper's other reward: pay for the box and charge for its absence
INDEPENDENT = {"unboxed": 0.5, "boxed_wrong": -0.5, "unboxed_wrong": -1.0}

# the official script's settings where its README gives no other; kl is 1e-3 above 14B parameters
RECIPE = {
    "learning_rate": 5e-7, "prompts_per_step": 1024, "group_size": 8, "mini_batch": 256, "temperature": 1.0,
    "clip": 0.2, "kl": 1e-4, "entropy_bonus": 1e-3, "max_new_tokens": 8192, "evaluation_top_p": 0.95,
}  # fmt: skip


@function(
    paper=Paper(
        "SimpleRL-Zoo: Investigating and Taming Zero Reinforcement Learning for Open Base Models in the Wild",
        "Zeng et al.",
        2025,
        arxiv="2503.18892",
    ),
    says="Reward the right final answer and nothing else: a format term traps base models that cannot follow it.",
    differs=(
        "The official environment variable is four numbers: partial(simplerl_zoo, **INDEPENDENT) is the other reward.",
        "Answers are compared as exact numbers, lists or normalised LaTeX, not by a computer algebra system.",
        "Braces of the box may nest to any depth; the official code stops at three.",
    ),
)
def simplerl_zoo(
    text: str, row: Mapping[str, Any], ended: bool, *, boxed_right: float = 1.0, unboxed: float = 1.0,
    boxed_wrong: float = 0.0, unboxed_wrong: float = 0.0,
) -> float:  # fmt: skip
    r"""One of four values, a scalar.

    .. math:: R = 1[\text{answer} = \text{label}]

    by default. The answer is that of the last ``\boxed{}``, else what the text states, else its last mathematics or
    number; a text without any is wrong.

    Args:
        text: the model's. row: ``row["answer"]`` is the label. ended: not used, a cut text has no answer.
        boxed_right, unboxed, boxed_wrong, unboxed_wrong: right in a box, right without one, wrong in one, wrong
            without. ``INDEPENDENT`` holds 0.5, -0.5, -1; log accuracy from the default, not from those.
    """
    said = after_thinking(text)
    in_box, answer = boxed(said) is not None, final_answer(said)
    if answer is not None and equal(answer, str(row["answer"])):
        return boxed_right if in_box else unboxed
    return boxed_wrong if in_box else unboxed_wrong


@claim(
    simplerl_zoo,
    "From a weak base that boxes 3% of its answers, and boxes them worse, charging for the missing box trades the"
    " answers for the box; paying for right answers alone learns them. A stronger base bears the charge.",
    cost="cpu:10s",
)
def a_format_term_traps_the_weak() -> Evidence:
    styles = (Style(r"\boxed{{{}}}"), Style("The answer is {}."))
    charging, found = partial(simplerl_zoo, **INDEPENDENT), {}
    for base, right in (("weak", (0.02, 0.1)), ("stronger", (0.25, 0.25))):
        for name, reward in (("plain", simplerl_zoo), ("charging", charging)):
            runs = [
                Answering.arithmetic(styles, (0.03, 0.97), right, seed=seed).reinforced(
                    reward, steps=200, lr=0.1, seed=seed
                )
                for seed in range(5)
            ]
            found[f"{name}, {base}"] = [run.path[-1]["accuracy"] for run in runs]
    won = sum(a > b for a, b in zip(found["plain, weak"], found["charging, weak"], strict=True))
    measured = {f"accuracy: {k}": mean(v) for k, v in found.items()} | {"seeds won of 5": won}
    holds = won >= 4 and mean(found["plain, weak"]) > 0.9 and mean(found["charging, stronger"]) > 0.9
    return Evidence(holds, measured, control=mean(found["charging, weak"]) < 0.5)
