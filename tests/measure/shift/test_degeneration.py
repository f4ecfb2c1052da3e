"""Degeneration: rep-n and loops against slow loops, early stops, unfinished outputs, words for unlike tokenizers."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.kernels.records import Records
from plumbline.lab.tables import item_table, output_table
from plumbline.measure.shift import degeneration
from plumbline.measure.shift.repetition import longest_loop, padded, rep_n


def slow_rep(ids, n):
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else np.nan


def slow_loop(ids, copies=3, period=48):
    best = (0, 0)
    for p in range(1, period + 1):
        for start in range(len(ids)):
            end = start + p
            while end < len(ids) and ids[end] == ids[end - p]:
                end += 1
            if end - start >= copies * p and end - start > best[0]:
                best = (end - start, p)
    return best


def test_against_slow_loops():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 3, rng.integers(0, 40)).tolist() for _ in range(60)]
    table, length = padded(rows)
    found, period = longest_loop(table, length)
    for i, ids in enumerate(rows):
        assert (found[i], period[i]) == slow_loop(ids)
        for n in (1, 2, 3, 4):
            assert rep_n(table, length, n)[i] == pytest.approx(slow_rep(ids, n), nan_ok=True)


def outputs(ids, finish=None, text=None):
    given = {"ids": ids, "text": text or ["word"] * len(ids)}
    return given | ({"finish": finish} if finish else {})


def test_shares_and_paired_changes(tmp_path):
    rng = np.random.default_rng(1)
    sound = [rng.integers(0, 999, 30).tolist() for _ in range(20)]
    broken = [row[:] for row in sound]
    broken[4] = [*broken[4][:5], *[7, 8] * 12, 1]  # a loop of 24 tokens, then the end token
    broken[5] = [3]  # the end token alone
    broken[6] = [5, 6, 3]
    finish = ["length" if i == 9 else "eos" for i in range(20)]
    tables = output_table({"a": outputs(sound), "b": outputs(broken, finish)})
    found = degeneration(Records.of(tmp_path, items=item_table(20), outputs=tables))
    flat = found.flat()
    want = {
        "looping_base": 0, "looping_tuned": 0.05, "looping_change": 0.05, "early_stop_base": 0, "early_stop_tuned": 0.1,
        "unfinished_tuned": 0.05, "unfinished_change": 0.05, "output_tokens_base": 29,
    }  # fmt: skip
    for name, value in want.items():
        assert flat[name].value == pytest.approx(value), name
    assert flat["output_tokens_tuned"].value == pytest.approx((16 * 29 + 29 + 0 + 2 + 30) / 20)
    (row,) = found.table
    assert row["id"] == "p4" and row["arm"] == "TUNED" and (row["loop_tokens"], row["period"]) == (24, 2)
    assert set(flat) == set(degeneration.card.gives)
    tokens = [t for row in sound for t in row[:-1]]
    assert flat["distinct_1_base"].value == pytest.approx(len(set(tokens)) / len(tokens))


def test_the_same_outputs_do_not_change(tmp_path):
    ids = np.random.default_rng(2).integers(0, 50, (25, 20)).tolist()
    found = degeneration(
        Records.of(tmp_path, items=item_table(25), outputs=output_table({"a": outputs(ids), "b": outputs(ids)}))
    )
    for column in ("looping", "rep_2", "output_tokens"):
        assert found.flat()[f"{column}_change"].value == 0 and found.flat()[f"{column}_change"].interval == (0, 0)


def test_unlike_tokenizers_are_compared_by_words(tmp_path):
    a, b = ["one two three"] * 12, ["no no no no no no no no no no no no no"] * 12
    table = output_table({"a": outputs([[1]] * 12, text=a), "b": outputs([[2]] * 12, text=b)})
    records = Records.of(tmp_path, {"same_tokenizer": False}, items=item_table(12), outputs=table)
    found = degeneration(records).flat()
    assert found["looping_tuned"].value == 1 and found["output_tokens_base"].value == 3


def test_choices_are_not_generations(tmp_path):
    table = output_table({arm: outputs([[1, 2]] * 12, ["choice"] * 12) for arm in "ab"})
    found = degeneration(Records.of(tmp_path, items=item_table(12), outputs=table))
    assert found.value is None and "10 prompts" in found.sentence
