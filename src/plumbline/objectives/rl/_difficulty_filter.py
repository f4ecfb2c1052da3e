"""Difficulty filter: train on the questions that the model solves sometimes, for the others teach nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.lab.answering import Answering, Style
from plumbline.objectives.rl._simplerl_zoo import simplerl_zoo


@function(
    paper=Paper(
        "SimpleRL-Zoo: Investigating and Taming Zero Reinforcement Learning for Open Base Models in the Wild",
        "Zeng et al.",
        2025,
        arxiv="2503.18892",
    ),
    says="Keep the questions whose pass rate is neither near 0 nor near 1 for the model that is to be trained.",
    differs=(
        "The paper chooses one of three data sets (easy, medium, hard) for a model; this chooses question by question.",
        "The bounds 0.05 and 0.95 are a judgement.",
    ),
)
def difficulty_filter(pass_rates: Tensor, *, lowest: Probability = 0.05, highest: Probability = 0.95) -> Tensor:
    r"""Which questions to keep.

    .. math:: keep_i = lowest \le \hat p_i \le highest

    A group whose answers are all right or all wrong has no advantage, so its gradient is zero.

    Args:
        pass_rates: [N], the share of right answers of several samples a question (the paper draws 8).
        lowest, highest: the ends are kept.

    Returns:
        [N] bool.

    Raises:
        InputError: rates that are not in [0, 1] (NaN among them), or bounds in the wrong order.
    """
    if lowest > highest:
        raise refuse("difficulty_filter", "lowest", f"at most highest, {highest}", lowest, "exchange the two")
    if pass_rates.dim() != 1 or not bool(((pass_rates >= 0) & (pass_rates <= 1)).all()):
        got = tuple(pass_rates.shape) if pass_rates.dim() != 1 else "a value outside"
        raise refuse("difficulty_filter", "pass_rates", "[N] shares from 0 to 1", got, "divide by the samples")
    return (pass_rates >= lowest) & (pass_rates <= highest)


@claim(
    difficulty_filter,
    "Questions that are never solved, which it leaves out, move a group-relative policy by exactly nothing.",
    cost="cpu:3s",
)
def unsolved_questions_teach_nothing() -> Evidence:
    moved, kept = {}, {}
    for name, right in (("never solved", 1e-12), ("solved at times", 0.25)):
        task = Answering.arithmetic((Style("The answer is {}."),), (1.0,), (right,))
        after = task.reinforced(simplerl_zoo, steps=20)
        moved[name] = float((after.content - task.content).abs().max())
        kept[name] = int(difficulty_filter(torch.full((len(task.rows),), round(right, 2))).sum())
    measured = {"largest change of a logit": moved, "questions kept of 20": kept}
    holds = moved["never solved"] == 0.0 and kept == {"never solved": 0, "solved at times": 20}
    return Evidence(holds, measured, control=moved["solved at times"] > 0.1)
