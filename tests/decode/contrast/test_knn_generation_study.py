"""The study: its tables fit each other, lam 0 changes nothing, and what it cannot take is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import knn_generation_study
from plumbline.decode.contrast.datastore import Datastore
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

MODEL = tiny("gpt2")
TEXTS = torch.randint(3, 100, (6, 24), generator=generator(0, "texts"))
STORE = Datastore.build(MODEL, list(TEXTS[:4]))
HOW = dict(datastore=STORE, k=20, temperature=5.0, new_tokens=12, bins=3)


def test_tables():
    found = knn_generation_study(MODEL, list(TEXTS[4:]), TEXTS[:3, :6], **HOW)
    assert set(found) == {"perplexity", "tokens", "entropy", "slopes", "diversity"}
    total = found["tokens"].iloc[-1]
    assert total.tokens == 46 == found["tokens"].tokens[:-1].sum()
    ratio = found["perplexity"].knn_lm[0] / found["perplexity"].lm[0]
    assert np.log(ratio) == pytest.approx((total.lost - total.gained) / 46)
    by_text = found["entropy"].groupby("text").position.agg(["min", "max"])
    assert by_text.loc["gold"].tolist() == [6, 23] and by_text.loc["lm"].tolist() == [6, 17]
    assert found["slopes"].text.tolist() == ["gold", "lm", "knn_lm"] and len(found["diversity"]) == 2
    again = knn_generation_study(MODEL, list(TEXTS[4:]), TEXTS[:3, :6], **HOW)
    assert all(found[name].equals(again[name]) for name in found)


def test_no_weight_no_change():
    found = knn_generation_study(MODEL, list(TEXTS[4:]), TEXTS[:3, :6], lam=0.0, **HOW)
    assert found["perplexity"].lm[0] == pytest.approx(found["perplexity"].knn_lm[0])
    lm, mixed = (found["entropy"][found["entropy"].text == n] for n in ("lm", "knn_lm"))
    assert np.allclose(lm.entropy_knn, mixed.entropy_knn)


def test_text_inside_the_datastore_flatters_unless_left_out():
    inside = knn_generation_study(MODEL, list(TEXTS[:3]), TEXTS[:3, :6], **HOW)["perplexity"]
    fair = knn_generation_study(MODEL, list(TEXTS[:3]), TEXTS[:3, :6], documents=[0, 1, 2], **HOW)["perplexity"]
    assert inside.knn_lm[0] < 0.5 * fair.knn_lm[0]


def test_refusals():
    for bad in (dict(lam=2.0), dict(new_tokens=0), dict(top_p=0.0), dict(top_p=1.5)):
        with pytest.raises(InputError, match=next(iter(bad))):
            knn_generation_study(MODEL, list(TEXTS), TEXTS[:1, :4], **(HOW | bad))
    with pytest.raises(InputError, match="prompts"):
        knn_generation_study(MODEL, list(TEXTS), TEXTS[0], **HOW)
