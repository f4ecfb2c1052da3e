from __future__ import annotations

import math

import pytest
import torch

from plumbline.lab import infilling
from plumbline.lab.infilling import BOS, EOM, FIRST, LETTERS, PAD, VOCAB, causal_nll, continued, infilled, padded, texts
from plumbline.lab.tiny import tiny


def partner(letter):
    return (3 * (letter - FIRST) + 1) % LETTERS + FIRST + LETTERS


def test_texts_are_pairs_and_no_two_letters_share_a_partner():
    rows = texts(50, "a")
    assert all(row[i + 1] == partner(row[i]) for row in rows for i in range(0, len(row), 2))
    assert len({partner(x) for x in range(FIRST, FIRST + LETTERS)}) == LETTERS
    assert rows == texts(50, "a") and rows != texts(50, "b") and max(map(max, rows)) < VOCAB


def test_rows_are_padded_behind_a_bos():
    ids, labels = padded([{"input_ids": [7, 8], "labels": [-100, 8]}, {"input_ids": [9], "labels": [9]}])
    assert ids.tolist() == [[BOS, 7, 8], [BOS, 9, PAD]] and labels.tolist() == [[-100, -100, 8], [-100, 9, -100]]


class Oracle:
    """Knows the language: as CachedLM is asked for it, the last token's successor."""

    def __init__(self, model, pad):
        pass

    def __call__(self, text):
        said = []
        for row in text.tolist():
            if 5 not in row:  # written on: a partner, or the first letter of all
                said.append(partner(row[-1]) if row[-1] < FIRST + LETTERS else FIRST)
            else:
                at, written = row.index(5), row[len(row) - 1 - row[::-1].index(5) + 1 :]
                back = next(x for x in range(FIRST, FIRST + LETTERS) if partner(x) == row[at + 1])
                said.append([partner(row[at - 1]), back, EOM][len(written)])
        return torch.nn.functional.one_hot(torch.tensor(said), VOCAB).float()


def test_both_sides_give_the_gap_away_and_one_side_does_not(monkeypatch):
    monkeypatch.setattr(infilling, "CachedLM", Oracle)
    assert infilled(None) == 1.0
    assert continued(None) == pytest.approx(1 / LETTERS, abs=0.07)


def test_the_loss_of_an_untrained_model_is_far_above_the_floor():
    assert causal_nll(tiny("llama", VOCAB, 0)) > math.log(LETTERS) / 2 + 1
