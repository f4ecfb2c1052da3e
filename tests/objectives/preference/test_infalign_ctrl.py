from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from tests.objectives.preference.answers import asked, preferred

from plumbline.core.errors import InputError
from plumbline.objectives.preference import infalign_ctrl
from plumbline.objectives.preference.win_rates import bon, bon_win_rate, identity, won, won_win_rate

BASE = torch.tensor([[0.0, 1.0, 2.0, 2.0], [10.0, 20.0, 30.0, 40.0]])
REWARDS, PROMPTS = torch.tensor([2.0, 25.0, -1.0, 1.5]), torch.tensor([0, 1, 0, 0])


def test_by_hand():
    found = infalign_ctrl(BASE, REWARDS, PROMPTS, transform=identity)
    assert found.quantiles.tolist() == [0.75, 0.5, 0.0, 0.5] and torch.equal(found.rewards, found.quantiles)
    assert infalign_ctrl(BASE, REWARDS, PROMPTS).rewards.tolist() == pytest.approx(
        [math.exp(-2.5), math.exp(-5), math.exp(-10), math.exp(-5)]
    )
    assert infalign_ctrl(BASE, REWARDS, PROMPTS, transform=partial(won, t=2.0)).rewards.tolist() == pytest.approx(
        [-math.exp(-1.5), -math.exp(-1), -1.0, -math.exp(-1)]
    )


def test_only_the_order_of_rewards_counts():
    cubed = infalign_ctrl(BASE**3, REWARDS**3, PROMPTS).quantiles
    assert torch.equal(cubed, infalign_ctrl(BASE, REWARDS, PROMPTS).quantiles)


def test_the_bases_own_samples_are_uniform():
    base = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    found = infalign_ctrl(base, base[0]).quantiles.sort().values
    assert torch.allclose(found, (torch.arange(50) + 0.5) / 50)


def test_no_gradient_and_float32():
    rewards = REWARDS.bfloat16().requires_grad_()
    found = infalign_ctrl(BASE, rewards, PROMPTS)
    assert not found.rewards.requires_grad and found.rewards.dtype == torch.float32


@pytest.mark.parametrize("n", [1, 2, 3])
def test_win_rates_by_counting_every_draw(n):
    policy, base, p = [0.0, 1.0, 1.0, 3.0], [1.0, 2.0, -1.0], [0.1, 0.2, 0.3, 0.4]
    for best, rate in ((max, bon_win_rate), (min, won_win_rate)):
        counted = 0.0
        for ours in itertools.product(range(4), repeat=n):
            chance = math.prod(p[i] for i in ours) / 3**n
            for theirs in itertools.product(base, repeat=n):
                a, b = best(policy[i] for i in ours), best(theirs)
                counted += chance * (1.0 if a > b else 0.5 if a == b else 0.0)
        found = rate(torch.tensor(policy), torch.tensor(base), n, torch.tensor(p, dtype=torch.float64))
        assert found == pytest.approx(counted, abs=1e-12)


def test_a_policy_ties_with_itself():
    r = torch.tensor([1.0, 5.0, 5.0, 7.0])
    assert bon_win_rate(r, r, 4) == pytest.approx(0.5) and won_win_rate(r, r, 4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: infalign_ctrl(BASE, REWARDS), "infalign_ctrl: prompts must be given where P > 1"),
        (lambda: infalign_ctrl(BASE, REWARDS, PROMPTS + 1), "infalign_ctrl: prompts must be rows of base_rewards"),
        (lambda: infalign_ctrl(BASE, REWARDS, PROMPTS[:2]), "infalign_ctrl: rewards and prompts must be of one shape"),
        (lambda: infalign_ctrl(BASE[0], REWARDS), r"infalign_ctrl: base_rewards must be of shape \[P,K\]"),
        (lambda: infalign_ctrl(BASE, REWARDS, PROMPTS, transform=4), "infalign_ctrl: transform must be"),
        (lambda: bon(torch.zeros(2), t=-10.0), "bon: t must be a number > 0"),
        (lambda: bon_win_rate(REWARDS, REWARDS, 0), "bon_win_rate: n must be a whole number >= 1"),
        (lambda: bon_win_rate(REWARDS, REWARDS[:0], 1), "at least one reward each"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_twenty_steps_for_best_of_n_lead_by_the_best_answer_alone():
    rows = asked((0.0, 8.0, 10.0))
    samples = torch.linspace(-5, 10, 101).expand(8, -1)

    def shaped(transform):
        return lambda s: infalign_ctrl(samples, s.r0, s.question, transform=transform).rewards

    lead = {f.__name__: preferred(shaped(f), rows, over=(2, 1)) for f in (bon, identity, won)}
    assert lead["bon"] > lead["identity"] + 0.3 > lead["won"] + 0.3
