from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.digits import base, imitated, practised, rate, view

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import grpo, reference_kl


def test_by_hand():
    # ref / pi = 2: 2 - log 2 - 1; with pi / pi_old = 3 three times that
    x, ref = Scored(torch.tensor([[0.3]]).log()), Scored(torch.tensor([[0.6]]).log())
    with noted() as heard:
        assert reference_kl(x, ref).item() == pytest.approx(1 - math.log(2), abs=1e-6)
    assert heard["reference_kl"] == [pytest.approx(1 - math.log(2), abs=1e-6)]
    weighed = reference_kl(x, ref, Scored(torch.tensor([[0.1]]).log()))
    assert weighed.item() == pytest.approx(3 - 3 * math.log(2), abs=1e-5)


def test_never_negative_and_zero_for_the_reference_itself():
    x, ref = Scored(torch.randn(4, 50)), Scored(torch.randn(4, 50))
    assert (reference_kl(x, ref) > 0).all() and (reference_kl(x, x.detach()) == 0).all()


def test_estimates_the_kl_without_bias():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    found = (p * reference_kl(Scored(p.log()[:, None]), Scored(q.log()[:, None]))[:, 0]).sum()
    assert found.item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


def test_on_policy_weighing_keeps_the_value_and_changes_the_gradient():
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    x, ref = Scored(logps), Scored(torch.tensor([[-2.0, -1.0]]))
    plain, weighed = reference_kl(x, ref), reference_kl(x, ref, x.detach())
    assert torch.equal(plain, weighed)
    one, other = (torch.autograd.grad(k.sum(), logps, retain_graph=True)[0] for k in (plain, weighed))
    assert torch.allclose(one, 1 - (ref.logps - logps).exp()) and torch.allclose(other, logps - ref.logps)


def test_masked_tokens_do_not_count():
    mask = torch.tensor([[True, False]])
    with noted() as heard:
        found = reference_kl(Scored(torch.tensor([[-1.0, -torch.inf]]), mask), Scored(torch.zeros(1, 2), mask))
    assert found[0, 1] == 0 and heard["reference_kl"] == [pytest.approx(math.e - 2, abs=1e-6)]


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match="reference_kl: x_ref must be of the shape of x"):
        reference_kl(Scored(torch.zeros(1, 2)), Scored(torch.zeros(1, 3)))


def test_zoo_base_learns_the_rule_and_stays_near_the_reference():
    def held(s):
        return s.mean(grpo(s.x, s.advantages)) + s.mean(reference_kl(s.x, s.x_ref, s.x.detach()))

    ours, free, start = practised(held), practised(grpo), view(base())
    near, far = ((view(lm).logps - start.logps).abs().mean() for lm in (ours, free))
    assert rate(ours) > imitated() and near < far / 4, (near, far)
