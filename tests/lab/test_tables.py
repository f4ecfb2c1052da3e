"""Table models and their records: the identities every TokenComparison obeys."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.lab.tables import TableLM, log_normalised, token_columns, token_table

RNG = np.random.default_rng(0)
LA, LB = (log_normalised(np.log(RNG.dirichlet(np.full(50, 0.3), 200) + 1e-9)) for _ in range(2))
Y = RNG.integers(0, 50, 200)


def test_identities():
    t = token_columns(LA, LB, Y)
    assert (t["kl_ab"] >= 0).all() and (t["kl_ba"] >= 0).all() and (t["js"] <= np.log(2)).all()
    assert (t["tv"] <= np.sqrt(t["kl_ab"] / 2) + 1e-12).all()  # Pinsker
    back = token_columns(LB, LA, Y)
    assert np.allclose(t["js"], back["js"]) and np.array_equal(t["rank_a"], back["rank_b"])
    assert np.array_equal(t["rank_a_of_argmax_b"], back["rank_b_of_argmax_a"])
    i = 3
    assert t["rank_a"][i] == 1 + sum(LA[i, v] > LA[i, Y[i]] for v in range(50))
    assert t["kl_ab"][i] == pytest.approx(sum(np.exp(LA[i, v]) * (LA[i, v] - LB[i, v]) for v in range(50)))
    assert t["ent_a"][i] == pytest.approx(-sum(np.exp(LA[i]) * LA[i]))
    assert t["overlap_5"][i] == len(set(np.argsort(-LA[i])[:5]) & set(np.argsort(-LB[i])[:5]))


def test_equal_models_and_forbidden_tokens():
    same = token_columns(LA, LA, Y)
    assert np.abs(same["kl_ab"]).max() == 0 and (same["overlap_10"] == 10).all()
    half = log_normalised([[0.0, 0.0, -np.inf]])
    t = token_columns(half, log_normalised([[0.0, 0.0, 0.0]]), [0])
    assert t["kl_ab"][0] == pytest.approx(np.log(1.5)) and t["ent_a"][0] == pytest.approx(np.log(2))


def test_sequences_and_stationarity():
    m = TableLM.random(6, seed=1)
    ids = m.sample([0, 1, 2], 5, seed=3)
    t = token_table(ids, m.along(ids), m.along(ids))
    by_hand = sum(m.logps[a, b] for a, b in zip(ids[1][:-1], ids[1][1:], strict=True))
    assert t[t["item"] == 1]["logp_a"].sum() == pytest.approx(by_hand)
    pi = m.stationary()
    assert np.allclose(pi @ np.exp(m.logps), pi) and pi.sum() == pytest.approx(1)
    long = m.sample(np.zeros(200, int), 400, seed=4)
    assert m.entropies()[long].mean() == pytest.approx(m.entropy_rate(), abs=0.01)
    assert (m.greedy([0], 3)[0][1:] == [m.logps[i].argmax() for i in m.greedy([0], 3)[0][:-1]]).all()
    with pytest.raises(InputError, match="square table"):
        TableLM(np.zeros((2, 3)))
