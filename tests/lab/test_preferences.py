from __future__ import annotations

import torch

from plumbline.core.scored import Scored
from plumbline.lab.preferences import answers, judged_optimum, preferred_optimum, quality_and_length, rows, settled


def test_answers_are_normalised_and_rows_keep_the_graph():
    table = torch.tensor([0.0, 1.0, -2.0], requires_grad=True)
    x = answers(table)
    assert x.logps.shape == (3, 1) and abs(float(x.total().detach().exp().sum()) - 1) < 1e-6
    assert rows(x, torch.tensor([2, 0])).total().tolist() == x.total()[[2, 0]].tolist()
    assert torch.autograd.grad(rows(x, torch.tensor([1])).total().sum(), table)[0][1] > 0


def test_settled_finds_a_minimum_and_leaves_its_start():
    start = torch.zeros(3)
    assert torch.allclose(settled(lambda t: (t - 2).square().sum(), start, steps=300), torch.full((3,), 2.0), atol=1e-3)
    assert (start == 0).all()


def test_pairs_weigh_their_frequency_under_bradley_terry():
    rewards, ref = torch.tensor([0.0, 1.0]), torch.zeros(2)

    def agreement(w: Scored, other: Scored, w_ref: Scored, l_ref: Scored) -> torch.Tensor:
        return (w.total() - other.total() - 1).square()  # least squares: the mean of +1 and -1 by their frequency

    found = preferred_optimum(agreement, rewards, ref, steps=400).log()
    assert abs(float(found[1] - found[0]) - float(2 * torch.sigmoid(torch.tensor(1.0)) - 1)) < 1e-3


def test_judged_rows_are_counted_by_weight():
    prompts, found = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])

    def likelihood(x: Scored, x_ref: Scored, desirable: torch.Tensor) -> torch.Tensor:
        assert x_ref.logps.shape == (4, 1) and desirable.all()
        return -x.total()

    weight = torch.tensor([3.0, 1.0, 1.0, 1.0])
    policy = judged_optimum(likelihood, prompts, found, torch.ones(4).bool(), torch.zeros(2, 2), weight=weight).exp()
    assert torch.allclose(policy, torch.tensor([[0.75, 0.25], [0.5, 0.5]]), atol=1e-3)


def test_quality_and_length_start_where_the_docstring_says():
    quality, length = quality_and_length(lambda w, *_: 0.0 * w.total(), steps=1)
    assert abs(quality - 0.5) < 1e-6 and 9.9 < length < 10.1
    assert quality_and_length(lambda w, *_: -w.mean(), steps=20)[0] > 0.5  # chosen answers hold more good words
