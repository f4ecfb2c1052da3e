"""Online learning on random losses: a linear policy to train, and the textbook players to compare it with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plumbline.kernels.seeds import forked, generator


class LinearPolicy(nn.Module):
    r""":math:`\pi_t = A \sum_{i<t} l_i + b`, [N,T,A] -> [N,T,A]; ``squash`` maps it onto the set of actions."""

    def __init__(self, actions: int, squash: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        with forked(0, "LinearPolicy"):
            self.past, self.squash = nn.Linear(actions, actions), squash

    def matrix(self) -> tuple[Tensor, Tensor]:
        """A [A,A] and b [A]."""
        return self.past.weight.detach(), self.past.bias.detach()

    def forward(self, losses: Tensor) -> Tensor:
        played = self.past(before(losses))
        return played if self.squash is None else self.squash(played)


def before(losses: Tensor) -> Tensor:
    """Sums of the losses so far, without this step's, [N,T,A]."""
    return losses.cumsum(-2) - losses


def leader(losses: Tensor, rate: float, squash: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    r"""Follow the regularised leader, :math:`-\eta \sum_{i<t} l_i`; with a softmax over actions it is Hedge."""
    played = -rate * before(losses)
    return played if squash is None else squash(played)


def random_losses(n: int, length: int, actions: int, drift: float, rng: torch.Generator) -> Tensor:
    """[n,length,actions] normal losses of variance 1 around means that a sequence keeps, normal with std ``drift``."""
    means = drift * torch.randn(n, 1, actions, generator=rng)
    return means + torch.randn(n, length, actions, generator=rng)


def into_ball(x: Tensor, radius: float = 1.0) -> Tensor:
    """The nearest points of a Euclidean ball around 0, [..., A]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * (radius / norm.clamp(min=radius))


def trained_policy(
    policy: LinearPolicy, loss: Callable[[Tensor, Tensor], Tensor], *, steps: int, length: int, actions: int = 2,
    rows: int = 256, drift: float = 0.0, lr: float = 1e-2, seed: int = 0,
) -> LinearPolicy:  # fmt: skip
    """Adam on fresh losses; trains ``policy`` in place and returns it.

    Args:
        rows, length, actions, drift: of the losses, see :func:`random_losses`.
        loss: (actions played, losses), both [N,T,A], -> [N].
    """
    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    g = generator(seed, "online")
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        losses = random_losses(rows, length, actions, drift, g)
        adam.zero_grad()
        loss(policy(losses), losses).mean().backward()
        adam.step()
    return policy
