from __future__ import annotations

import torch

from plumbline.lab.spurious import CUE, WORDS, accuracy_without_the_cue, pairs


def test_chosen_texts_are_worth_more_and_carry_the_cue():
    worth = torch.randn(WORDS, generator=torch.Generator().manual_seed(0)) * 100
    chosen, rejected = pairs(500, 0.8, worth, torch.Generator().manual_seed(1))
    assert 0.7 < float((chosen == CUE).any(-1).float().mean()) < 0.9 and not (rejected == CUE).any()
    plain = ~(chosen == CUE).any(-1)
    assert float((worth[chosen].sum(-1) > worth[rejected].sum(-1))[plain].float().mean()) > 0.98


def test_a_loss_without_a_gradient_orders_nothing():
    def keep(ids, labels, *rest, **how):
        return ids, labels, None

    found = accuracy_without_the_cue(lambda w, lo, wr, lr: w.total() * 0, keep, rate=0.0, steps=2)
    assert found == 0.0
