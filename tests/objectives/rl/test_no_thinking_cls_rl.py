from __future__ import annotations

import pytest
from tests.objectives.rl.rewarded import margins

from plumbline.objectives import no_thinking_cls_rl


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("Red Fox", 1), (" Red Fox\n", 1), ("red fox", 0), ("Red Fox.", 0), ("a Red Fox", 0), ("", 0),
        ("<answer>Red Fox</answer>", 0), ("Red  Fox", 0), ("Vulpes vulpes", 0), ("Red Fox Red Fox", 0),
    ],
)  # fmt: skip
def test_reward_table(text, reward):
    assert no_thinking_cls_rl(text, {"answer": "Red Fox"}, True) == reward


def test_a_short_training_raises_what_it_pays_for():
    rl, sft = margins(no_thinking_cls_rl, ["fox", "wolf", "it is a fox", "a bird"], {"answer": "fox"})
    assert rl > 0.2 and rl > sft + 0.1
