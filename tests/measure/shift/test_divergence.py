"""Divergence: means, tails and llama.cpp's rows against numpy on the table; equal models are at zero."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.kernels.records import Records
from plumbline.lab.tables import TableLM, output_table, pair_records, token_table
from plumbline.measure.shift import divergence

A, B = TableLM.random(30, seed=1), TableLM.random(30, seed=2)
IDS = A.sample(np.arange(40) % 30, 25, seed=3)


def test_values_against_numpy(tmp_path):
    records = pair_records(tmp_path, A, B, IDS, source="text")
    found = divergence(records).flat()
    t = records.table("tokens")
    la, lb = t["logp_a"].to_numpy(), t["logp_b"].to_numpy()
    dp = np.exp(lb) - np.exp(la)
    want = {
        "kl_mean": t["kl_ab"].mean(), "kl_reverse_mean": t["kl_ba"].mean(), "js_mean": t["js"].mean(),
        "top1_agreement": (t["argmax_a"] == t["argmax_b"]).mean(), "kl_max": t["kl_ab"].max(),
        "kl_min": t["kl_ab"].min(), "ppl_tuned": np.exp(-lb.mean()), "ppl_base": np.exp(-la.mean()),
        "ln_ppl_ratio": (la - lb).mean(), "ppl_ratio": np.exp((la - lb).mean()),
        "ppl_difference": np.exp(-lb.mean()) - np.exp(-la.mean()), "ln_ppl_correlation": np.corrcoef(la, lb)[0, 1],
        "delta_p_mean": dp.mean(), "delta_p_rms": np.sqrt((dp**2).mean()), "delta_p_max": dp.max(),
        "delta_p_min": dp.min(), "kl_median": np.quantile(t["kl_ab"], 0.5, method="inverted_cdf"),
        "kl_p99": np.quantile(t["kl_ab"], 0.99, method="inverted_cdf"),
        "delta_p_p25": np.quantile(dp, 0.25, method="inverted_cdf"),
    }  # fmt: skip
    for name, value in want.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
    assert found["ppl_tuned"].value > found["ppl_base"].value  # the text is the base's: Q is the tuned one
    low, high = found["kl_p99"].interval
    assert low <= found["kl_p99"].value <= high
    assert set(found) == set(divergence.card.gives)


def test_rows_are_named_as_llama_cpp_names_them(tmp_path):
    titles = {f.title for f in divergence(pair_records(tmp_path, A, B, IDS)).flat().values()}
    assert {
        "Mean PPL(Q)", "Mean PPL(base)", "Cor(ln(PPL(Q)), ln(PPL(base)))", "Mean ln(PPL(Q)/PPL(base))",
        "Mean PPL(Q)/PPL(base)", "Mean PPL(Q)-PPL(base)", "Mean    KLD", "Maximum KLD", "99.9%   KLD", "99.0%   KLD",
        "95.0%   KLD", "90.0%   KLD", "Median  KLD", "10.0%   KLD", " 5.0%   KLD", " 1.0%   KLD", " 0.1%   KLD",
        "Minimum KLD", "Mean    Δp", "Maximum Δp", "75.0%   Δp", "Median  Δp", "Minimum Δp", "RMS Δp", "Same top p",
    } <= titles  # fmt: skip


def test_equal_models_are_at_zero(tmp_path):
    found = divergence(pair_records(tmp_path, A, A, IDS)).flat()
    for name in ("kl_mean", "kl_max", "js_mean", "tv_mean", "delta_p_mean", "ln_ppl_ratio", "ppl_difference"):
        assert found[name].value == pytest.approx(0, abs=1e-12)
    assert found["top1_agreement"].value == 1 and found["ln_ppl_correlation"].value == pytest.approx(1)


def test_a_broken_prompt_is_named(tmp_path):
    la = A.along(IDS)
    lb = la.copy()
    lb[17, 5] = np.sort(la[17, 5])[::-1][np.argsort(np.argsort(la[17, 5]))] * 8  # the order of one row turned round
    lb[17, 5] -= np.log(np.exp(lb[17, 5]).sum())
    outputs = output_table({"a": {"text": ["fine"] * 40}, "b": {"text": ["loop loop"] * 40}})
    from plumbline.lab.tables import item_table

    found = divergence(Records.of(tmp_path, items=item_table(40), tokens=token_table(IDS, la, lb), outputs=outputs))
    assert "p17" in found.sentence and "hides a tail" in found.sentence
    assert found.table[0]["id"] == "p17" and found.table[0]["tuned_output"] == "loop loop"


def test_infinite_positions_are_counted_and_left_out(tmp_path):
    tokens = token_table(IDS, A.along(IDS), B.along(IDS))
    tokens.loc[3, "kl_ab"] = np.inf
    found = divergence(Records.of(tmp_path, tokens=tokens))
    assert np.isfinite(found.value) and "1 positions" in found.warnings[-1] and found.n_items == len(tokens) - 1


def test_reference_text_is_preferred_to_own_responses(tmp_path):
    import pandas as pd

    response = token_table(IDS, A.along(IDS), B.along(IDS))
    text = token_table(IDS, B.along(IDS), A.along(IDS), source="text").assign(item=lambda f: f["item"] + 40)
    found = divergence(Records.of(tmp_path, tokens=pd.concat([response, text], ignore_index=True))).flat()
    assert found["ln_ppl_ratio"].value == pytest.approx((text["logp_a"] - text["logp_b"]).mean())
    assert {row["group"] for row in found["top1_agreement"].table} == {"source response", "source text"}


def test_too_few(tmp_path):
    found = divergence(pair_records(tmp_path, A, B, IDS[:1, :10]))
    assert found.value is None and "20 positions" in found.sentence
