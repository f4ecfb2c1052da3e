"""Regret loss: a policy learns to have low regret on random loss sequences; nobody tells it which action is right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator
from plumbline.lab.online import LinearPolicy, leader, random_losses, trained_policy
from plumbline.objectives.pretrain.comparators import Comparator, ball, simplex


@objective(
    paper=Paper(
        "Do LLM Agents Have Regret? A Case Study in Online Learning and Games", "Park et al.", 2024, "2403.16843"
    ),
    says="Lower the regret of a policy on sampled loss sequences, the worst of them most, without action labels.",
    differs=(
        "f(x, k) is exp(k x), one of the families that the paper admits.",
        "The batch is the paper's set of N sequences; over several processes each has its own.",
    ),
    needs=("batch",),
)
def regret_loss(
    policy: Tensor, losses: Tensor, *, comparator: Comparator = simplex,
    outer: Callable[[Tensor], Tensor] | None = None, sharpness: NonNegative = 10.0, detach_weights: bool = False,
) -> Tensor:  # fmt: skip
    r"""Each sequence's share of the loss; their mean is the paper's.

    .. math:: L = \sum_j w_j\, h(R_j),\quad w_j = \frac{e^{k R_j}}{\sum_i e^{k R_i}},\quad
              R_j = \sum_t \langle l_{jt}, \pi_{jt} \rangle - \min_{\pi \in \Pi} \sum_t \langle l_{jt}, \pi \rangle

    Args:
        policy: [N, T, A], what was played: :math:`\pi_t` may depend on :math:`l_1 \ldots l_{t-1}` alone, and any
            projection onto :math:`\Pi` belongs inside its graph. Carries the gradient.
        losses: [N, T, A], what then came; 0 after the end of a shorter sequence.
        comparator: losses [N, T, A] -> [N], the least total loss of a fixed action: ``simplex`` or ``ball(radius)`` of
            ``objectives.pretrain.comparators``, or any function.
        outer: h, non-decreasing; None is the identity. The paper's theorem on linear attention takes the square.
        sharpness: k; 0 weighs the sequences alike, infinity picks the worst. N = 8, k = 10 and h = x are our judgement.
        detach_weights: True makes w a constant. The definition lets it carry gradient, as it does by default.

    Returns:
        [N], :math:`N w_j h(R_j)`, in the losses' unit (through h). Noted: mean and largest regret.

    Raises:
        InputError: the shapes differ or are not [N, T, A].
    """
    if policy.dim() != 3 or policy.shape != losses.shape:
        shapes = [tuple(policy.shape), tuple(losses.shape)]
        raise refuse("regret_loss", "policy and losses", "both [N,T,A]", shapes, "pass one action for every loss")
    wide = torch.promote_types(torch.promote_types(policy.dtype, losses.dtype), torch.float32)
    policy, losses = policy.to(wide), losses.to(wide)
    regret = (policy * losses).sum((-1, -2)) - comparator(losses)
    note(regret=regret, worst_regret=regret.amax())
    weights = (sharpness * (regret.detach() if detach_weights else regret)).softmax(-1)
    return len(regret) * weights * (regret if outer is None else outer(regret))


def _example(mask: Tensor) -> dict[str, Tensor]:
    g = generator(0, "regret_loss example")
    policy, losses = torch.randn(2, *mask.shape, 3, generator=g).unbind()
    return {"policy": policy.softmax(-1), "losses": torch.where(mask[..., None], losses, 0.0)}


@claim(
    regret_loss,
    "The best linear policy under it, on the unit ball, is follow-the-regularised-leader: minus a constant times the "
    "sum of past losses. The same loss without a comparator unlearns everything.",
    cost="cpu:10s",
)
def finds_the_regularised_leader() -> Evidence:
    def fitted(comparator: Comparator) -> tuple[Tensor, Tensor]:
        loss = partial(regret_loss, comparator=comparator, outer=torch.square, sharpness=0.0)
        return trained_policy(LinearPolicy(2), loss, steps=1500, length=4).matrix()

    (a, b), (other, _) = fitted(ball()), fitted(lambda losses: losses.new_zeros(len(losses)))
    cosine = float(torch.cosine_similarity(a.flatten(), -torch.eye(2).flatten(), dim=0))
    holds = cosine >= 0.99 and float(b.norm()) < 0.1
    measured = {"A": a, "b": b, "cosine of A with -I": cosine, "A without a comparator": other}
    return Evidence(holds, measured, control=float(other.norm()) < 0.1)


@claim(
    regret_loss,
    "On the simplex, a policy trained on mean regret comes within a tenth of the best-tuned Hedge's, and one trained "
    "on the worst of eight sequences (k = 10) of the Hedge tuned for that; playing uniformly is far from both.",
    cost="cpu:10s",
)
def rivals_hedge() -> Evidence:
    squash = partial(torch.softmax, dim=-1)
    losses = random_losses(4000, 20, 3, 0.5, generator(1, "regret_loss"))

    def measure(played: Tensor) -> Tensor:
        """Mean regret, and the worst of eight in the mean."""
        regret = regret_loss(played, losses, sharpness=0.0)
        return torch.stack([regret.mean(), regret.view(-1, 8).amax(-1).mean()])

    def taught(rows: int, sharpness: float) -> Tensor:
        told = dict(steps=1000, length=20, actions=3, rows=rows, drift=0.5, lr=0.03)
        loss = partial(regret_loss, sharpness=sharpness)
        return measure(trained_policy(LinearPolicy(3, squash), loss, **told)(losses).detach())  # type: ignore[arg-type]

    found = torch.stack([taught(256, 0.0)[0], taught(8, 10.0)[1]])
    hedge = torch.stack([measure(leader(losses, r, squash)) for r in torch.logspace(-1, 1, 20).tolist()]).amin(0)
    uniform = measure(leader(losses, 0.0, squash))
    measured = {"mean and worst of 8": found, "Hedge, tuned for each": hedge, "uniform": uniform}
    return Evidence(bool((found < 1.1 * hedge).all()), measured, control=bool((uniform > 1.5 * hedge).all()))
