from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from plumbline.core.errors import InputError
from plumbline.core.finding import Finding
from plumbline.lab.entangled import random_pairs
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.models import LM
from plumbline.objectives.diagnose import likelihood_displacement
from plumbline.objectives.diagnose._likelihood_displacement import _parting


@pytest.fixture(scope="module")
def models():
    return tiny("llama", seed=0), tiny("llama", seed=1)


def logps(model, row):
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        found = F.log_softmax(model(ids, attention_mask=torch.ones_like(ids)).logits[0].double(), -1)
    return found, float(found[:-1].gather(-1, ids[0, 1:, None])[3:].sum())


def test_against_a_slow_loop(models):
    pairs = random_pairs(6)
    finding = likelihood_displacement(*models, pairs, top=200, batch_tokens=30)
    change = {n: [logps(models[1], r)[1] - logps(models[0], r)[1] for r in rows] for n, rows in pairs.items()}
    parts = finding.flat()
    assert finding.value == sum(c < 0 for c in change["chosen"]) / 6
    assert parts["chosen_change"].value == pytest.approx(sum(change["chosen"]) / 6, rel=1e-4)
    assert parts["rejected_change"].value == pytest.approx(sum(change["rejected"]) / 6, rel=1e-4)
    margin = [a - b for a, b in zip(change["chosen"], change["rejected"], strict=True)]
    assert parts["margin_change"].value == pytest.approx(sum(margin) / 6, rel=1e-4)
    both = [a < 0 and b < 0 for a, b in zip(change["chosen"], change["rejected"], strict=True)]
    assert parts["both_fell"].value == sum(both) / 6
    mass = [sum(logps(m, row)[0][3].exp() for row in pairs["chosen"]) / 6 for m in models]  # they part at once
    words = {row["id"]: row for row in finding.table if "id" in row}
    assert len(words) == 101 and sum(row["gain"] for row in words.values()) == pytest.approx(0, abs=1e-6)
    for i, row in words.items():
        assert row["before"] == pytest.approx(float(mass[0][i]), abs=1e-6)
        assert row["after"] == pytest.approx(float(mass[1][i]), abs=1e-6)
    gains = [row["gain"] for row in finding.table if "id" in row]
    assert gains == sorted(gains, reverse=True)


def test_the_same_model_displaces_nothing(models):
    finding = likelihood_displacement(models[0], models[0], random_pairs(3))
    assert finding.value == 0 and all(part.value == 0 for part in finding.parts)


def test_where_answers_part():
    chosen = {"input_ids": [7, 1, 2, 3, 4], "labels": [-100, 1, 2, 3, 4]}

    def at(ids):
        return _parting(chosen, {"input_ids": ids, "labels": ids})

    assert at([7, 9, 2, 3, 4]) == 0 and at([7, 1, 2, 9, 4]) == 2
    assert at([7, 1, 2, 3]) == 3  # the rejected answer ends before
    assert at([7, 1, 2, 3, 4]) == 0 and at([7, 1, 2, 3, 4, 5]) == 0  # nothing to tell them apart in the chosen one


def test_the_finding_names_what_gained(models):
    tokenizer = tiny_tokenizer()
    model = tiny("llama", vocab=len(tokenizer))
    after = copy.deepcopy(model)
    with torch.no_grad():
        after.get_output_embeddings().weight[70] += 5 * after.get_output_embeddings().weight[70].sign()
    finding = likelihood_displacement(LM(model, tokenizer, "a"), LM(after, tokenizer, "b"), random_pairs(3), top=3)
    assert len([row for row in finding.table if "id" in row]) == 6
    assert any(row.get("token") == tokenizer.decode([70]) for row in finding.table)
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) is not None
    assert set(finding.flat()) == {"likelihood_displacement", *likelihood_displacement.card.gives}
    assert "became less likely" in finding.sentence
    bare = likelihood_displacement(*models, random_pairs(2))
    assert any(str(row.get("token", "")).startswith("#") for row in bare.table)


def test_what_it_refuses(models):
    assert likelihood_displacement(*models, random_pairs(1)).value is None
    with pytest.raises(InputError, match="likelihood_displacement: pairs must be the streams"):
        likelihood_displacement(*models, {"x": []})
    with pytest.raises(InputError, match="likelihood_displacement: top"):
        likelihood_displacement(*models, random_pairs(2), top=0)
