from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.objectives.preference.peer import pairs, trl_orpo
from tests.objectives.preference.recipes import fine_tuned, gaps
from tests.objectives.preference.recipes import pairs as recipes
from tests.short_training import base, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import orpo


def one(*probabilities: float) -> Scored:
    return Scored(torch.tensor([probabilities]).log())


def test_by_hand():
    # geometric means 1/2 and 1/4: odds 1 and 1/3, so the ratio is 3 and -log sigmoid(log 3) = log(4/3)
    with noted() as heard:
        loss = orpo(one(0.5), one(0.5, 0.125), weight=0.5)
    assert loss.item() == pytest.approx(math.log(2) + 0.5 * math.log(4 / 3), abs=1e-6)
    assert heard["log_odds_ratio"] == [pytest.approx(math.log(3), abs=1e-5)]


def test_without_the_odds_it_is_fine_tuning_on_the_chosen():
    chosen, rejected, *_ = pairs()
    assert torch.allclose(orpo(chosen, rejected, weight=0.0), -chosen.mean())


def test_the_gradient_is_the_papers():
    # weight * sigmoid(-log ratio) * [grad log p_w / (1 - p_w) - grad log p_l / (1 - p_l)], and the likelihood's
    chosen, rejected = torch.tensor([[-0.4]], requires_grad=True), torch.tensor([[-1.3]], requires_grad=True)
    up, down = torch.autograd.grad(orpo(Scored(chosen), Scored(rejected), weight=0.7).sum(), (chosen, rejected))
    p, q = math.exp(-0.4), math.exp(-1.3)
    pull = 0.7 / (1 + p / (1 - p) / (q / (1 - q)))
    assert up.item() == pytest.approx(-1 - pull / (1 - p), rel=1e-5)
    assert down.item() == pytest.approx(pull / (1 - q), rel=1e-5)


def test_certain_answers_give_finite_losses_and_gradients():
    for chosen, rejected in (
        ((0.0, 0.0), (-1e-8, -1e-8)),
        ((-1e-8, 0.0), (-400.0, -300.0)),
        ((-400.0, -1.0), (0.0, 0.0)),
    ):
        logps = torch.tensor([chosen], requires_grad=True)
        loss = orpo(Scored(logps), Scored(torch.tensor([rejected])))
        assert torch.isfinite(loss).all() and torch.isfinite(torch.autograd.grad(loss.sum(), logps)[0]).all()


def test_a_negative_weight_is_refused_by_name():
    chosen, rejected, *_ = pairs()
    with pytest.raises(InputError, match="orpo: weight must be a number >= 0, got -1"):
        orpo(chosen, rejected, weight=-1)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_trl_has_the_same_loss_on_a_single_pair(weight):
    pytest.importorskip("trl")
    chosen, rejected, *_ = pairs()
    assert torch.allclose(orpo(chosen, rejected, weight=weight), trl_orpo(chosen, rejected, weight=weight), atol=1e-5)


def test_the_likelihood_term_weighs_rows_alike_and_not_tokens():
    chosen, rejected, *_ = pairs()
    rows, tokens = -chosen.mean().mean(), -chosen.logps.sum() / chosen.mask.sum()
    assert orpo(chosen, rejected, weight=0.0).mean() == rows and abs(rows - tokens) > 1e-3


def test_twenty_steps_hold_the_rejected_back():
    before = gaps(base())
    own, its = (gaps(m) - before for m in (trained(partial(orpo, weight=1.0), recipes()).model, fine_tuned()))
    assert own.mean() > 1.5 * its.mean() > 0
