"""A KL penalty to a frozen reference, estimated from the sampled tokens alone, with an unbiased gradient on request."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.divergence import forward_kl
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator
from plumbline.lab.bandits import scored
from plumbline.objectives.rl.clipped import log_ratio, ratio, token_mean


@objective(
    paper=Paper("Approximating KL Divergence", "Schulman", 2020),
    says="Estimate KL(policy || reference) at every sampled token by k3: never negative, and little variance.",
    differs=(
        "The source is a note on the author's site; DeepSeekMath (2024) made k3 the KL term of GRPO.",
        "With x_old every token is weighed by pi / pi_old, as in DeepSeek-V3.2 (2025); k3 alone estimates the KL "
        "without bias, but its gradient on the policy's own samples is that of KL(reference || policy).",
    ),
)
def reference_kl(x: Scored, x_ref: Scored, x_old: Scored | None = None) -> Tensor:
    r"""Per-token estimate; add beta times it to a policy loss.

    .. math:: k_3 = \rho\,(e^{d} - d - 1),\qquad d = \log\pi_{ref} - \log\pi_\theta,\qquad
              \rho = \frac{\pi_\theta}{\pi_{old}} \ \text{(1 without } \pi_{old}\text{)}

    Args:
        x: the trained model on rollouts, logps [B, T]; gradients reach it through d and through rho.
        x_ref: the frozen reference on the same, logps [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; strictly on-policy pass ``x.detach()``:
            the value stays the same, the gradient becomes that of KL(policy || reference).

    Returns:
        [B, T] nats, 0 where masked. Notes ``reference_kl``, the mean over the scored tokens.

    Raises:
        InputError: the roles differ in shape.
    """
    if x_ref.logps.shape != x.logps.shape:
        got = (tuple(x_ref.logps.shape), tuple(x.logps.shape))
        raise refuse("reference_kl", "x_ref", "of the shape of x", got, "score the same rollouts with both models")
    d = torch.where(x.mask, x_ref.logps.detach() - x.logps, 0.0)
    k3 = torch.expm1(d) - d
    if x_old is not None:
        k3 = ratio(log_ratio("reference_kl", x, x_old)) * k3
    note(reference_kl=token_mean(x, k3.detach()))
    return torch.where(x.mask, k3, 0.0)


@claim(
    reference_kl,
    "Weighed by pi / pi_old, its gradient is exactly that of KL(policy || reference), whoever sampled; k3 alone has "
    "another, even on the policy's own samples.",
    cost="cpu:1s",
)
def weighed_gradient_is_the_kls() -> Evidence:
    g = generator(0, "reference_kl")
    policy, ref, old = (torch.randn(1, 30, dtype=torch.float64, generator=g) for _ in range(3))
    every = torch.arange(30)[:, None]  # each token once, weighed by the probability of being sampled
    leaf = policy.requires_grad_()
    (exact,) = torch.autograd.grad(forward_kl(leaf, ref).sum(), leaf)

    def off(sampler: Tensor, weighed: bool) -> float:
        x, mu = scored(leaf, every), scored(sampler.detach(), every)
        loss = reference_kl(x, scored(ref, every), mu if weighed else None)
        (slope,) = torch.autograd.grad((mu.logps.exp() * loss).sum(), leaf)
        return float((slope - exact).abs().max())

    measured = {
        "error, weighed": off(old, True),
        "error, weighed, on-policy": off(policy, True),
        "error, k3 alone, on-policy": off(policy, False),
    }
    holds = measured["error, weighed"] < 1e-12 and measured["error, weighed, on-policy"] < 1e-12
    return Evidence(holds, measured, control=measured["error, k3 alone, on-policy"] > 0.01)
