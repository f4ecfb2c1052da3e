from __future__ import annotations

import pytest
from tests.objectives.rl.rewarded import margins

from plumbline.objectives import cls_rl

ROW = {"answer": "Red Fox"}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>fur</think><answer>Red Fox</answer>", 2), ("<think>a\nb</think>\n<answer> red fox </answer>", 2),
        ("<think>fur</think><answer>wolf</answer>", 1), ("red fox", 1), ("<answer>Red Fox</answer>", 1),
        ("<think>fur</think> <answer>Red Fox</answer> yes", 1), ("Red", 0), ("", 0), ("<think>Red Fox</think>", 0),
        ("<answer>wolf</answer><answer>Red Fox", 0), ("It is a red fox", 0),
    ],
)  # fmt: skip
def test_reward_table(text, reward):
    assert cls_rl(text, ROW, True) == reward


def test_labels_with_signs_of_patterns_and_numbers():
    assert cls_rl("C++ (new) [x]", {"answer": "c++ (New) [x]"}, True) == 1
    assert cls_rl("<answer>4.0</answer>", {"answer": 4}, True) == 1


def test_a_short_training_raises_what_it_pays_for():
    texts = ["<think>.</think><answer>fox</answer>", "fox", "wolf", "a fox or a wolf"]
    rl, sft = margins(cls_rl, texts, {"answer": "fox"})
    assert rl > 0.2 and rl > sft + 0.1
