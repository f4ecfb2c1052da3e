from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.lab.tiny import tiny


def test_from_logits_shifts_once_and_masks_by_where():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]]))
    scored = Scored.from_logits(logits, torch.tensor([[0, 1, 0]]), torch.tensor([[1, 1, 1]]))
    assert torch.allclose(scored.logps, torch.log(torch.tensor([[0.5, 0.25]])))
    padded = Scored(torch.tensor([[-1.0, -torch.inf]]), torch.tensor([[True, False]]))
    assert padded.total().item() == -1.0 and padded.mean().item() == -1.0


def test_of_equals_the_full_logits_path_with_gradients():
    model = tiny("llama", vocab=37)
    ids = torch.tensor([[3, 4, 5, 6, 7], [3, 9, 8, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ours = Scored.of(model, ids, mask)
    full = Scored.from_logits(model(ids, attention_mask=mask).logits, ids, mask)
    assert torch.equal(ours.mask, full.mask) and torch.allclose(ours.logps, full.logps, atol=1e-5)
    weight = model.get_output_embeddings().weight
    for got, wanted in zip(
        *(torch.autograd.grad(s.total().sum(), [weight, model.model.norm.weight]) for s in (ours, full)), strict=True
    ):
        assert torch.allclose(got, wanted, atol=1e-5)
    p = full.logits().softmax(-1)
    entropy = torch.where(full.mask, -(p * p.log()).sum(-1), 0.0)
    assert torch.allclose(ours.entropy(), entropy, atol=1e-5)
    kept = full.mask
    assert torch.allclose(ours.logits()[kept], full.logits()[kept], atol=1e-5) and ours.hidden().shape == (2, 4, 32)


def test_refusals():
    with pytest.raises(InputError, match=r"Scored: mask must be of shape \(1, 2\)"):
        Scored(torch.zeros(1, 2), torch.ones(1, 3))
    with pytest.raises(InputError, match=r"shape \[B,T\]"):
        Scored(torch.zeros(3))
    with pytest.raises(InputError, match="entropy"):
        Scored(torch.zeros(1, 2)).entropy()
