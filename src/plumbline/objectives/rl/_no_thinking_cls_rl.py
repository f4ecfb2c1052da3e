"""No-Thinking-CLS-RL: few-shot classification by reinforcement on one rule, that the whole output is the label."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.lab.answering import Answering, Style
from plumbline.objectives.rl._cls_rl import cls_rl


@function(
    paper=Paper("CLS-RL: Image Classification with Rule-Based Reinforcement Learning", "Li et al.", 2025,
                arxiv="2503.16188"),
    says="Reward an output that is the label and nothing else: what thinking adds to a classifier can be left out.",
    differs=("Space around the output is taken away first, which the official code does not do.",),
)  # fmt: skip
def no_thinking_cls_rl(text: str, row: Mapping[str, Any], ended: bool) -> float:
    r"""1 or 0, a scalar.

    .. math:: R = 1[\text{text} = \text{label}]

    Case counts, and synonyms are wrong. Ask for the class name alone in the prompt. The settings are those of
    ``cls_rl`` (its ``RECIPE``).

    Args:
        text: the model's. row: ``row["answer"]`` is the label. ended: not used, a cut text is not the label.
    """
    return float(text.strip() == str(row["answer"]).strip())


@claim(
    no_thinking_cls_rl,
    "Outputs shrink to the label and stay as accurate; the reward for thinking first keeps them long.",
    cost="cpu:8s",
)
def outputs_are_short() -> Evidence:
    styles = (Style("{}"), Style("<think>It looks so.</think>\n<answer>{}</answer>"))
    lengths = [len(style.template) for style in styles]
    found = {}
    for name, reward in (("no thinking", no_thinking_cls_rl), ("thinking", cls_rl)):
        runs = [Answering.arithmetic(styles, (0.5, 0.5), (0.2, 0.2), seed=seed).reinforced(
            reward, steps=200, lr=0.1, seed=seed).path[-1] for seed in range(3)]  # fmt: skip
        share = mean(run["style"] for run in runs)
        found[f"characters, {name}"] = share * lengths[0] + (1 - share) * lengths[1]
        found[f"accuracy, {name}"] = mean(run["accuracy"] for run in runs)
    holds = found["characters, no thinking"] < 4 and found["accuracy, no thinking"] > 0.9
    return Evidence(holds, found, control=found["characters, thinking"] > 40)
