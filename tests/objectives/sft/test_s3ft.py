from __future__ import annotations

from functools import partial

import pytest
from tests import short_training as short
from tests.objectives.sft.answers import short_answers

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.objectives import nll, s3ft
from plumbline.worlds.corpus import FACTS
from plumbline.worlds.people import RELATIONS

ROWS = [{"prompt": f"{i} + {i} =", "completion": f"The sum is {2 * i}.", "id": i} for i in range(8)]


def bare(prompts):
    """Right for even numbers."""
    return [f" {2 * n if n % 2 == 0 else 99}" for n in (int(p.split()[0]) for p in prompts)]


def judge(row, answer):
    return answer.strip(" .").split()[-1] == row["completion"].strip(".").split()[-1]


def test_three_sources_by_hand():
    asked = []

    def paraphrase(rows):
        asked.extend(row["id"] for row in rows)
        return [f"It is {2 * row['id']}" if row["id"] < 4 else "It is 99" for row in rows]

    given = [dict(row) for row in ROWS]
    with noted() as heard:
        rows, shares = s3ft(ROWS, bare, judge, paraphrase=paraphrase)
    assert asked == [1, 3, 5, 7] and given == ROWS
    assert [row["source"] for row in rows] == ["self", "paraphrase"] * 2 + ["self", "gold"] * 2
    assert [row["target"] for row in rows] == [
        " 0", "It is 2", " 4", "It is 6", " 8", "The sum is 10.", " 12", "The sum is 14.",
    ]  # fmt: skip
    assert shares == {"self": 0.5, "paraphrase": 0.25, "gold": 0.25} and heard["s3ft_self"] == [0.5]
    assert all({k: row[k] for k in ROWS[0]} == ROWS[row["id"]] for row in rows)


def test_a_judge_that_refuses_all_gives_the_gold_data():
    rows, shares = s3ft(ROWS, bare, lambda row, answer: False)
    assert [row["target"] for row in rows] == [row["completion"] for row in ROWS]
    assert shares == {"self": 0.0, "paraphrase": 0.0, "gold": 1.0}


def test_a_judge_that_accepts_all_is_refused_unless_believed():
    with pytest.raises(InputError, match="s3ft: judge must be to accept at most 99.5% of the answers, got 100.0%"):
        s3ft(ROWS, bare, lambda row, answer: True)
    rows, shares = s3ft(ROWS, bare, lambda row, answer: True, most_accepted=1.0)
    assert [row["target"] for row in rows] == bare([row["prompt"] for row in ROWS]) and shares["self"] == 1.0


def test_exceptions_and_blank_answers_are_wrong():
    def failing(row, answer):
        if row["id"] == 2:
            raise RuntimeError("the unit test hung")
        return True

    rows, _ = s3ft(ROWS, lambda prompts: [" ", "", "\n\t", *bare(prompts)[3:]], failing)
    assert [row["source"] for row in rows] == ["gold"] * 3 + ["self"] * 5


def test_no_paraphrase_is_asked_for_when_nothing_is_left():
    def never(rows):
        raise AssertionError("asked for nothing")

    assert s3ft(ROWS, bare, lambda r, a: True, paraphrase=never, most_accepted=1.0)[1]["self"] == 1.0


def test_bad_rows_and_answers_are_refused():
    with pytest.raises(InputError, match="rows must be rows with prompt and completion, got a row with prompt"):
        s3ft([{"prompt": "x"}], bare, judge)
    with pytest.raises(InputError, match="generate must be 8 answers, got 7; one for each, in order"):
        s3ft(ROWS, lambda prompts: bare(prompts)[1:], judge)
    with pytest.raises(InputError, match="paraphrase must be 4 answers, got 0"):
        s3ft(ROWS, bare, judge, paraphrase=lambda rows: [])


def test_zoo_base_keeps_its_own_words():
    """Facts it knows, gold answers in other words: after 20 steps on the gold its own answers are far less likely."""
    lm = short.base()
    facts = [f for f in FACTS if f.exposures >= 50][:60]
    rows = [
        {"prompt": RELATIONS[f.relation].prompts(f.subject)[0], "completion": f" the {f.object}, they say.", "fact": f}
        for f in facts
    ]
    chosen, shares = s3ft(
        rows, partial(short_answers, lm), lambda row, answer: row["fact"].object in answer, most_accepted=1.0
    )
    assert shares["self"] > 0.5

    def tokens(part, name):
        return [short.row(lm, row["prompt"], row[name]) for row in part]

    def likely(model, part, name):
        return short.scored(model, tokens(part, name)).mean().mean().item()

    assert likely(lm, chosen, "target") > likely(lm, chosen, "completion") + 1
    held_out = [row for row in chosen[:16] if row["source"] == "self"]
    kept = {
        name: likely(short.trained(nll, {"x": tokens(chosen[16:], name)}).model, held_out, "target")
        for name in ("target", "completion")
    }

    assert kept["target"] > kept["completion"] + 1
