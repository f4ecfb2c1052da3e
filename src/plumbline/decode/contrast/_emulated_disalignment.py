"""Emulated disalignment: what sampling against a model's own tuning gives back."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, Paper, Probability, claim, logit_rule
from plumbline.decode.mixing import plausible, weighted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import forward_kl, log_probs


@logit_rule(
    paper=Paper(
        "Emulated Disalignment: Safety Alignment for Large Language Models May Backfire!",
        "Zhou et al.",
        2024,
        arxiv="2402.12343",
    ),
    says="Audit what tuning can be undone at decoding time: mix a base and its tuned model against the tuning.",
    differs=(
        "alpha may be negative: -1 decodes as the tuned model, between -1 and 0 interpolates, below -1 over-tunes "
        "(emulated fine-tuning with w = -alpha).",
        "One tuned model a rule; the official code sums several. Rules compose: pass two in a list.",
        "plausibility is an addition, off by default: a large alpha lets tokens from the tail win.",
        "A token that the tuned model or the reference gives probability 0 is forbidden, where the formula has +inf.",
        "The official script suppresses the base model's EOS; here that is generate's suppress_tokens.",
    ),
)
def emulated_disalignment(
    tuned: Any,
    reference: Any = None,
    *,
    alpha: Annotated[float, Bound(gt=-math.inf, lt=math.inf)] = 0.3,
    plausibility: Probability = 0.0,
) -> Rule:
    r"""Logits of the emulated disaligned model; the model that generates is the base, before tuning.

    .. math:: out = \log p_{base} - \alpha\,(\log p_{tuned} - \log p_{ref})

    With the base as its own reference that is :math:`p_{base}^{1+\alpha} / p_{tuned}^{\alpha}` up to a constant. If
    :math:`p_{tuned} \propto p_{base}\,e^{r/\beta}`, one step samples :math:`p_{base}\,e^{-\alpha r/\beta}`, the optimum
    of :math:`E[-r] - (\beta/\alpha)\,KL(\cdot\|p_{base})`; over several steps it is an approximation of that.

    Args:
        tuned: the aligned model, logits [B, V]; a ``Peer`` where it has a prompt template of its own.
        reference: what ``tuned`` was tuned from, if that is not the model that generates.
        alpha: strength in units of the tuning itself; 0 leaves the base as it is.
        plausibility: drop tokens below this share of the base's likeliest one; 0 drops none.

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).
    """

    def mix(base: Tensor, tuned: Tensor, reference: Tensor | None = None) -> Tensor:
        base = log_probs(base)
        if reference is None:
            out = weighted((1 + alpha, base), (-alpha, log_probs(tuned)))
        else:
            out = weighted((1.0, base), (-alpha, log_probs(tuned)), (alpha, log_probs(reference)))
        return out.masked_fill(~plausible(base, plausibility), -torch.inf)

    return Rule("emulated_disalignment", mix, *(m for m in (tuned, reference) if m is not None))


@claim(
    emulated_disalignment,
    "Sampling base^(1+a)/tuned^a is the optimum of the negated reward: the reward falls as a grows, exactly "
    "p_base exp(-a r/beta) in one step.",
    cost="cpu:2s",
)
def reverses_the_reward() -> Evidence:
    g = generator(0, "emulated_disalignment")
    base, reward = (torch.randn(1, 50, generator=g, dtype=torch.float64) for _ in range(2))
    tuned = base + reward / 0.5  # p_base exp(r / beta), beta = 0.5

    def expected(sign: float) -> list[float]:
        """E[r] under alpha = 0, 0.3, 1 and 2."""
        rules = [emulated_disalignment(lambda _: tuned, alpha=sign * a) for a in (0.0, 0.3, 1.0, 2.0)]
        tokens = torch.zeros(1, 1, dtype=torch.long)
        return [float((torch.softmax(rule(tokens, base), -1) * reward).sum()) for rule in rules]

    mixed = emulated_disalignment(lambda _: tuned, alpha=0.3)(torch.zeros(1, 1, dtype=torch.long), base)
    error = float(forward_kl(base - 0.3 * reward / 0.5, mixed).abs().max())
    away, towards = expected(1.0), expected(-1.0)
    falls = all(a > b for a, b in zip(away, away[1:], strict=False))
    rises = all(a < b for a, b in zip(towards, towards[1:], strict=False))
    return Evidence(
        holds=falls and error < 1e-9,
        measured={"reward_by_alpha": away, "kl_to_optimum": error, "reward_by_minus_alpha": towards},
        control=rises,
    )
