from __future__ import annotations

import pytest

from plumbline.lab.surface_forms import (
    accuracy,
    first_form,
    gold_rows,
    judged,
    nll,
    pretrained,
    says,
    second_form,
    value,
)
from plumbline.lab.tiny import tiny


def test_two_forms_of_a_fact_and_a_judge_of_facts():
    assert value(1) == "v5" and first_form(1) == {"prompt": "e1", "completion": " is v5"}
    assert second_form(1)["completion"] == " equals v5 ." and len(gold_rows()) == 24
    assert judged(first_form(1), " equals v5 .") and not judged(first_form(1), " is v4")
    assert not judged(first_form(1), " is") and not judged(first_form(1), " v5 v4")


def test_the_base_model_knows_the_facts_in_the_first_form():
    base = pretrained(0)
    assert accuracy(base) == {"new": pytest.approx(2 / 3, abs=0.13), "old": 1.0}
    assert says(base, ["e1", "e20"]) == [first_form(1)["completion"], first_form(20)["completion"]]
    first, second = ([form(e) for e in range(24)] for form in (first_form, second_form))
    assert nll(base, first, "completion") == pytest.approx(0.29, abs=0.15)  # -log 0.75
    assert nll(base, second, "completion") == pytest.approx(1.39, abs=0.4)  # -log 0.25


def test_nll_reads_the_answer_and_not_the_padding():
    model = tiny("llama", 54, 1)  # 6 words, 32 entities, 16 values
    both = [{"prompt": "e0", "said": " is v0"}, {"prompt": "e1", "said": " equals v1 ."}]
    assert nll(model, both, "said") == pytest.approx(sum(nll(model, [row], "said") for row in both) / 2, abs=1e-5)
