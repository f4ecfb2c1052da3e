"""CLS-RL: few-shot classification by reinforcement on rule rewards, an answer with its thinking before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import mean
from typing import Any

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.lab.answering import Answering, Style
from plumbline.objectives.rl.verifiers import equal, tagged

# the official script's settings; kl is its trainer's default, epochs go from 10 (large sets) to 100 (small ones)
RECIPE = {"group_size": 4, "max_new_tokens": 1024, "kl": 0.04, "gradient_accumulation_steps": 2, "processes": 8,
          "epochs": (100, 50, 25, 10), "advantage_eps": 1e-4}  # fmt: skip
_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


@function(
    paper=Paper("CLS-RL: Image Classification with Rule-Based Reinforcement Learning", "Li et al.", 2025,
                arxiv="2503.16188"),
    says="Reward the right class and, beside it, the form of thinking first and answering in tags.",
    differs=(
        "Works on any set of labels as text; the paper's classes are of images.",
        "Where the label is a number, equal numbers are right, by exact fractions and not by an algebra system.",
    ),
)  # fmt: skip
def cls_rl(text: str, row: Mapping[str, Any], ended: bool) -> float:
    r"""Accuracy plus form, a scalar of 0, 1 or 2.

    .. math:: R = 1[\text{class} = \text{label}] + 1[\text{text} = \texttt{<think>..</think><answer>..</answer>}]

    The class is what stands in the tags of the answer, or the whole text without them; case does not count.

    Args:
        text: the model's. row: ``row["answer"]`` is the label. ended: not used, a cut text has no form.
    """
    said, label = tagged(text, "answer"), str(row["answer"]).strip()
    said = text.strip() if said is None else said
    right = said.casefold() == label.casefold() or equal(said, label)
    return float(right) + float(_FORM.fullmatch(text.strip()) is not None)


@claim(
    cls_rl,
    "From a base that thinks in tags 5% of the time, the reward teaches the form and the class together; a reward of"
    " the class alone leaves the form to chance.",
    cost="cpu:8s",
)
def form_and_class_are_learned() -> Evidence:
    styles = (Style("<think>It looks so.</think>\n<answer>{}</answer>"), Style("<answer>{}</answer>"))

    def class_alone(text: str, row: Mapping[str, Any], ended: bool) -> float:
        return float(cls_rl(text, row, ended) >= 1.0 and equal(str(tagged(text, "answer")), str(row["answer"])))

    found = {}
    for name, reward in (("both", cls_rl), ("class alone", class_alone)):
        runs = [Answering.arithmetic(styles, (0.05, 0.95), (0.2, 0.2), seed=seed).reinforced(
            reward, steps=200, lr=0.1, seed=seed).path[-1] for seed in range(3)]  # fmt: skip
        found[name] = {k: mean(run[k] for run in runs) for k in ("accuracy", "style")}
    holds = found["both"]["style"] > 0.95 and found["both"]["accuracy"] > 0.9
    control = found["class alone"]["style"] < 0.5 and found["class alone"]["accuracy"] > 0.9
    return Evidence(holds, {f"{k} ({name})": v for name, told in found.items() for k, v in told.items()}, control)
