from __future__ import annotations

import torch

from plumbline.core.scored import Scored
from plumbline.lab.entangled import letter_pairs, no_over_never, one_step, random_pairs, response_states
from plumbline.lab.tiny import tiny
from plumbline.models import load


def test_letters_differ_late_or_throughout():
    tokenizer = load("zoo:base").tokenizer
    late, early = (letter_pairs(tokenizer, 5, late=late) for late in (True, False))
    assert late["chosen"] == early["chosen"]
    for won, lost in zip(late["chosen"], late["rejected"], strict=True):
        same = [a == b for a, b in zip(won["input_ids"], lost["input_ids"], strict=True)]
        assert same.count(False) == 1 and not same[-1]
    for won, lost in zip(early["chosen"], early["rejected"], strict=True):
        assert sum(a != b for a, b in zip(won["input_ids"], lost["input_ids"], strict=True)) > 12


def test_a_step_is_a_step_and_is_taken_back():
    model, pairs = tiny("llama"), random_pairs(1)
    before = [p.detach().clone() for p in model.parameters()]
    up, down = one_step(model, pairs, 0, lambda won, lost: lost.total() - won.total(), lr=1e-3)
    assert up > 0 > down
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_response_states_begin_alike_and_equal_answers_do_not_fall():
    won, lost, falls = response_states(shared=True, pairs=20)
    assert torch.equal(won[:, 0], lost[:, 0]) and not torch.equal(won[:, 1], lost[:, 1])
    assert falls.shape == (20,) and bool((falls < 0).any())


def test_no_over_never_begins_as_it_says():
    before, after, pairs = no_over_never(lambda w, r, w_ref, r_ref: r.total() - w.total(), alike=True, steps=1)
    view = Scored.of(before, torch.tensor([pairs["chosen"][0]["input_ids"]]))
    assert torch.allclose(view.logits()[0, 0], torch.tensor([0.0, 1.9, 2.1, -2.0]), atol=1e-4)
    assert torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight)
    rows = no_over_never(lambda *views: views[1].total(), alike=False, steps=1)[0].get_output_embeddings().weight[1:]
    assert torch.allclose(rows @ rows.T, torch.eye(3) * (rows[0] @ rows[0]), atol=1e-5)
