"""Rollouts as trainers and engines write them, and one line for whatever is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.lab.rollouts import engine
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE
from plumbline.measure.shift.mismatch.rows import read

GOOD = {"prompt_ids": [5, 6], "completion_ids": [7, 8], "sampler_logps": [-1.0, -2.0]}


@pytest.fixture(scope="module")
def lm():
    return engine()


def write(folder, *rows):
    file = folder / "r.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def test_a_row(tmp_path, lm):
    (row,), notes = read(write(tmp_path, GOOD | {"temperature": 0.7, "reward": 1}), lm)
    assert row.id == "r:1" and row.prompt.tolist() == [5, 6] and row.sampler.tolist() == [-1, -2]
    assert row.temperature == pytest.approx(0.7) and row.counted.all() and row.support is None and notes == []


def test_engines_give_numbers_nothing_or_tables(tmp_path, lm):
    told = [{"9": {"logprob": -0.1}, "7": {"logprob": -3.0}}, {"8": -4.0, "1": -0.1}]
    (row, other, third), _ = read(
        write(tmp_path, GOOD | {"sampler_logps": told}, GOOD | {"sampler_logps": [None, 1e-4]},
              GOOD | {"sampler_logps": [{"9": -0.1}, -1.0]}), lm)  # fmt: skip
    assert row.sampler.tolist() == [-3, -4]
    assert np.isnan(other.sampler[0]) and other.sampler[1] == 0 and np.isnan(third.sampler[0])


def test_kept_sets_in_both_forms(tmp_path, lm):
    lists = GOOD | {"support": [[7, 9], [8]]}
    csr = GOOD | {"support": {"token_ids": [7, 9, 8], "offsets": [0, 2, 3]}}
    rows, _ = read(write(tmp_path, lists, csr), lm)
    assert [[kept.tolist() for kept in row.support] for row in rows] == [[[7, 9], [8]]] * 2


def test_text_and_messages_are_encoded_and_said_to_be(tmp_path, lm):
    lm.tokenizer.chat_template = CHAT_TEMPLATE
    say = [{"role": "user", "content": "go"}]
    rest = {k: GOOD[k] for k in ("completion_ids", "sampler_logps")}
    rows, notes = read(
        write(tmp_path, rest | {"prompt": "The sea"}, rest | {"prompt": say}, rest | {"messages": say}), lm
    )
    assert lm.tokenizer.decode(rows[0].prompt) == "The sea"
    assert rows[1].prompt.tolist() == rows[2].prompt.tolist() and "go" in lm.tokenizer.decode(rows[1].prompt)
    assert len(notes) == 1 and "3 prompts were turned into ids by tiny's tokenizer" in notes[0]
    lm.tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"r.jsonl:1: messages must be prompt_ids for a tokenizer without a chat"):
        read(write(tmp_path, rest | {"messages": say}), lm)


def test_rows_without_an_answer_are_counted(tmp_path, lm):
    empty = GOOD | {"completion_ids": [], "sampler_logps": []}
    rows, notes = read(write(tmp_path, empty, GOOD, GOOD | {"completion_mask": [0, 0]}, GOOD), lm, limit=2)
    assert [row.id for row in rows] == ["r:2", "r:4"] and notes == ["2 rows without an answer were left out"]
    with pytest.raises(InputError, match="the file must be one rollout per line, got 1 rows without an answer"):
        read(write(tmp_path, empty), lm)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("[1]", "the line must be a JSON object"),
        ("{", "malformed JSON"),
        ({"completion_ids": [7], "sampler_logps": [-1]}, "the prompt must be one of prompt_ids, prompt, messages"),
        ({"prompt_ids": [5], "sampler_logps": [-1]}, "completion_ids must be a list of token ids"),
        (GOOD | {"completion_ids": [7, 99999]}, "from 0 to .*, got 99999"),
        (GOOD | {"prompt_ids": "5 6"}, "prompt_ids must be a list of token ids"),
        (GOOD | {"prompt_ids": []}, "prompt_ids must be at least one token"),
        (GOOD | {"sampler_logps": [-1.0]}, "sampler_logps must be 2 log-probabilities, one per .*, got 1 of them"),
        (GOOD | {"sampler_logps": [0.5, 0.9]}, "sampler_logps must be numbers <= 0 or null, got 0.5; .* not prob"),
        (GOOD | {"temperature": 0}, "temperature must be a number > 0, got 0; greedy"),
        (GOOD | {"completion_mask": [1]}, "completion_mask must be 2 zeros and ones"),
        (GOOD | {"support": [[7]]}, "support must be the kept ids of each of the 2 tokens, got 1 sets"),
        (GOOD | {"support": {"token_ids": [7, 8], "offsets": [0, 3, 2]}}, "offsets rise from 0"),
        (GOOD | {"prompt_ids": [5] * 63}, "within tiny's context of 64 tokens, got 65"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, lm, bad, says):
    with pytest.raises(InputError, match=says) as told:
        read(write(tmp_path, GOOD, bad), lm)
    assert "r.jsonl:2: " in str(told.value) and "\n" not in str(told.value)


def test_ids_are_unique(tmp_path, lm):
    with pytest.raises(InputError, match=r"r.jsonl:2: id must be unique \(.*r.jsonl:1 has the same\)"):
        read(write(tmp_path, GOOD | {"id": "a"}, GOOD | {"id": "a"}), lm)
