from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tests.objectives.preference.answers import asked, preferred

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.lab.tilts import tilted
from plumbline.objectives.preference import constrained_rlhf
from plumbline.objectives.preference.multipliers import Multipliers, dual_step, reached, search_thresholds

KL = torch.tensor([1.0, -1.0])
EACH = torch.tensor([[2.0, 0.0], [-2.0, 4.0]])


def test_by_hand():
    # squashed to 3/4 and 1/4: (2 - 1) A_kl + 3/4 A_1 + 1/4 A_2
    lam = torch.tensor([math.log(3), -math.log(3)])
    found = constrained_rlhf(KL, EACH, lam, normalise=False)
    assert found.tolist() == pytest.approx([1 + 1.5, -1 - 1.5 + 1.0])
    # unsquashed every multiplier counts, the first as well
    assert constrained_rlhf(KL, EACH, torch.tensor([2.0, 0.5]), squash=None, normalise=False).tolist() == [5.0, -3.0]
    # equality: tanh(-x) pushes a reward down, and the KL takes what that leaves
    lam = torch.tensor([math.atanh(-0.5), 0.0])
    found = constrained_rlhf(KL, EACH, lam, squash=torch.tanh, normalise=False)
    assert found.tolist() == pytest.approx([2.5 - 1.0, -2.5 + 1.0])


def test_components_are_normalised_over_what_is_kept():
    g = generator(0, "constrained")
    kl, each = torch.randn(4, 5, generator=g) * 3 + 1, torch.randn(4, 5, 2, generator=g) * 7 - 2
    mask = torch.rand(4, 5, generator=g) < 0.6
    lam = torch.tensor([0.3, -0.4])
    mu = torch.sigmoid(lam)
    wanted = np.zeros((4, 5))
    kept = mask.numpy()
    parts = [kl.numpy(), each[..., 0].numpy(), each[..., 1].numpy()]
    for weight, part in zip([2 - float(mu.sum()), *mu.tolist()], parts, strict=True):
        values = part[kept]
        wanted[kept] += weight * (values - values.mean()) / (values.std(ddof=1) + 1e-8)
    found = constrained_rlhf(kl, each, lam, mask)
    assert np.allclose(found.numpy(), wanted, atol=1e-5) and bool((found[~mask] == 0).all())
    poisoned = torch.where(mask, kl, torch.nan)
    assert torch.equal(constrained_rlhf(poisoned, each, lam, mask), found)


def test_one_row_is_finite_and_nothing_has_a_gradient():
    found = constrained_rlhf(KL[:1].requires_grad_(), EACH[:1], torch.zeros(2))
    assert found.tolist() == [0.0] and not found.requires_grad


@pytest.mark.parametrize("squash", [torch.sigmoid, torch.tanh, None])
def test_the_dual_step_is_torchs_sgd(squash):
    lam = torch.tensor([0.3, 0.05], dtype=torch.float64)
    leaf = lam.clone().requires_grad_()
    sgd = torch.optim.SGD([leaf], lr=0.1, momentum=0.1)
    velocity, thresholds = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    for returns in ([0.2, 1.5], [0.9, 0.1], [2.0, 0.5]):
        r = torch.tensor(returns, dtype=torch.float64)
        sgd.zero_grad()
        mu = leaf if squash is None else squash(leaf)
        (mu * (r - thresholds)).sum().backward()
        sgd.step()
        if squash is None:
            leaf.data.clamp_(min=0)
        lam, velocity = dual_step(lam, velocity, r, thresholds, squash=squash)
        assert torch.allclose(lam, leaf.detach(), atol=1e-12)


def test_the_multiplier_finds_the_constrained_optimum_of_a_bandit():
    # max E r - beta KL with E c = 0.6: the optimum is a tilt by r + mu c; bisect for mu
    g = generator(0, "bandit")
    r, c = torch.randn(2, 50, generator=g, dtype=torch.float64)
    beta = 0.5

    def held(mu: float) -> float:
        return float(tilted(r + mu * c, 1 / beta) @ c)

    low, high = 0.0, 10.0
    assert held(low) < 0.6 < held(high)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < 0.6 else (low, middle)
    state = Multipliers(torch.tensor([0.6]), squash=None, lr=0.3)
    for _ in range(400):
        state.update(torch.tensor([[held(float(state.values))]], dtype=torch.float64))
    assert float(state.values) == pytest.approx(low, abs=1e-6)


def test_a_checkpoint_is_json_and_goes_on_alike():
    state = Multipliers(torch.tensor([0.5, 1.0]))
    with noted() as found:
        state.update(torch.tensor([[0.0, 2.0], [0.5, 2.0]]))
    assert state.values[0] > 0 > state.values[1]  # below its threshold, above it
    assert found["return_less_threshold_0"] == [-0.25] and found["multiplier_1"] == [pytest.approx(-0.025)]
    copy = Multipliers(torch.tensor([0.5, 1.0]))
    copy.load_state_dict(json.loads(json.dumps(state.state_dict())))
    for both in (state, copy):
        both.update(torch.tensor([[1.0, 0.1]]))
    assert torch.equal(state.values, copy.values) and torch.equal(state.velocity, copy.velocity)
    with pytest.raises(InputError, match="Multipliers: values must be 1 numbers"):
        Multipliers(torch.tensor([0.5])).load_state_dict(state.state_dict())


def test_the_threshold_search_climbs_and_never_asks_twice():
    asked = []

    def score(theta: np.ndarray) -> float:
        asked.append(tuple(theta))
        return float(-((theta[0] - 0.7) ** 2) - 2 * (theta[1] - 0.3) ** 2 + 1)

    best, value, judged = search_thresholds(score, [[0.1, 0.1], [0.3, 0.1], [0.1, 0.4]], tolerance=1e-5)
    assert np.allclose(best, [0.7, 0.3], atol=0.02) and value == pytest.approx(1, abs=1e-3)
    assert len(asked) == len(judged)
    gaps = [max(abs(a - c), abs(b - d)) for i, (a, b) in enumerate(asked) for c, d in asked[:i]]
    assert min(gaps) >= 5e-3
    asked.clear()
    search_thresholds(score, [[0.1, 0.1], [0.3, 0.1], [0.1, 0.4]], tolerance=0.0, most=7)
    assert len(asked) == 7


def test_reached_is_a_share_of_the_threshold():
    assert reached([0.96, -2.05], [1.0, -2.0]) and not reached([0.94, -2.0], [1.0, -2.0])
    assert not reached([1.06], [1.0]) and reached([1.06], [1.0], within=0.1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: constrained_rlhf(KL, EACH, torch.zeros(3)), "constrained_rlhf: advantages must be"),
        (lambda: constrained_rlhf(KL[:1], EACH, torch.zeros(2)), "constrained_rlhf: advantages must be"),
        (lambda: constrained_rlhf(KL, EACH, torch.zeros(2), torch.ones(3)), "constrained_rlhf: mask must be"),
        (lambda: Multipliers(torch.tensor(0.5)), r"Multipliers: thresholds must be of shape \[k\]"),
        (lambda: Multipliers(torch.ones(2)).update(torch.ones(4)), r"Multipliers.update: returns must be of shape"),
        (lambda: search_thresholds(lambda t: 0.0, [[0.0, 1.0]]), r"search_thresholds: start must be of shape"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_twenty_steps_push_the_reward_that_is_below_its_threshold():
    rows = asked((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    state = Multipliers(torch.tensor([0.9, 0.1]), lr=2.0)  # the mean return of both is a third

    def prepare(model, batch, step):
        state.update(torch.stack([batch["x"]["r0"], batch["x"]["r1"]], -1))
        return batch

    def mixed(s):
        each = torch.stack([s.r0, s.r1], -1)
        return constrained_rlhf(torch.zeros(len(each)), each, state.values)

    ours = preferred(mixed, rows, over=(0, 1), prepare=prepare, keep=[state])
    fixed = preferred(lambda s: s.r0 + s.r1, rows, over=(0, 1))
    assert state.values[0] > 1 and state.values[1] < -1 and ours > fixed + 0.5
