from __future__ import annotations

from collections import Counter

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.drafts import Candidates
from plumbline.decode.loop import Report
from plumbline.decode.speculate import token_recycling
from plumbline.decode.speculate._token_recycling import _shape
from plumbline.lab.tiny import tiny


def test_the_shape_is_the_published_tree() -> None:
    shape = _shape()
    assert len(shape) == len(set(shape)) == 80
    assert Counter(map(len, shape)) == {1: 8, 2: 21, 3: 25, 4: 15, 5: 8, 6: 3}
    assert all(path[:-1] in shape[:i] for i, path in enumerate(shape) if len(path) > 1)  # parents first, at any size
    assert shape[:3] == ((0,), (0, 0), (0, 0, 0))


def test_after_one_pass_the_table_holds_the_models_own_candidates() -> None:
    model, table = tiny("llama"), Candidates(101, 4)
    model.generate(torch.tensor([[5, 6, 7]]), custom_generate=token_recycling, candidates=table, adapt=False,
                   max_new_tokens=1, do_sample=False, pad_token_id=0)  # fmt: skip
    with torch.no_grad():
        want = model(torch.tensor([[5, 6, 7]])).logits[0, -1].topk(4).indices
    assert table.table[7].tolist() == want.tolist() and int((table.table >= 0).any(1).sum()) == 1


def test_a_table_kept_from_call_to_call_saves_passes() -> None:
    model, table, calls = tiny("llama", vocab=400, seed=4), Candidates(400), []
    for _ in range(2):
        told = Report()
        model.generate(torch.tensor([[5, 6, 7]]), custom_generate=token_recycling, candidates=table, adapt=False,
                       report=told, max_new_tokens=24, do_sample=False, pad_token_id=0)  # fmt: skip
        calls.append(told.calls)
    assert calls[1] < calls[0] <= 25


def test_refuses_the_table_of_another_vocabulary() -> None:
    with pytest.raises(InputError, match="token_recycling: candidates must be a table of 101 tokens, got 64"):
        tiny("llama").generate(torch.tensor([[5]]), custom_generate=token_recycling, candidates=Candidates(64),
                               max_new_tokens=4)  # fmt: skip
