from __future__ import annotations

from functools import partial

import pytest
from tests.objectives.rl.rewarded import margins

from plumbline.core.errors import InputError
from plumbline.objectives import simplerl_zoo
from plumbline.objectives.rl._simplerl_zoo import INDEPENDENT, RECIPE

ROW = {"answer": r"\frac{3}{4}"}


@pytest.mark.parametrize(
    ("text", "plain", "independent"),
    [
        (r"so \boxed{\frac{3}{4}}", 1, 1), (r"so \boxed{0.75}.", 1, 1), (r"\boxed{\dfrac{3}{4}} done", 1, 1),
        ("The answer is 3/4.", 1, 0.5), ("we get $0.75$", 1, 0.5), ("it is 0.75", 1, 0.5),
        (r"\boxed{\frac{4}{3}}", 0, -0.5), (r"\boxed{1} and \boxed{2}", 0, -0.5), (r"0.75 but \boxed{{{2}}}", 0, -0.5),
        ("The answer is 4/3.", 0, -1), ("I do not know", 0, -1), (r"\boxed{0.7", 0, -1), ("", 0, -1),
        (r"<think>\boxed{0.75}</think> no", 0, -1),
    ],
)  # fmt: skip
def test_reward_table(text, plain, independent):
    assert simplerl_zoo(text, ROW, True) == plain
    assert simplerl_zoo(text, ROW, False, **INDEPENDENT) == independent


def test_labels_may_be_numbers():
    assert simplerl_zoo("-5", {"answer": -5}, True) == 1 and simplerl_zoo("5", {"answer": -5}, True) == 0
    assert partial(simplerl_zoo, unboxed=0.2)("5", {"answer": 5}, True) == 0.2 and RECIPE["group_size"] == 8


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="simplerl_zoo: unboxed must be a number, got half; pass unboxed=1.0"):
        simplerl_zoo("5", ROW, True, unboxed="half")


def test_a_short_training_raises_what_it_pays_for():
    rl, sft = margins(simplerl_zoo, ["5", "6", "the answer is 5", "the answer is 9"], {"answer": "5"})
    assert rl > 0.2 and rl > sft + 0.1
