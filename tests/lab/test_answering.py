from __future__ import annotations

import pytest
import torch

from plumbline.lab.answering import Answering, Style

STYLES = (Style("{}!"), Style("maybe {}", ended=False))


def test_where_it_starts():
    task = Answering.arithmetic(STYLES, (0.25, 0.75), (0.5, 0.1), questions=6)
    told = task.measured(task)
    assert told["accuracy"] == pytest.approx(0.25 * 0.5 + 0.75 * 0.1) and told["kl"] == 0
    assert told["style"] == pytest.approx(0.25) and task.text(1, 7) == "maybe 7"


def test_the_kl_is_that_of_the_joint_distribution():
    task = Answering.arithmetic(STYLES, (0.25, 0.75), (0.5, 0.1), questions=2)
    other = Answering(task.rows, task.styles, task.answers, task.style + torch.tensor([1.0, 0.0]), 2 * task.content)
    joint = [(t.style.log_softmax(0)[:, None] + t.content.log_softmax(-1)).flatten(1) for t in (other, task)]
    wanted = (joint[0].exp() * (joint[0] - joint[1])).sum(-1).mean()
    assert other.measured(task)["kl"] == pytest.approx(float(wanted), rel=1e-5)


def test_a_reward_is_learned_and_a_constant_one_moves_nothing():
    task = Answering.arithmetic(STYLES, (0.5, 0.5), (0.3, 0.3))
    paid = task.reinforced(lambda text, row, ended: float(ended and text == row["answer"] + "!"), steps=60, lr=0.3)
    assert paid.path[-1]["accuracy"] > 0.9 and paid.path[-1]["style"] > 0.9 and len(paid.path) == 61
    assert torch.equal(task.reinforced(lambda text, row, ended: 1.0, steps=5).content, task.content)
