"""A sampler that is not quite the policy: gradients by enumeration and by samples, ratios of a truncated engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator
from plumbline.kernels.views import Support

Weights = Callable[[Scored, Scored], Tensor]  # (x_old, x_sampler) -> [B,T] or [B,1]


def no_weights(x_old: Scored, x_sampler: Scored) -> Tensor:
    """The gradient as if the engine were the policy, [B,T] of ones."""
    return torch.ones_like(x_old.logps)


def enumerated_error(weights: Weights, *, vocab: int = 30, noise: float = 0.3, seed: int = 0) -> float:
    r"""Largest error of :math:`\sum_a \mu(a)\, w(a) R(a) \nabla\log\pi(a)` against the on-policy gradient.

    One token, every one of ``vocab`` actions, normal rewards, :math:`\mu` the policy with normal noise on its logits;
    float64.
    """
    g = generator(seed, "enumerated_error")
    policy, reward = (torch.randn(vocab, generator=g, dtype=torch.float64) for _ in range(2))
    engine = policy + noise * torch.randn(vocab, generator=g, dtype=torch.float64)
    logps, sampler = log_probs(policy), log_probs(engine)
    w = weights(Scored(logps[:, None]), Scored(sampler[:, None]))[:, 0]
    # d log pi(a) / d logits = one-hot(a) - pi
    slope = torch.eye(vocab, dtype=torch.float64) - logps.exp()
    on_policy = (logps.exp() * reward) @ slope
    return float(((sampler.exp() * w * reward) @ slope - on_policy).abs().max())


@dataclass(frozen=True)
class Tabular:
    """A policy over three tokens whose every prefix has logits of its own, and an engine with noise on them.

    ``policy`` and ``engine`` hold logits [V], [V,V], [V,V,V]; ``reward`` [V,V,V] is of the whole answer, mean 0.
    """

    policy: list[Tensor]
    engine: list[Tensor]
    reward: Tensor

    @classmethod
    def random(cls, noise: float, *, vocab: int = 10, seed: int = 0) -> Tabular:
        g = generator(seed, "Tabular")
        shapes = [(vocab,) * n for n in (1, 2, 3)]
        policy = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
        engine = [z + noise * torch.randn(z.shape, generator=g, dtype=torch.float64) for z in policy]
        reward = torch.randn(shapes[-1], generator=g, dtype=torch.float64)
        return cls(policy, engine, reward - reward.mean())

    @staticmethod
    def along(logits: list[Tensor], ids: Tensor) -> Tensor:
        """Log-probabilities [N,3] of answers [N,3]."""
        a, b, c = ids.unbind(-1)
        tables = [log_probs(z) for z in logits]
        return torch.stack([tables[0][a], tables[1][a, b], tables[2][a, b, c]], -1)

    def gradient(self, ids: Tensor, weights: Tensor) -> Tensor:
        r""":math:`\nabla \frac1N \sum_i \sum_t w_{it} R_i \log\pi(y_{it})`, all tables in one vector."""
        leaves = [z.clone().requires_grad_() for z in self.policy]
        reward = self.reward[ids.unbind(-1)]
        value = (weights * reward[:, None] * self.along(leaves, ids)).sum() / len(ids)
        return torch.cat([slope.ravel() for slope in torch.autograd.grad(value, leaves)])

    def on_policy(self) -> Tensor:
        """The gradient of the expected reward, over every answer."""
        ids = torch.cartesian_prod(*[torch.arange(len(self.policy[0]))] * 3)
        p = self.along(self.policy, ids).sum(-1).exp()
        return self.gradient(ids, (p * len(ids))[:, None])

    def sample(self, n: int, seed: int) -> Tensor:
        """Answers [n,3] of the engine."""
        g = generator(seed, "Tabular", "sample")
        p = self.along(self.engine, torch.cartesian_prod(*[torch.arange(len(self.policy[0]))] * 3)).sum(-1).exp()
        at = torch.multinomial(p, n, replacement=True, generator=g)
        size = len(self.policy[0])
        return torch.stack([at // size**2, at // size % size, at % size], -1)


def gradient_cosine(
    weights: Weights, *, noise: float, faults: float = 0.0, samples: int = 20_000, seeds: int = 6
) -> float:
    """Cosine of the gradient estimated from the engine's samples to the on-policy gradient, a mean over seeds.

    Args:
        noise: standard deviation of the engine's logits around the policy's.
        faults: share of tokens whose probability the engine reports 5 nats too low.
    """
    found = []
    for seed in range(seeds):
        task = Tabular.random(noise, seed=seed)
        ids = task.sample(samples, seed)
        told = task.along(task.engine, ids)
        wrong = torch.rand(told.shape, generator=generator(seed, "faults")) < faults
        w = weights(Scored(task.along(task.policy, ids)), Scored(torch.where(wrong, told - 5.0, told)))
        found.append(torch.cosine_similarity(task.gradient(ids, w), task.on_policy(), dim=0))
    return float(torch.stack(found).mean())


@dataclass(frozen=True)
class Truncated:
    """Answers of an engine that has the trainer's very weights but draws from its ``top_k`` likeliest tokens.

    Attributes:
        full, kept: the trainer's log-probabilities over the vocabulary, and over the kept sets, [B,T].
        sampler: the engine's. mass: of the kept sets, [B,T].
    """

    full: Scored
    kept: Scored
    sampler: Scored
    mass: Tensor

    @classmethod
    def of(cls, model: object, ids: Tensor, *, top_k: int = 8, seed: int = 0) -> Truncated:
        """Redraw the last token of every row of ``ids`` [B,L] from the model's top k; that token is what is scored."""
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        with torch.no_grad():
            z = Scored.of(model, ids, mask=last).logits()[:, -1].double()
            top = z.topk(top_k, -1)
            inside = log_probs(top.values)
            drawn = torch.multinomial(inside.exp(), 1, generator=generator(seed, "Truncated"))
            ids = torch.cat([ids[:, :-1], top.indices.gather(-1, drawn)], 1)
            support: Support = (top.indices.ravel(), torch.arange(len(ids) + 1) * top_k)
            full, kept = (Scored.of(model, ids, mask=last, support=s) for s in (None, support))
        told = torch.zeros_like(full.logps)
        told[:, -1] = inside.gather(-1, drawn)[:, 0]
        mass = torch.ones_like(told)
        mass[:, -1] = (top.values.logsumexp(-1) - z.logsumexp(-1)).exp()
        return cls(full, kept, Scored(told, full.mask), mass)
