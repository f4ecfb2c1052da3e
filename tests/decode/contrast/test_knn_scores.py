"""Scores of texts against a pass over each alone; frequency bins, slopes and diversity by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from plumbline.decode.contrast.datastore import Datastore, KeySite
from plumbline.decode.contrast.knn_scores import by_frequency, by_position, diversity, slopes, token_scores
from plumbline.kernels.hooks import capture
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny


def texts(*lengths):
    g = generator(0, "texts")
    return [torch.randint(3, 100, (n,), generator=g) for n in lengths]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_scores_of_a_batch_are_those_of_each_text_alone(architecture):
    model, rows = tiny(architecture), texts(12, 5, 9)
    store = Datastore.build(model, rows)
    table = token_scores(model, rows, store, lam=0.3, k=15, temperature=4.0, documents=[0, -1, 2], token_budget=24)
    assert table.groupby("text").size().tolist() == [11, 4, 8]
    for text, row in enumerate(rows):
        with capture(model, [KeySite()]) as found, torch.no_grad():
            logits = model(row[None]).logits[0]
        own, mine = logits.log_softmax(-1), table[table.text == text]
        apart = torch.full((len(row) - 1,), [0, -1, 2][text])
        retrieved = store.retrieve(found[KeySite()][0, :-1], 15, 4.0, exclude=apart)
        at = torch.arange(len(row) - 1)
        lm, knn = own[at, row[1:]], retrieved[at, row[1:]]
        assert mine.position.tolist() == list(range(1, len(row))) and mine.token.tolist() == row[1:].tolist()
        assert np.allclose(mine.lm, lm, atol=1e-4) and np.allclose(np.exp(mine.knn), knn.exp(), atol=1e-4)
        assert np.allclose(np.exp(mine.mixed), 0.7 * lm.exp() + 0.3 * knn.exp(), atol=1e-4)
        p = retrieved.exp()
        wanted = -(p * retrieved.masked_fill(p == 0, 0)).sum(-1)
        assert np.allclose(mine.entropy_knn, wanted, atol=1e-3)
    assert (table[table.text == 1].knn > -0.5).all()  # its own text lies in the store


def test_tables_by_hand():
    scores = pd.DataFrame({"token": [0, 1, 2, 2], "lm": [-1.0, -1.0, -2.0, -1.0], "mixed": [-2.0, -0.5, -1.0, -1.5]})
    table = by_frequency(scores, np.array([1, 5, 9]), 2)
    assert table.tokens.tolist() == [1, 3, 4] and table.least.tolist() == [1, 5, 1] and table.most.tolist() == [1, 9, 9]
    assert np.allclose(table.improved, [0, 2 / 3, 0.5]) and np.allclose(table.gained, [0, 1.5, 1.5])
    assert np.allclose(table.lost, [1, 0.5, 1.5])
    assert len(by_frequency(scores, np.array([4, 4, 4]), 5)) == 2
    curves = by_position(
        pd.DataFrame({"position": [1, 1, 2, 2], "entropy_lm": [0, 2, 1, 1.0], "entropy_knn": [1, 1, 2, 4.0]})
    )
    assert curves.entropy_knn.tolist() == [1, 3]
    assert slopes(curves) == pytest.approx({"entropy_lm": 0.0, "entropy_knn": 2.0})
    found = diversity(torch.tensor([[1, 2, 1, 2, 1]]))
    assert found == pytest.approx({"distinct_2": 2 / 4, "distinct_3": 2 / 3, "distinct_4": 1.0, "diversity": 1 / 3})
