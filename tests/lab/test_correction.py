from __future__ import annotations

import pytest

from plumbline.lab.correction import KNOWN, QUESTIONS, Answerer, question_rows, repeater, right, tuned


def test_questions_and_answers():
    rows = question_rows(2)
    assert len(rows) == 2 * QUESTIONS and rows[2] == rows[3] == {"prompt": "1", "completion": " 10"}
    assert sorted(right(q) for q in range(20)) == list(range(20))


def test_the_base_repeats_and_is_right_half_of_the_time():
    net = repeater(0)
    assert net.accuracy(after_wrong=False) == pytest.approx(KNOWN + (1 - KNOWN) / 20, abs=0.05)
    assert net.accuracy(after_wrong=True) < 0.05
    assert net.says(["3 11 and then?"] * 20) == [" 11"] * 20
    said = net.says(["3"] * 400)
    assert said == net.says(["3"] * 400) and said.count(f" {right(3)}") / 400 == pytest.approx(0.525, abs=0.12)


def test_tuning_on_rows_teaches_them():
    net = tuned(Answerer(1), [{"prompt": "2 5", "completion": " 9"}, {"prompt": "2", "completion": " 4"}], steps=60)
    assert net.says(["2 5", "2"]) == [" 9", " 4"]
