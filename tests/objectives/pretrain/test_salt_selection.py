from __future__ import annotations

import statistics

import pytest
import torch
from tests.short_training import row, scored

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import generator
from plumbline.models import load
from plumbline.objectives import salt_selection


def test_by_hand():
    logps = -torch.tensor([[1.0, 2.0, 9.0], [3.0, 1.0, 2.0], [9.0, 9.0, 9.0], [4.0, 0.0, 9.0]])
    inside = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    # medians 1.5, 2, none, 4
    assert salt_selection(logps, inside, keep=4).tolist() == [3, 1, 0, 2]
    assert salt_selection(logps, inside, keep=1).tolist() == [3]


def test_against_a_slow_loop():
    g = generator(0, "test_salt_selection")
    logps, inside = -torch.rand(50, 9, generator=g), torch.rand(50, 9, generator=g) < 0.4
    scores = []
    for values, marks in zip(logps.tolist(), inside.tolist()):
        kept = [-v for v, mark in zip(values, marks) if mark]
        scores.append(statistics.median(kept) if kept else -float("inf"))
    wanted = sorted(range(50), key=lambda n: -scores[n])
    assert salt_selection(logps, inside, keep=50).tolist() == wanted
    assert salt_selection(logps.bfloat16().double(), inside, keep=50).shape == (50,)


def test_ties_keep_their_order_and_forbidden_labels_outside_do_not_count():
    logps = torch.tensor([[-1.0, -torch.inf], [-1.0, -1.0]])
    assert salt_selection(logps, torch.tensor([[True, False], [True, True]]), keep=2).tolist() == [0, 1]


def test_refusals():
    with pytest.raises(InputError, match=r"salt_selection: teacher_logps and in_topk must be both \[N,T\]"):
        salt_selection(torch.zeros(2, 3), torch.ones(2, 4).bool(), keep=1)
    with pytest.raises(InputError, match="salt_selection: keep must be at most 2, the sequences there are, got 3"):
        salt_selection(torch.zeros(2, 3), torch.ones(2, 3).bool(), keep=3)
    with pytest.raises(InputError, match="salt_selection: keep must be a whole number >= 1, got 0"):
        salt_selection(torch.zeros(2, 3), torch.ones(2, 3).bool(), keep=0)


def test_a_real_small_model_leaves_noise_for_last():
    teacher = load("zoo:small")
    g = generator(0, "noise")
    texts = ["3 + 4 = 7. 2 + 2 = 4. 5 + 1 = 6.", "The people of the town live in the house.", "copy: a b c -> a b c"]
    noise = [{"input_ids": torch.randint(7, 1024, (12,), generator=g).tolist()} for _ in range(5)]
    rows = [row(teacher, "", text) for text in texts] + noise
    x = scored(teacher, rows)
    inside = x.mask & (x.logits().topk(10).indices == x.labels[..., None]).any(-1)
    assert set(salt_selection(x.logps, inside, keep=len(rows)).tolist()[:3]) == {0, 1, 2}
