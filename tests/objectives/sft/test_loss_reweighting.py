from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import loss_reweighting, nll
from plumbline.objectives.sft.strategies import extremes, linupper, quadratic, uniform

LOSSES = torch.tensor([1.0, 2.0, 3.0, 5.0])


def rows_of(losses, lengths=None):
    lengths = [1] * len(losses) if lengths is None else lengths
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Scored(-losses[:, None].expand_as(mask), mask)


def weights(strategy, losses=LOSSES, **how):
    """w_i, read off the rows."""
    return loss_reweighting(rows_of(losses), strategy=strategy, **how) / losses / len(losses)


@pytest.mark.parametrize(
    ("strategy", "scores"),
    [
        (linupper, [0, 0.5, 1, 1]), (quadratic, [0, 0.75, 1, 0]), (extremes, [1, 0.5, 0, 1]), (uniform, [0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_by_hand(strategy, scores):
    # places of the losses 1, 2, 3, 5 are -1, -1/2, 0, 1
    raised = [math.exp(s / 0.5) for s in scores]
    assert weights(strategy, temperature=0.5).tolist() == pytest.approx([r / sum(raised) for r in raised], rel=1e-5)


@pytest.mark.parametrize("strategy", [linupper, quadratic, extremes, uniform])
def test_weights_sum_to_one_and_do_not_mind_units(strategy):
    w = weights(strategy)
    assert float(w.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(weights(strategy, 3 * LOSSES + 7), w, atol=1e-6)


def test_limits():
    assert torch.allclose(weights(linupper, temperature=1e7), torch.full((4,), 0.25), atol=1e-6)
    assert torch.allclose(weights(linupper, torch.full((4,), 2.0)), torch.full((4,), 0.25))
    w = weights(linupper, torch.tensor([1.0, 2.0, 7.0, 8.0, 11.0]))
    assert w[2] == w[3] == w[4] == w.max() and w[1] > w[0]


def test_burn_in_counts_all_alike():
    x = rows_of(LOSSES)
    assert torch.allclose(loss_reweighting(x, 999), LOSSES)
    assert torch.equal(loss_reweighting(x, 1000), loss_reweighting(x)) and not torch.allclose(
        loss_reweighting(x), LOSSES
    )


def test_weights_carry_no_gradient():
    losses = LOSSES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss_reweighting(rows_of(losses)).mean(), losses)
    assert torch.allclose(slope, weights(linupper))


def test_length_weight_makes_the_uniform_loss_a_token_mean():
    x = rows_of(LOSSES, lengths=(1, 2, 3, 4))
    token_mean = (LOSSES * torch.tensor([1, 2, 3, 4])).sum() / 10
    assert float(loss_reweighting(x, strategy=uniform, length_weight=True).mean()) == pytest.approx(float(token_mean))
    assert float(loss_reweighting(x, strategy=uniform).mean()) == pytest.approx(float(LOSSES.mean()))


def test_a_row_that_is_not_finite_or_not_scored_spoils_nothing():
    losses = torch.cat([LOSSES, torch.tensor([math.nan, 9.0])]).requires_grad_()
    mask = torch.ones(6, 1, dtype=torch.bool)
    mask[5] = False
    with noted() as notes:
        found = loss_reweighting(Scored(-losses[:, None], mask))
    assert torch.allclose(found[:4] / 6, loss_reweighting(rows_of(LOSSES)) / 4) and found[4:].tolist() == [0, 0]
    (slope,) = torch.autograd.grad(found.sum(), losses)
    assert torch.isfinite(slope).all() and notes["rows_left_out"] == [2]
    assert notes["effective_rows"][0] == pytest.approx(1 / float((weights(linupper) ** 2).sum()), rel=1e-5)


def test_processes_share_their_statistics(monkeypatch):
    """Two processes of 4 rows: each scores its own against all 8, and the mean of the two is the weighted loss of 8."""
    from plumbline.objectives.sft import _loss_reweighting as module

    all_losses = torch.tensor([1.0, 2.0, 3.0, 5.0, 8.0, 0.5, 4.0, 4.0])
    whole = loss_reweighting(rows_of(all_losses))
    parts = []
    for mine in (all_losses[:4], all_losses[4:]):
        given = iter([all_losses, torch.ones(8, dtype=torch.long)])
        monkeypatch.setattr(module, "everywhere", lambda x, given=given: next(given))
        parts.append(loss_reweighting(rows_of(mine)))
    assert torch.allclose(torch.cat(parts), whole)


def test_refusals():
    x = rows_of(LOSSES[:3])
    with pytest.raises(InputError, match="loss_reweighting: x must be of at least 4 rows over all processes, got 3"):
        loss_reweighting(x)
    assert loss_reweighting(x, fewest=1).shape == (3,)
    with pytest.raises(InputError, match="loss_reweighting: temperature must be a number > 0, got 0"):
        loss_reweighting(x, temperature=0)


def test_training_learns_the_rare_row_sooner():
    lm = base()
    rare = [row(lm, "Q: who sings?\nA:", " Zoe Quill 7")]
    rows = [row(lm, f"Q: colour of box {i}?\nA:", " blue") for i in range(15)] + rare
    left = {}
    for loss in (partial(loss_reweighting, strategy=f, burn_in=0, temperature=0.5) for f in (linupper, uniform)):
        model = trained(loss, {"x": rows}, batch_size=16, lr=3e-4).model
        left[loss.keywords["strategy"]] = float(-scored(model, rare).mean())
    model = trained(nll, {"x": rows}, batch_size=16, lr=3e-4).model
    left[nll] = float(-scored(model, rare).mean())
    assert left[linupper] < 0.5 * left[uniform] and left[linupper] < left[nll], left


def test_burn_in_ends_in_the_trainer():
    lm = base()
    rows = [row(lm, f"Q: colour of box {i}?\nA:", " blue") for i in range(8)]
    log = trained(partial(loss_reweighting, burn_in=1), {"x": rows}, steps=2).history
    rows_that_count = [entry["effective_rows"] for entry in log if "effective_rows" in entry]
    assert rows_that_count[0] == pytest.approx(8, rel=1e-3) and rows_that_count[1] < 7.9
