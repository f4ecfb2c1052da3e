from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.short_training import base, row, scored, trained
from transformers.trainer_pt_utils import LabelSmoother

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import label_smoothing, nll


@pytest.fixture
def logits():
    return torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))


IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 0, 1, 2, 3]])
MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])


def test_by_hand():
    # p = (1/2, 1/4, 1/4), label 0, eps 3/10: 0.7 log 2 + 0.1 (1 + 2 + 2) log 2 = 1.2 log 2
    x = Scored.from_logits(torch.tensor([[[0.5, 0.25, 0.25]]]).log(), torch.tensor([[0]]), shift=False)
    assert label_smoothing(x, epsilon=0.3).item() == pytest.approx(1.2 * 0.6931472, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_agrees_with_torch_and_transformers(logits, epsilon):
    found = label_smoothing(Scored.from_logits(logits, IDS, MASK), epsilon=epsilon)
    labels = torch.where(MASK, IDS, -100)
    flat = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], label_smoothing=epsilon, reduction="none")
    assert torch.allclose(found, flat, atol=1e-5)
    mean = LabelSmoother(epsilon=epsilon)({"logits": logits}, labels, shift_labels=True)
    assert float(found.sum() / MASK[:, 1:].sum()) == pytest.approx(float(mean), abs=1e-5)


def test_gradient_is_probability_less_smoothed_label(logits):
    z = logits.double().requires_grad_()
    (slope,) = torch.autograd.grad(label_smoothing(Scored.from_logits(z, IDS, shift=False), epsilon=0.2).sum(), z)
    target = 0.8 * F.one_hot(IDS, 7) + 0.2 / 7
    assert torch.allclose(slope, z.detach().softmax(-1) - target)


def test_the_model_itself_is_scored_as_its_logits_are(tiny_model):
    ids = torch.randint(tiny_model.config.get_text_config().vocab_size, (2, 6))
    with torch.no_grad():
        found = label_smoothing(Scored.of(tiny_model, ids))
        wanted = label_smoothing(Scored.from_logits(tiny_model(ids).logits, ids))
    assert torch.allclose(found, wanted, atol=1e-4)


def test_refusals(logits):
    with pytest.raises(InputError, match="label_smoothing: epsilon must be a number >= 0 and < 1, got 1"):
        label_smoothing(Scored.from_logits(logits, IDS), epsilon=1)
    with pytest.raises(InputError, match="log-probabilities only"):
        label_smoothing(Scored(torch.zeros(1, 1)))


def test_training_is_less_sure_of_what_it_learned():
    lm = base()
    rows = [row(lm, f"Q: colour of box {i}?\nA:", " blue" if i % 2 else " green and red") for i in range(24)]
    before = -scored(lm, rows[16:]).total().sum()
    entropy = {}
    for loss in (label_smoothing, nll):
        x = scored(trained(loss, {"x": rows[:16]}).model, rows[16:], entropy=True)
        assert -x.total().sum() < 0.1 * before
        entropy[loss] = float(x.entropy().sum() / x.mask.sum())
    assert entropy[label_smoothing] > entropy[nll] + 0.5
