"""Likelihood displacement: preferred answers that lose probability in training, and the tokens that gain it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.head import head_of
from plumbline.lab.entangled import WORDS, no_over_never, random_pairs
from plumbline.lab.tiny import tiny
from plumbline.models import LM
from plumbline.objectives.diagnose.pairs import FEW, Pairs, batches, checked, part, score, still, token_text, too_few
from plumbline.objectives.preference import dpo


@probe(
    paper=Paper(
        "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization", "Razin et al.", 2024,
        arxiv="2410.08847",
    ),
    says="The share of pairs whose preferred answer became less likely in training, and the tokens that gained.",
    differs=(
        "Gains are read where the two answers part ways, averaged over pairs; the paper looks at the answer's first "
        "token, which is the same where the answers share no beginning.",
    ),
    gives=("likelihood_displacement", "chosen_change", "rejected_change", "margin_change", "both_fell"),
)  # fmt: skip
def likelihood_displacement(
    before: LM, after: LM, pairs: Pairs, *, top: Count = 10, batch_tokens: Count = 4096
) -> Finding:
    r"""How both answers of pairs [N] fared between two models.

    .. math:: \Delta_y = \log\pi_{after}(y \mid x) - \log\pi_{before}(y \mid x), \qquad
              \text{displaced} = \overline{1[\Delta_{y_w} < 0]}

    Args:
        before, after: LMs or bare models of one vocabulary. pairs: {"chosen": rows, "rejected": rows}, tokenised.
        top: how many tokens to show that gained the most, and that lost the most.
        batch_tokens: padded tokens of one pass.

    Returns:
        A share of pairs. Parts: the mean changes in nats of the chosen and rejected answer and of the margin, and the
        share that lost both answers. ``table`` has a row per pair, then a row per token with its mean probability
        before and after at the position [N, V] where the answers part.
    """
    n = checked("likelihood_displacement", pairs)
    if n < FEW:
        return too_few("likelihood_displacement", n)
    (told_before, p_before), (told_after, p_after) = (_told(lm, pairs, batch_tokens) for lm in (before, after))
    change = told_after - told_before  # [N, 2]
    won, lost = change.unbind(-1)
    table: list[dict[str, Any]] = [
        {"pair": i, "chosen_before": a, "chosen_after": b, "chosen_change": b - a, "rejected_change": float(lost[i])}
        for i, (a, b) in enumerate(zip(told_before[:, 0].tolist(), told_after[:, 0].tolist(), strict=True))
    ]
    gain = p_after - p_before  # [V]
    order = gain.argsort(descending=True).tolist()
    for token in [*order[:top], *order[: -top - 1 : -1]] if 2 * top < len(order) else order:
        told = {"token": token_text(after, token), "id": token, "gain": float(gain[token])}
        table.append({**told, "before": float(p_before[token]), "after": float(p_after[token])})
    fell, first = int((won < 0).sum()), order[0]
    sentence = (
        f"Of {n} preferred answers {fell} became less likely (mean change {won.mean():+.3g} nats, rejected "
        f"{lost.mean():+.3g}); where the answers part, {token_text(after, first)!r} gained the most "
        f"({p_before[first]:.2g} to {p_after[first]:.2g})."
    )
    return part(
        "likelihood_displacement", won.numpy() < 0, title="Likelihood displacement", unit="share of pairs",
        sentence=sentence, direction=-1, table=table, parts=_parts(won, lost),
    )  # fmt: skip


def _told(lm: LM, pairs: Pairs, tokens: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, 2] of both answers, and the mean next-token distribution [V] where they part."""
    n = len(pairs["chosen"])
    logps, mass = torch.zeros(n, 2, dtype=torch.float64), torch.zeros(())
    with torch.no_grad(), still(lm) as model:
        for chosen in batches(pairs, tokens):
            views = [score(model, [pairs[name][i] for i in chosen]) for name in ("chosen", "rejected")]
            logps[chosen] = torch.stack([v.total().double().cpu() for v in views], -1)
            at = [_parting(pairs["chosen"][i], pairs["rejected"][i]) for i in chosen]
            states = views[0].hidden()[range(len(chosen)), at]  # [b, D]
            mass = mass + head_of(model)(states).double().softmax(-1).sum(0).cpu() / n
    return logps, mass


def _parting(chosen: Any, rejected: Any) -> int:
    """The position (of T) that predicts the first scored token in which the answers differ; else the first scored."""
    scored = [t for t, label in enumerate(chosen["labels"]) if t and label != -100]
    other = rejected["input_ids"]
    return next((t for t in scored if chosen["input_ids"][t] != (other[t] if t < len(other) else None)), scored[0]) - 1


def _parts(won: Tensor, lost: Tensor) -> tuple[Finding, ...]:
    changes = {"chosen_change": won, "rejected_change": lost, "margin_change": won - lost}
    parts = [
        part(name, values, unit="nats", sentence=f"{name.split('_')[0].title()} log-probability: {values.mean():+.3g}.")
        for name, values in changes.items()
    ]
    both = ((won < 0) & (lost < 0)).double()
    told = f"{int(both.sum())} of {len(both)} pairs lost both answers."
    return (*parts, part("both_fell", both, unit="share of pairs", sentence=told))


def _example(items: int) -> tuple[LM, LM, Pairs]:
    return tiny("llama"), tiny("llama", seed=1), random_pairs(items)  # type: ignore[return-value]


@claim(
    likelihood_displacement,
    "Preferring No over Never, whose unembeddings are alike, makes Yes likely and No unlikely though the margin grows; "
    "with orthogonal unembeddings No gains.",
    cost="cpu:10s",
)
def no_becomes_yes() -> Evidence:
    measured, found = {}, {}
    for name, alike in (("alike", True), ("orthogonal", False)):
        finding = likelihood_displacement(*no_over_never(partial(dpo, beta=0.1), alike=alike))
        words = {WORDS[row["id"]]: [row["before"], row["after"]] for row in finding.table if "id" in row}
        found[name] = {part.name: part.value for part in finding.parts} | {"share": finding.value} | words
        measured[name] = {k: v for k, v in found[name].items() if k != "?"}
    alike_, apart = found["alike"], found["orthogonal"]
    holds = alike_["share"] == 1 and alike_["margin_change"] > 0 and alike_["Yes"][1] > 0.9 > 0.1 > alike_["No"][1]
    control = apart["share"] == 0 and apart["margin_change"] > 0 and apart["No"][1] > apart["Yes"][1]
    return Evidence(holds, measured, control)
