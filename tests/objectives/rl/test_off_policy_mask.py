from __future__ import annotations

import pytest
import torch
from tests.objectives.rl.faulty import rows
from tests.objectives.rl.trl_correction import rollouts
from tests.short_training import base, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import off_policy_mask


def test_by_hand():
    # the policy is 0.6 nats a token below the engine in rows 0 and 1, 0.4 in row 2
    x, engine = Scored(torch.tensor([[-1.6, -1.6], [-1.6, -1.6], [-1.4, -1.4]])), Scored(torch.full((3, 2), -1.0))
    advantages = torch.tensor([1.0, -1.0, -1.0])
    with noted() as heard:
        assert off_policy_mask(x, engine, advantages).tolist() == [[1], [0], [1]]
    assert heard["off_policy_dropped"] == [pytest.approx(1 / 3)]
    assert off_policy_mask(x, engine, advantages, delta=0.3).tolist() == [[1], [0], [0]]
    by_token = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    assert off_policy_mask(x, engine, by_token).tolist() == [[1, 0], [1, 1], [1, 1]]


def test_no_gradient():
    logps = torch.zeros(1, 2, requires_grad=True)
    assert not off_policy_mask(Scored(logps), Scored(logps), torch.tensor([-1.0])).requires_grad


@pytest.mark.parametrize("delta", [0.05, 0.2, 0.5])
def test_as_trl(delta):
    trl = pytest.importorskip("trl")
    new, sampler, mask = rollouts()
    advantages = torch.linspace(-1, 1, len(new))
    theirs = trl.GRPOTrainer.get_off_policy_mask(advantages[:, None], new, sampler, mask.float(), delta)
    found = off_policy_mask(Scored(new, mask), Scored(sampler, mask), advantages, delta=delta)
    assert torch.equal(found, theirs) and (delta > 0.2 or 0 < (found == 0).sum() < len(new) / 2)


def test_advantages_of_another_shape_are_refused():
    x = Scored(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"off_policy_mask: advantages must be of shape \[2\] or \[2, 3\], got \(3,\)"):
        off_policy_mask(x, x, torch.zeros(3))


def test_a_short_training_stops_pushing_bad_answers_down():
    told = list(rows(0.0))
    bad, fell = torch.tensor([row["advantages"] for row in told]) < 0, {}
    for name, keep in (("masked", off_policy_mask), ("not", lambda x, x_sampler, a: torch.ones(len(a), 1))):
        lm = base()

        def loss(s, keep=keep):
            return s.mean(-keep(s.x, s.x_sampler, s.advantages) * s.advantages[:, None] * s.x.logps)

        trained(loss, {"x": told}, lm=lm, lr=1e-3, batch_size=len(told))
        with torch.no_grad():
            fell[name] = float((scored(base(), told).mean() - scored(lm, told).mean())[bad].mean())
    assert 0.3 < fell["masked"] < 0.7 * fell["not"], fell
