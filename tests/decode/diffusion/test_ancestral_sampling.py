"""Ancestral sampling of masked diffusion: its law step by step, idle steps, schedules."""

from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.diffusion import ancestral_sampling
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.joint import JointTable, ancestral_law, any_order_law, random_conditionals, total_variation


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("power", [1, 2])
def test_the_law_is_the_dynamic_programme_s(steps: int, power: int) -> None:
    """Stay or leave at every step, worked over partial sequences, against steps drawn beforehand."""
    net = random_conditionals(2, 3, seed=1)

    def alpha(t: float) -> float:
        return 1 - t**power

    def sample(chooser: Chooser) -> tuple[int, ...]:
        out = ancestral_sampling(net, torch.full((1, 3), 2), mask_token_id=2, steps=steps, alpha=alpha, chooser=chooser)
        return tuple(out.tokens[0].tolist())

    times = [1 - k / steps for k in range(steps + 1)]
    keep = [(1 - alpha(s)) / (1 - alpha(t)) for t, s in zip(times[:-1], times[1:], strict=True)]
    assert total_variation(exact_distribution(sample), ancestral_law(net, 2, 3, keep)) < 1e-12


def test_one_step_is_independent_draws_and_many_are_the_average_over_orders() -> None:
    net = random_conditionals(2, 3, seed=2)
    p = torch.softmax(net(torch.full((1, 3), 2))[0, :, :2], -1)
    one = {(i, j, k): float(p[0, i] * p[1, j] * p[2, k]) for i in (0, 1) for j in (0, 1) for k in (0, 1)}
    assert total_variation(ancestral_law(net, 2, 3, [0.0]), one) < 1e-12
    many = ancestral_law(net, 2, 3, [1 - 1 / k for k in range(4000, 0, -1)])
    assert total_variation(many, any_order_law(net, 2, 3)) < 1e-3


def test_idle_steps_cost_nothing_unless_the_network_reads_the_time() -> None:
    times = []

    def net(x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        times.append(t)
        return torch.zeros(*x.shape, 3)

    x = torch.tensor([[2, 2, 2, 2], [0, 1, 1, 0], [2, 1, 0, 0]])
    out = ancestral_sampling(net, x, mask_token_id=2, steps=100, chooser=Chooser(generator(0)))
    assert out.steps == 100 and out.calls == len(times) <= 5 and 2 not in out.tokens
    assert out.tokens[1].tolist() == [0, 1, 1, 0] and int((x == 2).sum()) == 5
    times.clear()
    timed = ancestral_sampling(net, x, mask_token_id=2, steps=10, timed=True, chooser=Chooser(generator(0)))
    assert timed.calls == 10 and [float(t[0]) for t in times] == pytest.approx([1 - i / 10 for i in range(10)])
    assert timed.times is not None and bool(timed.times[1].isnan().all())


def test_refusals() -> None:
    table = JointTable.random(2, 2)
    for alpha in (lambda t: t, lambda t: 0.5):
        with pytest.raises(InputError, match="alpha"):
            ancestral_sampling(table.masked, torch.full((1, 2), 2), mask_token_id=2, alpha=alpha)
    with pytest.raises(InputError, match="steps"):
        ancestral_sampling(table.masked, torch.full((1, 2), 2), mask_token_id=2, steps=0)
