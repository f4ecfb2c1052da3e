from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.search import in_context_navigation
from plumbline.decode.search.navigation import Navigation, complete, quoted, ways_of_solving
from plumbline.kernels.cached_lm import CachedLM
from plumbline.lab.categories import correlated_keys
from plumbline.lab.tiny import ARCHITECTURES, tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.models.lm import LM


@pytest.fixture(scope="module")
def lm():
    tokenizer = tiny_tokenizer(320)
    return LM(tiny("llama", len(tokenizer), max_position_embeddings=400), tokenizer, "tiny")


def slow(lm, instruction, rounds, per_round, top_k, new):
    """The procedure as the paper states it: text joined, no cache, one row at a time."""

    def logits(ids):
        with torch.no_grad():
            return lm.model(torch.tensor([ids])).logits[0, -1]

    explored, used, ways = [], [], []
    for _ in range(rounds):
        taken = 0
        for token in logits(lm.tokenizer(instruction + quoted(explored)).input_ids).argsort(descending=True)[:top_k]:
            text = lm.tokenizer.decode([token])
            if text in used or int(token) in lm.tokenizer.all_special_ids or taken == per_round:
                continue
            taken += 1
            used.append(text)
            opening = lm.tokenizer(instruction + quoted([])).input_ids
            ids = [*opening, int(token)]
            while '"' not in lm.tokenizer.decode(ids[len(opening) :]) and len(ids) < len(opening) + new:
                ids.append(int(logits(ids).argmax()))
                if ids[-1] == lm.tokenizer.eos_token_id:
                    break
            ways.append(
                (text, lm.tokenizer.decode(ids[len(opening) :], skip_special_tokens=True).split('"')[0].strip())
            )
        fresh = [text for _, text in ways if text]
        explored = list(dict.fromkeys(fresh))
    return ways


def test_equals_the_procedure_done_slowly(lm):
    found = in_context_navigation(lm, "Name a fox.", rounds=3, per_round=2, top_k=20, max_new_tokens=6)
    assert found.ways == slow(lm, "Name a fox.", 3, 2, 20, 6)
    assert len(found.ways) == 6 and found.rounds == 3
    firsts = [first for first, _ in found.ways]
    assert len(set(firsts)) == 6


def test_finds_every_right_answer_behind_its_look_alikes():
    lm, right = correlated_keys()
    options = dict(formatter=lambda found: " ".join(["start", *found]), terminator="|", max_new_tokens=1)
    assert set(in_context_navigation(lm, "", rounds=5, per_round=1, **options).found) == right
    plain = in_context_navigation(lm, "", rounds=1, per_round=6, **options).found
    assert [word in right for word in plain] == [True, False, False, False, False, False]


def test_stops_when_no_new_token_is_within_top_k(lm):
    found = in_context_navigation(lm, "Name a fox.", rounds=50, per_round=4, top_k=5, max_new_tokens=2)
    assert found.rounds < 50 and len(found.ways) == len({first for first, _ in found.ways})


def test_remember_bounds_the_prompt(lm):
    shown = []

    def formatter(found):
        shown.append(list(found))
        return quoted(found)

    in_context_navigation(lm, "Name.", formatter=formatter, rounds=4, per_round=2, max_new_tokens=3, remember=2)
    assert max(map(len, shown)) == 2
    with pytest.raises(InputError, match="in_context_navigation: instruction must be .* set remember"):
        in_context_navigation(lm, "Name a fox. " * 100)


def test_formats():
    assert quoted(["a"]) == '\n\nAnswer:\n1. "a"\n2. "'
    assert ways_of_solving([]).endswith("problem:\n### Way 1:\n* **Step 1:**\n")
    assert "### Way 1:\nx\n### Way 2:\n" in ways_of_solving(["x"])


def test_votes_count_every_way_and_found_each_text_once():
    way = Navigation([("a", "it is 4"), ("b", "4"), ("c", "it is 4"), ("d", ""), ("e", "5")], 1)
    assert way.found == ["it is 4", "4", "5"]
    assert way.votes(lambda text: text.split()[-1] if text else None).most_common(1) == [("4", 3)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_completions_in_a_batch_equal_each_alone(architecture):
    tokenizer = tiny_tokenizer(300)
    model = tiny(architecture, len(tokenizer))
    together = complete(CachedLM(model), tokenizer, [5, 6, 7], [20, 30, 40], '"', 12)
    alone = [complete(CachedLM(model), tokenizer, [5, 6, 7], [first], '"', 12)[0] for first in (20, 30, 40)]
    assert together == alone
