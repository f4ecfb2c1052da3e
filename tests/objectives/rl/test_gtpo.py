from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import grpo, gtpo
from plumbline.objectives.rl.conflicts import conflicts

ALONE = torch.zeros(2, dtype=torch.long)


def factors(ids, advantages, mask=None, groups=None, **how) -> list[list[float]]:
    """lambda of every token, read from the gradient of the loss."""
    ids, a = torch.tensor(ids), torch.tensor(advantages)
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    groups = torch.zeros(len(ids)).long() if groups is None else torch.tensor(groups)
    logps = torch.zeros(ids.shape, requires_grad=True)
    x = Scored(logps, mask, labels=ids, entropy=torch.zeros(ids.shape))
    (slope,) = torch.autograd.grad(gtpo(x, a, groups, **how).sum(), logps)
    safe = torch.where(a == 0, 1.0, a)
    return (-slope * x.lengths()[:, None] / safe[:, None]).tolist()


def official(ids: torch.Tensor, lengths: list[int], advantages: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A slow loop over the official code's rules: its lambda, the product of two runs, and its count of conflicts."""
    rows, length = ids.shape
    found, count = torch.ones(rows, length), torch.zeros(rows)
    for i in range(rows):
        hit = set()
        for backward in (False, True):
            for t in range(lengths[i]):
                at = lengths[i] - 1 - t if backward else t
                sides = set()
                for j in range(rows):
                    place = lengths[j] - 1 - t if backward else t
                    if t < lengths[j] and advantages[j] != 0 and ids[j, place] == ids[i, at]:
                        sides.add(advantages[j] > 0)
                if len(sides) < 2 or advantages[i] == 0:
                    break
                found[i, at] *= 2.0 if advantages[i] > 0 else 0.0
                hit.add(at)
        count[i] = max(1, len(hit))
        found[i, lengths[i] :] = 0
    return found, count


def test_by_hand():
    # the spec's example: 1, 2 from the start and 9 from the end are shared, 3 and 4 are not
    assert factors([[1, 2, 3, 9], [1, 2, 4, 9]], [1.0, -1.0]) == [[2, 2, 1, 2], [0, 0, 1, 0]]
    assert factors([[1, 2, 3, 9], [1, 2, 4, 9]], [1.0, -1.0], shared_weight=1.0) == [[1, 1, 1, 1], [0, 0, 1, 0]]


def test_a_run_ends_at_its_first_gap_and_counts_from_the_last_scored_token():
    # 5 agrees at place 3 but after a gap; from the end 7, 5 are shared though the lengths differ
    ids, mask = [[1, 2, 5, 7, 0], [1, 3, 5, 8, 7]], [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert factors(ids, [1.0, -1.0], mask) == [[2, 1, 1, 2, 0], [0, 1, 1, 1, 0]]


def test_prompts_of_unequal_length_do_not_shift_the_places():
    ids, mask = [[9, 9, 1, 2, 3], [9, 1, 2, 4, 9]], [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert factors(ids, [1.0, -1.0], mask) == [[0, 0, 2, 2, 1], [0, 0, 0, 1, 0]]


def test_no_conflict_across_groups_nor_with_rows_of_advantage_zero():
    same = [[1, 2], [1, 2]]
    assert factors(same, [1.0, -1.0], groups=[0, 1]) == [[1, 1], [1, 1]]
    assert factors(same, [1.0, 0.0])[0] == [1, 1]
    assert factors(same, [1.0, 2.0]) == [[1, 1], [1, 1]]


@pytest.mark.parametrize("seed", range(4))
def test_lambda_is_the_official_codes_but_for_its_factor_four(seed):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, (6, 7), generator=g)
    lengths = torch.randint(3, 8, (6,), generator=g)
    a = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 1.0])
    mask = torch.arange(7) < lengths[:, None]
    theirs, count = official(ids, lengths.tolist(), a.tolist())
    assert (theirs == 4).any() or seed  # the first case has runs that overlap
    found = torch.tensor(factors(ids.tolist(), a.tolist(), mask.tolist()))
    live = a != 0
    assert torch.equal(found[live], theirs.clamp(max=2)[live])
    shared = conflicts(ids, mask, a, torch.zeros(6).long())
    assert torch.equal(shared.sum(-1).clamp(min=1).float(), count)  # what the official code divides a row by


def test_without_conflicts_and_entropy_price_it_is_grpo():
    logps = (-torch.rand(2, 3)).requires_grad_()
    x = Scored(logps, labels=torch.tensor([[1, 2, 3], [4, 5, 6]]), entropy=torch.rand(2, 3))
    a = torch.tensor([0.3, -0.8])
    ours, theirs = gtpo(x, a, ALONE, gamma=0.0, keep=None), grpo(x, a)
    slopes = [torch.autograd.grad(loss.sum(), logps, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(ours, theirs) and torch.allclose(*slopes)


def test_entropy_price_and_filter():
    logps = torch.zeros(2, 2, requires_grad=True)
    entropy = torch.tensor([[0.2, 0.4], [0.6, 0.8]])  # means 0.3 and 0.7, over and under ln 2
    x = Scored(logps, labels=torch.arange(4).view(2, 2), entropy=entropy)
    a = torch.tensor([1.0, 1.0])
    with noted() as heard:
        loss = gtpo(x, a, ALONE)
    assert torch.allclose(loss, torch.tensor([-0.97, 0.0])) and math.log(2) < 0.7
    assert heard["dropped"] == [0.5] and heard["conflicts"] == [0] and heard["entropy"] == [pytest.approx(0.5)]
    assert (torch.autograd.grad(loss.sum(), logps)[0][1] == 0).all()
    assert torch.allclose(gtpo(x, a, ALONE, keep=lambda h: h <= 0.71), torch.tensor([-0.97, -0.93]))
    assert torch.allclose(gtpo(x, a, ALONE, keep=None, gamma=1.0), torch.tensor([-0.7, -0.3]))


def test_a_spared_token_is_spared_by_the_entropy_term_too():
    logps = torch.zeros(2, 1, requires_grad=True)
    x = Scored(logps, labels=torch.ones(2, 1).long(), entropy=torch.full((2, 1), 0.5))
    (slope,) = torch.autograd.grad(gtpo(x, torch.tensor([1.0, -1.0]), ALONE).sum(), logps)
    assert slope[1] == 0 and slope[0] != 0


def test_shapes_and_missing_labels_are_refused():
    x = Scored(torch.zeros(2, 3), labels=torch.zeros(2, 3).long(), entropy=torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"gtpo: advantages must be of shape \[2\], got \(2, 3\)"):
        gtpo(x, torch.zeros(2, 3), ALONE)
    with pytest.raises(InputError, match=r"gtpo: groups must be of shape \[2\]"):
        gtpo(x, torch.zeros(2), torch.zeros(3).long())
    with pytest.raises(InputError, match="labels"):
        gtpo(Scored(torch.zeros(2, 3), entropy=torch.zeros(2, 3)), torch.zeros(2), ALONE)


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(partial(gtpo, keep=None)))
    assert found > imitated() + 0.15, found
