from __future__ import annotations

import io

import pytest
from rich.console import Console

from plumbline.decode.command.compose import Cast, compose
from plumbline.decode.command.rows import Row
from plumbline.decode.command.run import Decoder, Settings, Spent
from plumbline.decode.command.show import Screen, beside, overrode, pieces, run, title, took
from plumbline.lab.tiny_tokenizer import tiny_tokenizer


def test_pieces_add_up_to_the_text():
    tokenizer = tiny_tokenizer(300)
    ids = tokenizer("The fox über 川").input_ids
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids) and "".join(found) == "The fox über 川"
    assert pieces(tokenizer, ids[:-1])[-1].endswith("\ufffd") or "川" not in "".join(pieces(tokenizer, ids[:-1]))


def test_differing_tokens_are_marked_and_markup_is_data():
    tokenizer = tiny_tokenizer(259)
    left, right = (tokenizer(text).input_ids for text in ("a[red]b\x1b", "a[blu]b\x1b"))
    plain = beside(tokenizer, left, right, styled=False)
    assert [column.plain for column in plain] == ["a[[red]]b\\x1b", "a[[blu]]b\\x1b"]
    styled = beside(tokenizer, left, right, styled=True)
    assert styled[0].plain == "a[red]b\\x1b"
    assert [styled[0].plain[s.start : s.end] for s in styled[0].spans if "yellow" in str(s.style)] == ["red"]


def test_lines_for_people():
    spent = Spent(1, 12, 0.5, drafted=9, kept=4)
    spent.calls.update(main=1, peers=3)
    told = "12 tokens in 0.50 s, 24 tokens/s; 1 model call + 3 of peers; 4 of 9 drafted tokens kept"
    assert took(spent) == told
    assert overrode({"a": (1, 4), "b": (0, 0)}) == "overrode the likeliest token: a 25% of 4 positions"
    assert title(compose(["kgw:key=3", "rpc"])) == "kgw(key=3) + rpc()" and title(compose([])) == "plain decoding"


@pytest.fixture(scope="module")
def made():
    return Decoder(Cast("zoo:base", compose(["kgw:key=3"]), device="cpu"), Settings(8, batch_size=2))


def shown(made, rows, **how):
    screen = Screen(made, **how)
    screen.console = Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)
    told = run(made, rows, compare=how.get("compare", False), screen=screen)
    return screen.console.file.getvalue(), told


def test_one_prompt_is_streamed_under_its_title(made):
    text, told = shown(made, [Row("prompt", "Copy: a b c ->")])
    assert text.startswith("zoo:base: kgw(key=3)\n" + told["rows"][0]["text"] + "\n")
    assert "model calls" in text and told["total"]["rows"] == 1


def test_quiet_is_the_texts_alone(made):
    rows = [Row("a", "Copy: a b c ->"), Row("b", "Copy: d e f ->"), Row("c", "The river [bold]is")]
    text, told = shown(made, rows, quiet=True)
    assert text == "".join(f"{row['text']}\n" for row in told["rows"])


def test_compare_and_totals(made):
    rows = [Row("a", "Copy: a b c ->"), Row("b", "[red]Copy: d e f ->"), Row("c", "The river is")]
    text, told = shown(made, rows, compare=True)
    total = told["total"]
    assert "[b] [red]Copy: d e f ->" in text and "3 prompts:" in text and "times plain decoding's" in text
    assert total["tokens"] == sum(row["tokens"] for row in told["rows"])
    assert total["same_text"] == sum(row["plain"] == row["text"] for row in told["rows"])
    assert 0 <= total["overrode"]["kgw"] <= 1 and total["speed_ratio"] > 0
    assert [row["batch"] for row in told["rows"]] == [2, 2, 1]
