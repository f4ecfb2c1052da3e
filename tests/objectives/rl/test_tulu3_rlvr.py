from __future__ import annotations

import pytest
from tests.objectives.rl.rewarded import margins

from plumbline.core.errors import InputError
from plumbline.objectives import group_advantages, tulu3_rlvr
from plumbline.objectives.rl._tulu3_rlvr import RECIPE, RECIPE_70B, VERIFIERS


@pytest.mark.parametrize(
    ("text", "dataset", "answer", "reward"),
    [
        ("so 42", "gsm8k", "42", 10), ("so -42", "gsm8k", "42", 0), (r"\boxed{0.5}", "math", r"\frac12", 10),
        ("ab", "ifeval", {"func_name": "validate_no_commas"}, 10),
        ("a,b", "ifeval", '{"func_name": "validate_no_commas"}', 0),
        ("The cat.", "string_match", "cat", 10), ("red fox", "f1", "red wolf", 5), ("none", "math", "3", 0),
    ],
)  # fmt: skip
def test_reward_table(text, dataset, answer, reward):
    assert tulu3_rlvr(text, {"dataset": dataset, "answer": answer}, True) == pytest.approx(reward)


def test_an_answer_that_does_not_end_is_fined_whatever_it_says():
    row = {"dataset": "gsm8k", "answer": "42"}
    assert tulu3_rlvr("42", row, False) == -10 and tulu3_rlvr("42", row, False, no_end=-1.0) == -1
    assert tulu3_rlvr("42", row, False, no_end=None, alpha=2.0) == 2


def test_own_verifiers_and_rows_without_one():
    assert tulu3_rlvr("x", {"dataset": "mine", "answer": 0}, True, verifiers={"mine": lambda text, label: 0.5}) == 5
    with pytest.raises(InputError, match=r'tulu3_rlvr: row\["dataset"\] must be one of gsm8k, math, .*, got None'):
        tulu3_rlvr("x", {"answer": 0}, True)
    with pytest.raises(InputError, match="tulu3_rlvr: alpha must be a number > 0, got 0"):
        tulu3_rlvr("x", {"answer": 0}, True, alpha=0)


def test_a_constant_reward_is_no_advantage():
    import torch

    told = torch.full((8,), tulu3_rlvr("42", {"dataset": "gsm8k", "answer": "42"}, True))
    assert not group_advantages(told, torch.arange(8) // 4).any()


def test_the_recipe_has_three_stages():
    assert list(RECIPE) == ["sft", "dpo", "rlvr"] and RECIPE["rlvr"]["kl"] == 0.05 and set(RECIPE_70B) == set(RECIPE)
    assert set(VERIFIERS) == {"gsm8k", "math", "ifeval", "string_match", "f1"}


def test_a_short_training_raises_what_it_pays_for():
    texts = ["5", "6", "it is 5", "it is -5"]
    rl, sft = margins(tulu3_rlvr, texts, {"answer": "5", "dataset": "gsm8k"})
    assert rl > 0.2 and rl > sft + 0.1
