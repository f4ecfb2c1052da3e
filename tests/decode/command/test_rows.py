from __future__ import annotations

import json

import pytest

from plumbline.core.errors import InputError
from plumbline.decode.command.rows import Row, finished, gather, ids_of, own_ids, read, spread
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from plumbline.models.lm import LM

TALK = ({"role": "user", "content": "hi"},)


def write(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


@pytest.fixture(scope="module")
def base():
    return LM(tiny("llama", 320), tiny_tokenizer(320), "base")


@pytest.fixture(scope="module")
def chat():
    return LM(tiny("llama", 320), tiny_tokenizer(320, chat_template=CHAT_TEMPLATE), "chat")


def test_read(tmp_path):
    talk = [*TALK, {"role": "assistant", "content": "dropped"}]
    rows = read(
        write(
            tmp_path / "p.jsonl", {"prompt": "a", "id": 3, "plain": "", "other": 1}, {"messages": talk},
            {"prompt": list(TALK)},
        ),
        roles={"plain"},
    )  # fmt: skip
    assert [r.id for r in rows] == ["3", "p:2", "p:3"]
    assert rows[0].asked == "a" and rows[0].own == {"plain": ""}
    assert rows[1].asked == rows[2].asked == TALK and rows[1].text == "hi"
    assert len(read(tmp_path / "p.jsonl", limit=2)) == 2


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "messages": list(TALK)}, "p.jsonl:1: the input must be just one of prompt, messages"),
        ({"text": "a"}, "got only 'text'"),
        ({"prompt": " "}, "p.jsonl:1: prompt must be a string that is not empty"),
        ("[1]", "must be a JSON object"),
        ("{", "malformed JSON"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the assistant's turn only"),
    ],
)
def test_bad_rows(tmp_path, row, told):
    with pytest.raises(InputError) as raised:
        read(write(tmp_path / "p.jsonl", row))
    assert told in str(raised.value)


def test_ids_must_be_unique_and_files_hold_something(tmp_path):
    with pytest.raises(InputError, match=r"unique .*p.jsonl:1"):
        read(write(tmp_path / "p.jsonl", {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}))
    with pytest.raises(InputError, match="an empty file"):
        read(write(tmp_path / "empty.jsonl"))


def test_each_model_reads_its_own_template(base, chat):
    where = "here"
    templated = ids_of(TALK, chat, where, 4)
    assert chat.tokenizer.decode(templated) == "<s><|user|>\nhi</s>\n<|assistant|>\n"
    assert base.tokenizer.decode(ids_of(TALK, base, where, 4)) == "hi"
    assert ids_of("", base, where, 4) == [0]  # bos opens an empty text
    row = Row("x", TALK, {"other": "no"})
    places = {(0, "peer"): chat, (0, "same"): base, (1, "other"): chat}
    own = own_ids(row, places, base, 4)
    assert set(own) == {(0, "peer"), (1, "other")} and own[0, "peer"] == templated
    assert own_ids(Row("x", "text"), places, base, 4) == {}


def test_prompts_that_leave_no_room(base):
    with pytest.raises(InputError, match="within base's context of 64 with 60 new tokens"):
        ids_of("word " * 20, base, "here", 60)


def test_spread_gives_rows_without_a_prompt_of_their_own_the_main_one():
    assert spread([[1], [2]], [{(0, "r"): [9]}, {}], (0, "r")) == [[9], [2]]
    assert spread([[1]], [{}], (0, "r")) is None


def test_gather(tmp_path):
    file = write(tmp_path / "p.jsonl", {"prompt": "a", "r": "mine"}, {"prompt": "b"})
    rows = gather(file, None, ["r=theirs"], {"r"}, None, None)
    assert [row.own for row in rows] == [{"r": "mine"}, {"r": "theirs"}]
    done = write(tmp_path / "o.jsonl", {"id": "p:1"})
    assert [row.id for row in gather(file, None, [], set(), None, done)] == ["p:2"]
    assert gather(None, "a", [], set(), None, None) == [Row("prompt", "a")]
    for path, prompt in ((None, None), (file, "a")):
        with pytest.raises(InputError, match="one of --prompts FILE and --prompt TEXT"):
            gather(path, prompt, [], set(), None, None)
    with pytest.raises(InputError, match="--peer-prompt must be ROLE=TEXT with a role of r"):
        gather(file, None, ["q=x"], {"r"}, None, None)


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c", "te')
    assert finished(path) == {"a", "b"}
    assert path.read_text() == '{"id": "a"}\n{"id": "b"}\n'
    assert finished(tmp_path / "none.jsonl") == set()
