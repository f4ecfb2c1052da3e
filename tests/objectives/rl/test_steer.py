from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.divergence import entropy
from plumbline.kernels.notes import noted
from plumbline.objectives import dapo, steer
from plumbline.objectives.rl.entropy_weights import exponential, linear


def view(p: float, h: float, *more: tuple[float, float]) -> Scored:
    both = [(p, h), *more]
    return Scored(torch.tensor([[math.log(q) for q, _ in both]]), entropy=torch.tensor([[e for _, e in both]]))


def test_by_hand():
    # |Omega| = |A| / old * p (1 - p) |ln p + H|: the first is the largest and gets 0.8
    x, old = view(0.5, 1.5, (0.8, 0.3)), Scored(torch.tensor([[0.5, 0.8]]).log())
    a = torch.tensor([[1.0, -1.0]])
    m = [1 / 0.5 * 0.25 * abs(math.log(0.5) + 1.5), 1 / 0.8 * 0.16 * abs(math.log(0.8) + 0.3)]
    weight = math.exp(math.log(0.8) * m[1] / m[0])
    assert torch.allclose(steer(x, a, old), torch.tensor([[-0.8, weight]]))
    low, high = steer(x, a, old, weighing=linear)[0].tolist()
    assert low == pytest.approx(-0.8) and high == pytest.approx(1.2)


def test_omega_uses_the_old_policy_and_the_clip_the_ratio():
    x, old = view(0.5, 1.5), Scored(torch.tensor([[0.25]]).log())
    seen = []

    def weighing(change, mask):
        seen.append(change)
        return torch.ones_like(change)

    assert steer(x, torch.tensor([1.0]), old, weighing=weighing).item() == pytest.approx(-1.28)
    assert steer(x, torch.tensor([-1.0]), old, weighing=weighing).item() == pytest.approx(2)
    assert steer(x, torch.tensor([-1.0]), old, weighing=weighing, dual_clip=1.5).item() == pytest.approx(1.5)
    assert seen[0].item() == pytest.approx(1 / 0.25 * 0.25 * (math.log(0.5) + 1.5), rel=1e-5)


def test_the_single_logit_effect_is_the_entropys_derivative():
    z = torch.randn(7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(entropy(z), z)
    p, h = z.softmax(-1), entropy(z)
    assert torch.allclose(slope, -p * (p.log() + h))


def test_weights_of_a_batch_without_change_or_all_alike():
    mask = torch.tensor([[True, True, False]])
    small = torch.tensor([[0.0, 0.001, 9.0]])
    assert exponential(small, mask)[0, 1].item() == pytest.approx(0.8 ** (0.001 / 0.02))
    assert exponential(torch.tensor([[0.0, 0.5, 9.0]]), mask)[0, :2].tolist() == pytest.approx([1, 0.8])
    assert linear(torch.tensor([[0.3, 0.3, 9.0]]), mask)[0].tolist() == pytest.approx([1.0] * 3)


def test_masked_tokens_set_no_scale_and_unlikely_ones_stay_finite():
    logps = torch.tensor([[-200.0, -0.5, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss = steer(Scored(logps, mask, entropy=torch.ones(1, 3)), torch.tensor([1.0]))
    assert torch.isfinite(loss).all() and loss[0, 2] == 0
    assert torch.isfinite(torch.autograd.grad(loss.sum(), logps)[0]).all()


def test_weights_are_detached_and_with_weights_of_one_it_is_dapo():
    logps = torch.tensor([[-0.5, -2.0]], requires_grad=True)
    x = Scored(logps, entropy=logps.exp())
    a, old = torch.tensor([0.7]), Scored(torch.tensor([[-0.6, -1.9]]))
    one = steer(x, a, old, weighing=lambda change, mask: torch.ones_like(change), dual_clip=None)
    slopes = [torch.autograd.grad(f.sum(), logps, retain_graph=True)[0] for f in (one, dapo(x, a, old))]
    assert torch.equal(one, dapo(x, a, old)) and torch.equal(*slopes)
    with noted() as heard:
        loss = steer(x, a, old)
    weight = loss.detach() / one.detach()
    assert heard["steer_weight"] == [pytest.approx(weight.mean().item(), rel=1e-5)]
    assert torch.allclose(torch.autograd.grad(loss.sum(), logps)[0], weight * slopes[0])


def test_the_engine_correction_multiplies():
    x, a = view(0.5, 1.5, (0.8, 0.3)), torch.tensor([1.0])
    assert torch.allclose(steer(x, a, None, torch.tensor([[0.5]])), 0.5 * steer(x, a))


def test_without_entropy_it_is_refused():
    with pytest.raises(InputError, match="entropy"):
        steer(Scored(torch.zeros(1, 2)), torch.zeros(1))
    with pytest.raises(InputError, match=r"steer: advantages must be of shape \[1\] or \[1,2\], got \(3,\)"):
        steer(view(0.5, 1.0, (0.5, 1.0)), torch.zeros(3))
    with pytest.raises(InputError, match="steer: dual_clip"):
        partial(steer, dual_clip=1.0)(view(0.5, 1.0), torch.zeros(1))


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(steer, logps="old_logps"))
    assert found > imitated() + 0.15, found
