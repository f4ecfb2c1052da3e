from __future__ import annotations

import torch

from plumbline.lab.categories import Catalog, correlated_keys, word_tokenizer


def test_one_token_a_word():
    tokenizer = word_tokenizer(["a", "b;"])
    assert tokenizer("b; a").input_ids == [4, 3] and tokenizer.decode([4]) == "b;"


def test_the_query_loses_what_was_named():
    lm, right = correlated_keys()
    before, after = (lm.model(torch.tensor([row]))[0] for row in ([3], [3, 4]))
    best = lm.tokenizer.decode([int(before.argmax())])
    assert best == "k0.0" and best in right and before[5] > before[10]  # a look-alike before another right answer
    assert after[5] < after[10]


def test_a_catalog_names_members(capsys):
    catalog = Catalog(0, categories=3, items=14, steps=40)
    assert len(catalog.members) == 3 and all(len(set(m)) == 10 for m in catalog.members.values())
    assert catalog.listed(["a"]) == " ; a ;" and not catalog.lm.model.training
