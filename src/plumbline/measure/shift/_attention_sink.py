"""Attention sinks: how many heads park their attention on the first token, before and after tuning."""

from __future__ import annotations

import numpy as np
import torch

from plumbline.core.declare import Count, Evidence, Paper, Probability, claim, probe
from plumbline.core.errors import InputError
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import generator
from plumbline.kernels.stats import cluster_mean
from plumbline.lab.backcopy import Backcopy, relu, softmax, trained, trigger_loss
from plumbline.measure.shift.sinks import importance, same_texts, sink_figure, sink_rows, sinks
from plumbline.measure.text import share, undefined

MINIMUM = 5
NEEDS = "Both models loaded, and texts of `length` tokens; rates measured at different lengths do not compare."


@probe(
    paper=Paper("When Attention Sink Emerges in Language Models: An Empirical View", "Gu et al.", 2024,
                arxiv="2410.10781"),
    says="The share of heads that park their attention on the first token, and how tuning changed it.",
    differs=(
        "The headline is the change from base to tuned on the same texts; the paper reports one model's rate.",
        "Texts are the run's own prompts with the tuned model's answers, not web pages.",
        "Random tokens and one repeated token, which the paper also feeds, are left out: nobody uses a model on them.",
    ),
    needs=("items", "models"),
    gives=("attention_sink", "attention_sink_base", "attention_sink_tuned"),
)  # fmt: skip
def attention_sink(
    comparison: Records, *, eps: Probability = 0.3, length: Count = 64, sequences: Count = 100, seed: int = 0
) -> Finding:
    r"""Sink rate at the first token, tuned minus base.

    .. math:: \alpha_k = \frac{1}{T-k+1}\sum_{i=k}^{T} A_{i,k}, \qquad
        S_k = \mathrm{mean}_{\mathrm{texts},\,l,\,h}\; 1[\alpha^{l,h}_k > \epsilon]

    A [T, T] is the causal attention of one of H query heads in one of L layers; the headline is
    :math:`S_1(tuned) - S_1(base)`, its interval by text. Texts are cut to T tokens and shorter ones left out.

    Args:
        comparison: a run with its models loaded and ``items``; ``outputs`` adds the answers to the prompts.
        eps: a key is a sink of a head whose mean attention to it is above this.
        length: T.
        sequences: at most this many texts, the first of the run.
        seed: of the intervals.

    Returns:
        A difference of shares, with a row per layer and a map of layers and heads.
    """
    if comparison.base is None or comparison.tuned is None:
        return undefined("attention_sink", "this run was read without its models", needs=NEEDS)
    ids, rejected = same_texts(comparison, length, sequences)
    left_out = (f"{rejected} texts shorter than {length} tokens were left out",) if rejected else ()
    n = len(ids["base"])
    if n < MINIMUM:
        why = f"too few texts of {length} tokens, pass longer ones or a smaller length"
        return undefined("attention_sink", why, have=n, need=MINIMUM, what="texts", needs=NEEDS, warnings=left_out)
    lms = {"base": comparison.base, "tuned": comparison.tuned}
    try:
        arms = {arm: sinks(lm, ids[arm], eps=eps) for arm, lm in lms.items()}
    except InputError as refused:
        return undefined("attention_sink", f"{refused}", needs=NEEDS, warnings=left_out)
    rates = {arm: s.first.mean((1, 2)) for arm, s in arms.items()}  # [N]
    leaks = [f"attention rows of {arm} sum to {s.row_sum:.3f}" for arm, s in arms.items() if abs(s.row_sum - 1) > 0.01]
    told = {arm: share(float(rate.mean())) for arm, rate in rates.items()}
    parts = [
        Finding.of(
            f"attention_sink_{arm}", cluster_mean(rate, np.arange(n), seed=seed), title=f"Attention sinks, {arm}",
            unit="share of heads", needs=NEEDS,
            sentence=f"{told[arm]} of {lms[arm].name}'s heads give the first token over {share(eps)} of attention.",
        )
        for arm, rate in rates.items()
    ]  # fmt: skip
    return Finding.of(
        "attention_sink",
        cluster_mean(rates["tuned"] - rates["base"], np.arange(n), seed=seed),
        title="Change in attention sinks",
        unit="share of heads",
        sentence=f"Heads that park their attention on the first token went from {told['base']} to {told['tuned']}; "
        "a large change shows in long contexts and under cache eviction that keeps the first tokens.",
        needs=NEEDS,
        table=sink_rows(arms),
        figure=sink_figure(arms),
        parts=tuple(parts),
        warnings=(*left_out, *leaks),
    )


@claim(
    attention_sink,
    "Softmax attention forms a sink on the first token; attention that need not sum to one learns the task without.",
    cost="cpu:20s",
)
def softmax_needs_a_sink() -> Evidence:
    task = Backcopy.make()
    ids = task.sample(64, 48, generator(0, "backcopy", "test"))
    alpha, loss = {}, {}
    for name, normalise in (("softmax", softmax), ("relu", relu)):
        model = trained(task, normalise=normalise)
        with torch.no_grad():
            alpha[name] = float(importance(model(ids)[1])[..., 0].mean())
        loss[name] = trigger_loss(model, task, ids)
    learned = max(loss.values()) < 0.1
    return Evidence(
        holds=alpha["softmax"] > 0.5 and learned,
        measured={"alpha_1": alpha, "trigger_loss": loss},
        control=alpha["relu"] < 0.1,
    )
