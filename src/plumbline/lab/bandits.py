"""Policies over a few tokens whose every probability is known: one row of logits a position, [T,V], T = 1 a bandit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator

Reward = Callable[[Tensor, torch.Generator], Tensor]  # ids [n,T] -> [n]
Loss = Callable[[Scored, Tensor, Scored], Tensor]  # (x, rewards [n], x_old) -> [n] or [n,T]


def draw(table: Tensor, n: int, g: torch.Generator) -> Tensor:
    """n rollouts of a policy [T,V], [n,T]."""
    return torch.multinomial(table.detach().softmax(-1), n, replacement=True, generator=g).T


def scored(table: Tensor, ids: Tensor, mask: Tensor | None = None) -> Scored:
    """Rollouts [n,T] under a policy [T,V]."""
    return Scored.from_logits(table.expand(len(ids), *table.shape), ids, mask, shift=False)


def policy_gradients(table: Tensor, ids: Tensor, advantages: Tensor) -> Tensor:
    """The plain estimate mean_i A_i grad log pi(y_i) for rollouts [n,T] and advantages [n], flattened."""
    leaf = table.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad((advantages * scored(leaf, ids).total()).mean(), leaf)
    return slope.flatten()


def slope_of(loss: Callable[[Scored], Tensor], table: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gradient [T,V] of a loss's mean over fixed rollouts."""
    leaf = table.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(scored(leaf, ids, mask)).mean(), leaf)
    return slope


def practised(
    loss: Loss, reward: Reward, table: Tensor, *, steps: int, lr: float, samples: int = 16, epochs: int = 1,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Reinforcement by plain gradient descent: sample, score, descend ``epochs`` times, and again.

    Args:
        loss: of the policy, the rewards [samples] and the policy that sampled; its mean is descended.
        table: [T,V], where it starts.

    Returns:
        [steps + 1, T, V], the policy before the first and after every step.
    """
    g = generator(seed, "practised")
    path = [table.detach().clone()]
    for _ in range(steps):
        now = path[-1]
        ids = draw(now, samples, g)
        rewards, old = reward(ids, g), scored(now, ids)
        for _ in range(epochs):
            now = now - lr * slope_of(partial(_told, loss, rewards, old), now, ids)
        path.append(now)
    return torch.stack(path)


def _told(loss: Loss, rewards: Tensor, old: Scored, x: Scored) -> Tensor:
    return loss(x, rewards, old)


def noisy_arms(arms: int, noise: float = 0.3) -> Reward:
    """Arm k pays k / (arms - 1) and Gaussian noise."""
    means = torch.linspace(0, 1, arms)

    def reward(ids: Tensor, g: torch.Generator) -> Tensor:
        return means[ids[:, 0]] + noise * torch.randn(len(ids), generator=g)

    return reward


def rehearsed(loss: Callable[[Scored], Tensor], table: Tensor, ids: Tensor, *, steps: int, lr: float) -> Tensor:
    """Descent on one fixed set of rollouts [n,T]: the policy [T,V] after ``steps``."""
    for _ in range(steps):
        table = table - lr * slope_of(loss, table, ids)
    return table


def format_and_answer(loss: Loss, *, samples: int = 8, steps: int = 60, lr: float = 0.5, seed: int = 0) -> float:
    """Four positions of six tokens. Paid is format (0, 1), then answer 2; the policy starts out mostly in the format.

    Returns:
        The probability of the format after practice; 0.36 at the start.
    """
    table = torch.zeros(4, 6)
    table[0, 0] = table[1, 1] = 2.0

    def reward(ids: Tensor, g: torch.Generator) -> Tensor:
        return (ids[:, :3] == torch.tensor([0, 1, 2])).all(-1).float()

    p = practised(loss, reward, table, steps=steps, lr=lr, samples=samples, seed=seed)[-1].softmax(-1)
    return float(p[0, 0] * p[1, 1])


def three_steps() -> tuple[Tensor, Tensor, Tensor]:
    """Solutions of three binary steps that are right iff step 2 is 1, where step 1 looks as if it mattered too.

    Returns:
        ids [200,3]: 100 right solutions, 90 of them with step 1 = 1, then 100 wrong ones, 10 of them with it; step 3 is
        even. values [200,4]: the exact chances of success of the even policy, V_0 to V_3. right [200] bool.
    """
    right = torch.arange(200) < 100
    place = torch.arange(100)
    first = torch.cat([place < 90, place < 10])
    ids = torch.stack([first, right, torch.arange(200) % 2 == 0], -1).long()
    half = torch.full((200,), 0.5)
    return ids, torch.stack([half, half, right.float(), right.float()], -1), right
