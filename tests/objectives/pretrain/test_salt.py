from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.models import load
from plumbline.objectives import nll, salt
from plumbline.objectives.pretrain.teacher_schedules import constant, linear, step

IDS = torch.tensor([[0, 1]])


class Untouchable:
    """A teacher that must not run."""

    def __getattr__(self, name):
        raise RuntimeError(f"the teacher was asked for {name}")


def of(scores):
    return Scored.from_logits(scores, IDS, torch.tensor([[1, 0]]), shift=False)


def test_by_hand():
    # student (1/2, 1/2); teacher's logits log 3 apart, at temperature 1/2 that is 9:1
    student = of(torch.zeros(1, 2, 2))
    teacher = of(torch.tensor([[[math.log(3), 0.0], [5.0, 1.0]]]))
    kl = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    found = salt(student, teacher, weight=0.25, teacher_temperature=0.5)
    assert found[0, 0].item() == pytest.approx(0.75 * math.log(2) + 0.25 * kl, abs=1e-6) and found[0, 1] == 0


def test_the_gradient_is_that_of_cross_entropy_to_the_teacher():
    g = generator(0, "test_salt")
    scores, theirs = torch.randn(2, 1, 2, 7, generator=g, dtype=torch.float64).unbind()
    scores.requires_grad_(), theirs.requires_grad_()
    loss = salt(of(scores), of(theirs), weight=1.0, teacher_temperature=0.7)
    (found,) = torch.autograd.grad(loss.sum(), scores, retain_graph=True)
    soft = (theirs[0, 0].detach() / 0.7).softmax(-1)
    (wanted,) = torch.autograd.grad(-(soft * scores[0, 0].log_softmax(-1)).sum(), scores)
    assert torch.allclose(found, wanted, atol=1e-6)
    entropy = -(soft * soft.log()).sum()
    cross = -(soft * scores[0, 0].detach().log_softmax(-1)).sum()
    assert loss[0, 0].item() == pytest.approx((cross - entropy).item(), abs=1e-6)
    assert torch.autograd.grad(loss.sum(), theirs, allow_unused=True)[0] is None


def test_without_weight_or_after_the_stage_it_is_likelihood_and_the_teacher_is_left_alone():
    x = of(torch.randn(1, 2, 7, generator=generator(0, "x")))
    for told in (dict(weight=0.0), dict(progress=0.17), dict(progress=0.5), dict(progress=0.9, schedule=linear(0.9))):
        assert torch.equal(salt(x, Untouchable(), **told), nll(x))
    with pytest.raises(RuntimeError, match="the teacher was asked"):
        salt(x, Untouchable(), 0.169)


def test_schedules():
    assert [step(0.5)(p) for p in (0.0, 0.49, 0.5, 0.9)] == [1, 1, 0, 0]
    assert [linear(0.5)(p) for p in (0.0, 0.25, 0.5, 0.9)] == [1, 0.5, 0, 0]
    assert constant(0.99) == 1
    x = of(torch.zeros(1, 2, 7))
    with noted() as notes:
        salt(x, x, 0.25, schedule=linear(0.5), weight=0.8)
    assert notes["teacher_weight"] == [0.4]


def test_refusals():
    x = of(torch.zeros(1, 2, 7))
    with pytest.raises(InputError, match=r"salt: schedule must be a function into \[0, 1\], got 2 at 0.1"):
        salt(x, x, 0.1, schedule=lambda progress: 2)
    with pytest.raises(InputError, match=r"step: end must be a share of the run in \(0, 1\], got 1.7"):
        step(1.7)
    with pytest.raises(InputError, match="salt: weight must be a number >= 0 and <= 1, got 1.1"):
        salt(x, x, weight=1.1)


def test_short_training_brings_the_student_nearer_to_its_teacher_than_likelihood_does():
    lm, teacher = base(), load("zoo:small")
    rows = [row(lm, f"{name} lives in", f" the house of {other}.") for name, other in zip("ABCDEFGH", "HGFEDCBA")]
    soft = scored(teacher, rows)

    def distance(loss, **teaching):
        x = scored(trained(loss, {"x": rows}, **teaching).model, rows)
        return float((x.kl_from(soft).sum() / x.mask.sum()).detach())

    taught = partial(salt, teacher_temperature=1.0, schedule=step(0.5))
    assert distance(taught, teacher=teacher) < distance(nll)
