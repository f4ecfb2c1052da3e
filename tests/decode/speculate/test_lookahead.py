from __future__ import annotations

import torch

from plumbline.decode.drafts import Trie
from plumbline.decode.loop import Report
from plumbline.decode.speculate import lookahead
from plumbline.lab.transitions import following


def spent(prompt: list[int], **how) -> Report:
    model, _ = following(vocab=64, cycle=24, seed=1)
    told = Report()
    model.generate(torch.tensor([prompt]), custom_generate=lookahead, adapt=False, report=told, max_new_tokens=39,
                   do_sample=False, pad_token_id=0, **how)  # fmt: skip
    return told


def test_a_copied_branch_gives_thirteen_tokens_a_pass() -> None:
    _, text = following(vocab=64, cycle=24, seed=1)
    assert spent(text + text[1:]).calls == 1 + 3  # 39 tokens: branches of 12 and the token after each


def test_a_second_request_begins_warm() -> None:
    _, text = following(vocab=64, cycle=24, seed=1)
    trie = Trie()
    cold, warm = spent(text[:1], trie=trie), spent(text[:1], trie=trie)
    assert cold.calls >= 24 and warm.calls <= 5
    assert not any(node.given for root in trie.roots.values() for node in root.below.values())


def test_no_tree_is_larger_than_asked_for() -> None:
    _, text = following(vocab=64, cycle=24, seed=1)
    told = spent(text, nodes=5)
    assert told.drafted <= 5 * told.calls and told.calls >= 39 / 6
