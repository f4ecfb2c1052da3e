from __future__ import annotations

import torch

from plumbline.decode.command.watch import StopAt, Stream, Watch, printable
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer


def test_overrides_by_hand():
    prompts = torch.tensor([[5, 6], [5, 7]])
    watch = Watch(prompts, ends=[2], rules=2)

    def first(tokens, scores):  # moves row 0
        return scores + torch.tensor([[0.0, 9.0], [0.0, 0.0]])[: len(scores)]

    def second(tokens, scores):  # moves every row to token 0
        return scores + torch.tensor([99.0, 0.0])

    line = watch.around([first, second])
    assert len(line) == 5

    def step(tokens):
        scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[: len(tokens)]
        for part in line:
            scores = part(tokens, scores)
        return scores

    assert step(prompts).argmax(-1).tolist() == [0, 0]
    step(torch.tensor([[5, 6, 2], [5, 7, 3]]))  # row 0 has ended
    assert watch.seen == [[1, 2], [1, 2]] and watch.overridden == [[1, 0], [1, 0]]
    step(torch.tensor([[5, 7, 3]]))  # row 1 alone is found by its prompt; the first rule moves whatever is first
    assert watch.seen[0] == [1, 3] and watch.overridden[0] == [1, 1]


def test_calls_inside_a_rule_are_the_peers_even_on_the_main_model():
    model, other = tiny("llama"), tiny("gpt2")
    ids = torch.tensor([[5, 6, 7]])
    watch = Watch(ids, [], 1)
    before, _, behind = watch.around([None])
    with watch.counting(model, [other, model]):
        model(ids)
        before(ids, torch.zeros(1, 3))
        model(ids)
        other(ids)
        behind(ids, torch.zeros(1, 3))
        model(ids)
        other(ids)
    assert watch.calls == {"main": 2, "peers": 3}
    assert "forward" not in model.__dict__ and "forward" not in other.__dict__
    model(ids)
    assert watch.calls["main"] == 2


def test_stream_writes_each_character_once_and_waits_for_whole_ones():
    tokenizer, said = tiny_tokenizer(259), []
    ids = tokenizer("é\x1b[31m!").input_ids
    stream = Stream(tokenizer, 1, said.append)
    for n in range(1, len(ids) + 1):
        stream(torch.tensor([[9, *ids[:n]]]), None)
    assert "".join(said) == "é\\x1b[31m!" and "\ufffd" not in said


def test_stop_texts():
    tokenizer = tiny_tokenizer(259)
    stop = StopAt(tokenizer, 0, ["END", "\n"])
    rows = [tokenizer("abcEND").input_ids, tokenizer("abcdef").input_ids]
    assert stop(torch.tensor(rows), None).tolist() == [True, False]
    assert stop.cut("ab\ncEND") == "ab" and stop.cut("ab") == "ab"


def test_printable():
    assert printable("a\tb\nc\r\n\x1b[2Jd\x07\x9b") == "a\tb\nc\n\\x1b[2Jd\\x07\\x9b"
