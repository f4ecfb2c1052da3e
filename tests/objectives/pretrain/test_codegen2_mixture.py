from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from tests import short_training as short

from plumbline.core.errors import InputError
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.objectives import codegen2_mixture, nll
from plumbline.objectives.pretrain.noising import padding_tokens
from plumbline.objectives.pretrain.spans import uncorrupt
from plumbline.worlds.corpus import prose

FORMAT = {"mask_ids": [90, 91, 92, 93, 94, 95], "sep_id": 80, "eom_id": 81, "eos_id": 2}
mixed = partial(codegen2_mixture, **FORMAT)


def texts(n, longest=60):
    g = generator(0, "texts")
    return [
        torch.randint(3, 80, (int(torch.randint(1, longest, (), generator=g)),), generator=g).tolist() for _ in range(n)
    ]


def test_a_thousand_rows_come_back():
    rows = texts(1000)
    made = mixed(rows, causal=0.0, generator=generator(1))
    special = {*FORMAT["mask_ids"], 80, 81}
    for row, new in zip(rows, made, strict=True):
        ids = new["input_ids"]
        assert uncorrupt(ids, **FORMAT) == row and new["labels"] == ids
        assert new["kind"] == ("infill" if len(row) >= 8 else "causal")
        masks = sum(i in FORMAT["mask_ids"] for i in ids)
        assert len(ids) == len(row) + (masks // 2 * 3 + 2 if masks else 0)
        assert Counter(i for i in ids if i not in special | {2}) == Counter(row)


def test_the_hidden_share_and_the_spans_lengths_are_as_asked_for():
    rows = [list(range(10, 70))] * 500
    made = mixed(rows, causal=0.0, ratio=(0.2, 0.4), span=(3.0, 3.0), generator=generator(2))
    shares, lengths = [], []
    for row in made:
        target = row["input_ids"][row["input_ids"].index(80) + 1 :]
        spans = target.count(81)
        hidden = len(target) - 2 * spans
        shares.append(hidden / 60)
        lengths.append(hidden / spans)
    assert min(shares) >= 0.19 and max(shares) <= 0.41
    assert sum(shares) / 500 == pytest.approx(0.3, abs=0.01) and min(lengths) > 2.4
    assert max(row["input_ids"].count(81) for row in made) <= 6  # one mask each


def test_the_share_of_causal_rows():
    rows = [list(range(10, 40))] * 2000
    with noted() as heard:
        made = mixed(rows, causal=0.7, generator=generator(3))
    causal = sum(row["kind"] == "causal" for row in made)
    assert causal == pytest.approx(1400, abs=4 * (2000 * 0.21) ** 0.5) and heard["infill_rows"] == [2000 - causal]


def test_only_causal_rows_are_the_text():
    rows = texts(50)
    for row, new in zip(rows, mixed(rows, causal=1.0), strict=True):
        assert new == {"input_ids": row, "labels": row, "kind": "causal"}


def test_loss_on_the_target_alone():
    (row,) = mixed([list(range(10, 40))], causal=0.0, target_only=True, generator=generator(4))
    at = row["input_ids"].index(80) + 1
    assert row["labels"] == [IGNORED] * at + row["input_ids"][at:]
    (plain,) = mixed([list(range(10, 40))], causal=1.0, target_only=True)
    assert plain["labels"] == plain["input_ids"]


def test_no_span_leaves_its_document():
    documents = [list(range(10, 20)), list(range(20, 35)), list(range(35, 50))]
    packed = [i for d in documents for i in (*d, 2)]
    for row in mixed([packed] * 200, causal=0.0, generator=generator(5)):
        assert uncorrupt(row["input_ids"], **FORMAT) == packed
        target = row["input_ids"][row["input_ids"].index(80) + 1 :]
        assert 2 not in target


def test_tensors_and_a_tokenizer_will_do():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("def area(width, height):\n    return width * height\n", return_tensors="pt").input_ids[0]
    ids = torch.cat([ids, torch.tensor([tokenizer.eos_token_id])])
    told = {"mask_ids": [400, 401], "sep_id": 402, "eom_id": 403, "eos_id": tokenizer.eos_token_id}
    (row,) = codegen2_mixture([ids], causal=0.0, generator=generator(6), **told)
    assert row["kind"] == "infill" and uncorrupt(row["input_ids"], **told) == ids.tolist()


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="mask_ids must be one or more ids, all different from sep, eom and eos"):
        codegen2_mixture([[1] * 9], **(FORMAT | {"mask_ids": [80]}))
    with pytest.raises(InputError, match=r"rows must be text without mask, separator or eom ids, got \[81, 90\]"):
        mixed([[5, 90, 81, *range(20)]])
    with pytest.raises(InputError, match=r"ratio must be \(lowest, highest\) above 0, got \(0.5, 0.1\)"):
        mixed([[1] * 9], ratio=(0.5, 0.1))
    with pytest.raises(InputError, match="causal must be a number >= 0 and <= 1, got 2"):
        mixed([[1] * 9], causal=2)


def test_zoo_base_learns_to_fill_in():
    """After 20 steps hidden spans are likelier after the mixture than after causal rows alone."""
    lm = short.base()
    special = padding_tokens(lm.model, lm.tokenizer, 6)
    told = {"mask_ids": special[:4], "sep_id": special[4], "eom_id": special[5], "eos_id": lm.tokenizer.eos_token_id}
    state = {k: v.clone() for k, v in lm.model.state_dict().items()}
    rows = [lm.tokenizer(d.text, add_special_tokens=False).input_ids for d in prose(1, 96)]
    held_out = codegen2_mixture(rows[:16], causal=0.0, target_only=True, generator=generator(7), **told)
    found = {}
    for share in (0.5, 1.0):
        lm.model.load_state_dict(state)
        data = codegen2_mixture(rows[16:], causal=share, generator=generator(8), **told)
        data = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in data]
        x = short.scored(short.trained(nll, {"x": data}, lm=lm).model, held_out)
        found[share] = x.logps.sum().item() / x.mask.sum().item()

    assert found[0.5] > found[1.0] + 0.5
