"""Proxy tuning: the difference that tuning made to a small model, added to a large one's logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, logit_rule
from plumbline.decode.mixing import shifted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import forward_kl


@logit_rule(
    paper=Paper("Tuning Language Models by Proxy", "Liu et al.", 2024, arxiv="2401.08565"),
    says="Tune a large model at decoding time by the logit difference between a small tuned model and its base.",
    differs=(
        "The tuned model's chat template is given by its Peer's own prompt; the official code re-encodes the text.",
        "Sums log-probabilities instead of logits: the same distribution, but for the constant of a row.",
        "A token that either small model gives probability 0 is forbidden, where the formula may have +inf.",
    ),
)
def proxy_tuning(tuned: Any, untuned: Any, *, alpha: NonNegative = 1.0) -> Rule:
    r"""Logits of the large model as if it had been tuned as the small one was.

    .. math:: out = \log p_{large} + \alpha\,(\log p_{tuned} - \log p_{untuned})

    Args:
        tuned: the small tuned model, logits [B, V].
        untuned: the small model before tuning, logits [B, V].
        alpha: strength of the tuning; 0 leaves the large model as it is.

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).
    """

    def mix(large: Tensor, tuned: Tensor, untuned: Tensor) -> Tensor:
        return shifted(large, tuned, untuned, alpha)

    return Rule("proxy_tuning", mix, tuned, untuned)


@claim(
    proxy_tuning,
    "Proxy tuning closes most of the gap between a large base model and the same model tuned directly, because tuning "
    "moves both sizes alike; the untuned small model is what makes it so.",
    cost="cpu:2s",
)
def closes_most_of_the_gap() -> Evidence:
    """400 contexts: tuning adds one reward to both sizes, each size with a misfit of its own; a weak small model."""
    g = generator(0, "proxy_tuning")
    large, small, reward, misfit = (torch.randn(400, 60, generator=g) for _ in range(4))
    large, small, reward = 2 * large, 2 * small, 2 * reward
    goal, tuned = large + reward, small + reward + 0.5 * misfit
    tokens = torch.zeros(400, 1, dtype=torch.long)

    def gap(scores: Tensor) -> float:
        """KL(directly tuned || scores), mean over contexts, in nats."""
        return float(forward_kl(goal, scores).mean())

    flat = torch.zeros_like(small)
    measured = {
        "base": gap(large),
        "proxy_tuned": gap(proxy_tuning(lambda _: tuned, lambda _: small)(tokens, large)),
        "tuned_added_untuned_left_out": gap(proxy_tuning(lambda _: tuned, lambda _: flat)(tokens, large)),
    }
    closed = 1 - measured["proxy_tuned"] / measured["base"]
    ablated = 1 - measured["tuned_added_untuned_left_out"] / measured["base"]
    return Evidence(holds=closed > 0.8, measured=measured | {"closed": closed}, control=ablated < 0.5)
