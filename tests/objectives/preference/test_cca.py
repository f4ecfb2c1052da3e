from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.objectives.preference.peer import draw
from tests.objectives.preference.recipes import fine_tuned, grafted, pairs
from tests.short_training import base, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import cca

ROLES = ("x", "x_ref", "mismatched", "mismatched_ref")


def of(*values: float) -> Scored:
    return Scored(torch.tensor(values)[:, None])


def test_by_hand():
    # g+ = log 2, g- = log 3: -log sigmoid(log 2) = log(3/2), -log sigmoid(-log 3) = log 4, or log(4/3) as a positive
    sides = of(math.log(2), math.log(2)), of(0.0, 0.0), of(math.log(3), math.log(3)), of(0.0, 0.0)
    null = torch.tensor([False, True])
    loss = cca(*sides, null, beta=1.0, negative_weight=5.0)
    wanted = [(math.log(1.5) + 5 * math.log(4)) / 5, (math.log(1.5) + math.log(4 / 3)) / 5]
    assert loss.tolist() == pytest.approx(wanted, abs=1e-6)
    plain = cca(*sides, beta=1.0, negative_weight=0.5)  # below 1 nothing is divided; no null rows
    assert plain.tolist() == pytest.approx([math.log(1.5) + 0.5 * math.log(4)] * 2, abs=1e-6)


def slow(x, x_ref, other, other_ref, null, beta, weight):
    """The authors' VAR loss, row by row: null rows are positives of weight 1."""
    found = []
    for i in range(5):
        up = float((x.logps[i] - x_ref.logps[i])[x.mask[i]].sum())
        down = float((other.logps[i] - other_ref.logps[i])[other.mask[i]].sum())
        sign, w = (1, 1.0) if null[i] else (-1, weight)
        found.append(
            (math.log1p(math.exp(-beta * up)) + w * math.log1p(math.exp(-sign * beta * down))) / max(weight, 1)
        )
    return found


@pytest.mark.parametrize("weight", [0.3, 1.0, 300.0])
def test_against_a_slow_loop(weight):
    sides, null = draw(*ROLES), torch.tensor([0, 1, 0, 0, 1]).bool()
    wanted = slow(*sides, null, 0.2, weight)
    assert cca(*sides, null, beta=0.2, negative_weight=weight).tolist() == pytest.approx(wanted, rel=1e-5)


def test_conditions_pull_apart_and_null_rows_pull_together():
    up, down = torch.full((2, 1), -2.0, requires_grad=True), torch.full((2, 1), -2.0, requires_grad=True)
    loss = cca(Scored(up), of(-2.0, -2.0), Scored(down), of(-2.0, -2.0), torch.tensor([False, True]), beta=0.1)
    matched, other = torch.autograd.grad(loss.sum(), (up, down))
    assert (matched < 0).all() and other[0] > 0 > other[1]
    assert other[0].item() == pytest.approx(0.05) and other[1].item() == pytest.approx(-0.05 / 300)


def test_without_negatives_only_the_matched_answers_count():
    sides = draw(*ROLES)
    wanted = -torch.nn.functional.logsigmoid(0.02 * (sides[0].total() - sides[1].total()))
    assert torch.allclose(cca(*sides, negative_weight=0.0), wanted)


def test_bad_values_are_refused_by_name():
    with pytest.raises(InputError, match="cca: beta must be a number > 0, got 0"):
        cca(*draw(*ROLES), beta=0)
    with pytest.raises(InputError, match="cca: negative_weight must be a number >= 0, got -1"):
        cca(*draw(*ROLES), negative_weight=-1)
    with pytest.raises(InputError, match=r"cca: null must be of shape \[5\], one a row, got \(\)"):
        cca(*draw(*ROLES), torch.tensor(True))


def test_twenty_steps_tie_answers_to_their_requests_more_than_fine_tuning():
    kept, held = pairs()["chosen"], pairs(held_out=True)["chosen"]
    data = {"x": kept, "mismatched": grafted(kept[1:] + kept[:1], kept)}

    def tied(model: object) -> float:
        """log p(answer | its request) - log p(answer | another request), held out, nats."""
        return float((scored(model, held).total() - scored(model, grafted(held[1:] + held[:1], held)).total()).mean())

    own = tied(trained(partial(cca, beta=0.1, negative_weight=1.0), data).model)
    before, its = tied(base()), tied(fine_tuned())
    assert own - before > 2 * (its - before) > 0
