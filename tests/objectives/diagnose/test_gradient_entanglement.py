from __future__ import annotations

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from plumbline.core.errors import InputError
from plumbline.core.finding import Finding
from plumbline.core.scored import Scored
from plumbline.lab.entangled import random_pairs
from plumbline.lab.tiny import tiny
from plumbline.objectives.diagnose import gradient_entanglement
from plumbline.objectives.diagnose.entangled_gradients import foretold, sketched
from plumbline.objectives.diagnose.pairs import slopes
from plumbline.objectives.preference import dpo, kto, orpo, simpo


@pytest.fixture(scope="module")
def model():
    return tiny("gpt2").double()


def test_two_gradients_by_hand():
    # |g_w|^2 = 4, |g_l|^2 = 9, inner product 5: at equal slopes the chosen one falls by 1 and the rejected one by 4
    row = foretold(0, torch.tensor([2.0, 0.0]), torch.tensor([2.5, 2.75**0.5]), 1.0, 1.0)
    assert row["inner"] == 5 and row["norm_chosen"] == 2 and row["norm_rejected"] == pytest.approx(3)
    assert row["chosen_change"] == -1 and row["rejected_change"] == pytest.approx(-4) and row["verdict"] == "both fall"
    assert row["cosine"] == pytest.approx(5 / 6)
    # a loss that pulls the chosen one up twice as hard: 2 * 4 - 5 = 3 and 2 * 5 - 9 = 1
    row = foretold(0, torch.tensor([2.0, 0.0]), torch.tensor([2.5, 2.75**0.5]), 2.0, 1.0)
    assert row["verdict"] == "both rise" and row["rejected_change"] == pytest.approx(1)


def test_orthogonal_gradients_move_as_wished():
    row = foretold(0, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5, 0.5)
    assert row["verdict"] == "as wished" and row["chosen_change"] == 0.5 == -row["rejected_change"]


def test_the_verdict_is_the_papers_condition():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        w, r = torch.randn(2, 3, generator=g)
        d_w, d_l = (torch.rand(2, generator=g) + 0.1).tolist()
        wished = float(w @ r) < min(d_w / d_l * float(w @ w), d_l / d_w * float(r @ r))
        assert (foretold(0, w, r, d_w, d_l)["verdict"] == "as wished") == wished


def test_slopes_by_hand():
    w, r = Scored(torch.tensor([[-1.0, -2.0]])), Scored(torch.tensor([[-2.0, -0.5, -1.0]]))
    zero = torch.sigmoid(torch.tensor(-0.1 * (-3.0 + 3.5))).item()  # of the margin 0.5 against a reference of zeros
    none = Scored(torch.zeros(1, 2)), Scored(torch.zeros(1, 3))
    d_w, d_l = slopes(dpo, w, r, *none)
    assert d_w.item() == pytest.approx(0.1 * zero) and d_l.item() == pytest.approx(0.1 * zero)
    inside = torch.sigmoid(torch.tensor(-(2.0 * (-1.5 + 3.5 / 3) - 1.0))).item()
    d_w, d_l = slopes(simpo, w, r, *none)  # 1/length is in the slopes
    assert d_w.item() == pytest.approx(2 * inside / 2) and d_l.item() == pytest.approx(2 * inside / 3)
    d_w, d_l = slopes(partial(dpo, beta=0.2), w, r, w, r)
    assert d_w.item() == pytest.approx(0.1)
    d_w, d_l = slopes(lambda chosen: -chosen.total(), w, r, *none)
    assert d_w.item() == 1 and d_l.item() == 0
    d_w, d_l = slopes(orpo, w, r, *none)
    assert d_w.item() > 0.5 > d_l.item() > 0  # likelihood of the chosen one, and a little against the other


def test_gradients_are_those_of_the_models_log_probabilities(model):
    pairs = random_pairs(2)
    finding = gradient_entanglement(model, pairs)
    parameters = list(model.parameters())
    for i, row in enumerate(finding.table):
        found = []
        for name in ("chosen", "rejected"):
            ids = torch.tensor([pairs[name][i]["input_ids"]])
            logps = F.log_softmax(model(ids, attention_mask=torch.ones_like(ids)).logits[0, :-1], -1)
            total = logps.gather(-1, ids[0, 1:, None])[3:].sum()  # four tokens of prompt
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)]))
        assert row["inner"] == pytest.approx(float(found[0] @ found[1]), rel=1e-9)
        assert row["norm_chosen"] == pytest.approx(float(found[0].norm()), rel=1e-9)
        assert row["norm_rejected"] == pytest.approx(float(found[1].norm()), rel=1e-9)


def test_some_parameters_only(model):
    pairs = random_pairs(2)
    whole = gradient_entanglement(model, pairs).table
    block = "transformer.h.0."
    keeps = (lambda name: name.startswith(block), lambda name: not name.startswith(block))
    parts = [gradient_entanglement(model, pairs, parameters=keep).table for keep in keeps]
    for row, first, rest in zip(whole, *parts, strict=True):
        assert row["inner"] == pytest.approx(first["inner"] + rest["inner"]) and first["norm_chosen"] > 0
    with pytest.raises(InputError, match="gradient_entanglement: parameters must be true of at least one"):
        gradient_entanglement(model, pairs, parameters=lambda name: False)


def test_projected_inner_products_are_right_on_average():
    g = torch.Generator().manual_seed(0)
    x, y = ({"a": torch.randn(40, 50, generator=g) + 1, "b": torch.randn(300, generator=g)} for _ in range(2))
    y = {k: 0.5 * x[k] + v for k, v in y.items()}
    flat = [sketched(v, size=None, seed=0) for v in (x, y)]
    exact, scale = float(flat[0] @ flat[1]), float(flat[0].norm() * flat[1].norm())
    found = torch.tensor([float(sketched(x, size=64, seed=s) @ sketched(y, size=64, seed=s)) for s in range(200)])
    assert abs(float(found.mean()) - exact) < 3 * float(found.std()) / 200**0.5
    assert float(found.std()) < 2 * scale / 64**0.5
    assert torch.equal(sketched(x, size=64, seed=1), sketched(x, size=64, seed=1))


def test_a_projection_is_near_the_flat_gradients(model):
    flat, near = (gradient_entanglement(model, random_pairs(3), project=p).table for p in (None, 4096))
    assert all(abs(a["cosine"] - b["cosine"]) < 0.06 for a, b in zip(flat, near, strict=True))
    assert all(a["norm_chosen"] == pytest.approx(b["norm_chosen"], rel=0.1) for a, b in zip(flat, near, strict=True))


def test_the_finding(model):
    pairs = random_pairs(4)
    pairs["rejected"][1] = pairs["chosen"][1]
    finding = gradient_entanglement(model, pairs, loss=dpo, heat_maps=1)
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))).value == finding.value
    assert set(finding.flat()) == {"gradient_entanglement", *gradient_entanglement.card.gives}
    assert finding.table[1]["cosine"] == pytest.approx(1) and finding.interval is not None
    (heat,) = finding.texts
    assert len(heat["tokens"]) == 8 and len(heat["cosines"]) == 8 and len(heat["cosines"][0]) == 6
    assert all(-1.001 <= c <= 1.001 for line in heat["cosines"] for c in line)
    same = gradient_entanglement(model, {**pairs, "chosen": pairs["rejected"]}, heat_maps=1).texts[0]["cosines"]
    assert all(line[i] == pytest.approx(1) for i, line in enumerate(same))
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_dropout_is_off_and_the_model_is_left_as_it_was():
    model = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    found = [gradient_entanglement(model, random_pairs(2)).table for _ in range(2)]
    assert found[0] == found[1] and model.training


def test_what_it_refuses(model):
    pairs = random_pairs(2)
    assert gradient_entanglement(model, random_pairs(1)).value is None
    with pytest.raises(InputError, match="pairs must be the streams chosen and rejected"):
        gradient_entanglement(model, {"x": []})
    with pytest.raises(InputError, match="as many chosen as rejected rows"):
        gradient_entanglement(model, {**pairs, "rejected": pairs["rejected"][:1]})
    with pytest.raises(InputError, match="rejected, row 2 must be with a scored token"):
        bad = {**pairs["rejected"][1], "labels": [-100] * 12}
        gradient_entanglement(model, {**pairs, "rejected": [pairs["rejected"][0], bad]})
    with pytest.raises(InputError, match="loss must be a loss of chosen, rejected"):
        gradient_entanglement(model, pairs, loss=kto)
