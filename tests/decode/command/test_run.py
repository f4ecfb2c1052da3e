from __future__ import annotations

import json
import os

import pytest
import torch

from plumbline.core.errors import InputError, PlumblineError
from plumbline.decode.command.compose import Cast, compose
from plumbline.decode.command.rows import Row
from plumbline.decode.command.run import Decoder, Lines, Settings, Spent
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.models import load

ROWS = [
    Row("copy", "Copy: a b c d ->"),
    Row("river", "The river is"),
    Row("find", "Table: a fox, b house, c river. Find b"),
]


def decoder(*methods, model="zoo:base", **settings):
    settings = {"max_new_tokens": 16, **settings}
    return Decoder(Cast(model, compose(methods), device="cpu"), Settings(**settings))


def answers(made, rows=ROWS, **how):
    return [answer for done in made.run(rows, **how) for answer in done.answers]


@pytest.fixture(scope="module")
def greedy():
    """Ids up to the end token, one prompt at a time, by transformers alone."""
    lm = load("zoo:base", device="cpu")
    found = []
    for row in ROWS:
        ids = torch.tensor([lm.tokenizer(row.asked).input_ids])
        out = lm.model.generate(ids, max_new_tokens=16, do_sample=False)
        found.append(out[0, ids.shape[1] :].tolist())
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("methods", [(), ("prompt_lookup",), ("nudging:nudger=zoo:chat,threshold=0",)])
def test_lossless_methods_give_greedy_tokens_in_any_batch(greedy, methods, batch_size):
    found = answers(decoder(*methods, batch_size=batch_size))
    assert [answer.ids for answer in found] == greedy
    assert [answer.finish for answer in found] == ["end" if ids[-1] == 2 else "length" for ids in greedy]


def test_a_prompt_of_its_own_is_the_rows_or_the_main_one(greedy):
    rows = [Row("copy", ROWS[0].asked, {"unconditional": ""}), ROWS[1], ROWS[2]]
    guided = decoder("classifier_free_guidance:unconditional=self,gamma=1.5")
    together, alone = answers(guided, rows), [a for row in rows[:1] for a in answers(guided, [row])]
    assert together[0].ids == alone[0].ids
    assert [a.ids for a in together[1:]] == greedy[1:]  # conditional and unconditional are one there
    assert [a.ids for a in answers(decoder("classifier_free_guidance:unconditional=self,gamma=1"), rows)] == greedy
    lm = guided.lm
    ids, bos = torch.tensor([lm.tokenizer(rows[0].asked).input_ids]), torch.tensor([[lm.tokenizer.bos_token_id]])
    theirs = lm.model.generate(ids, guidance_scale=1.5, negative_prompt_ids=bos, max_new_tokens=16, do_sample=False)
    assert together[0].ids == theirs[0, ids.shape[1] :].tolist()


def test_a_peer_reads_a_conversation_in_its_own_template():
    made = decoder("nudging:nudger=zoo:chat,threshold=1", batch_size=1)
    asked = ({"role": "user", "content": "Copy: a b c d"},)
    (row,) = answers(made, [Row("x", asked)])
    alone = answers(decoder(model="zoo:chat", batch_size=1), [Row("x", asked)])[0]
    assert row.ids == alone.ids and row.text == alone.text  # at threshold 1 the nudger alone speaks


def test_counts(greedy):
    (done,) = decoder("nudging:nudger=zoo:chat,threshold=0", "kgw:delta=20,key=3").run(ROWS, compare=True)
    steps = max(len(answer.ids) for answer in done.answers)
    assert done.spent.calls == {"main": steps, "peers": steps} and done.spent.rows == 3
    assert done.spent.tokens == sum(len(answer.ids) for answer in done.answers) and done.spent.seconds > 0
    assert done.plain.calls["main"] == max(map(len, greedy)) and done.plain.calls["peers"] == 0
    for answer in done.answers:
        assert answer.overrode["nudging"] == (0, len(answer.ids))  # threshold 0 leaves every token
        moved, seen = answer.overrode["kgw"]
        assert seen == len(answer.ids) and moved > seen / 2  # three tokens of four are not green
        assert answer.plain.ids == greedy[ROWS.index(answer.row)]


def test_a_shared_model_is_read_in_one_pass():
    row = Row("x", "The river is", {"unconditional": ""})
    (done,) = decoder("classifier_free_guidance:unconditional=self").run([row])
    assert done.spent.calls["peers"] == 0 and done.spent.calls["main"] == len(done.answers[0].ids)


def test_streamed_text_is_the_text():
    for methods in ((), ("lookahead",), ("classifier_free_guidance:unconditional=zoo:small,gamma=1.2",)):
        said = []
        (answer,) = answers(decoder(*methods), ROWS[:1], write=said.append)
        assert "".join(said) == answer.text and len(said) > 2


def test_seeds_name_the_sample():
    first, again, other = (
        [a.ids for a in answers(decoder(temperature=1.0, seed=seed, batch_size=1))] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert [a.ids for a in answers(decoder(temperature=1.0, batch_size=1), ROWS[1:])] == first[1:]  # as after --resume
    twice = answers(decoder(temperature=1.0, batch_size=1), [Row("x", "Repeat:"), Row("y", "Repeat:")])
    assert twice[0].ids != twice[1].ids


def test_selectors_choose_among_samples():
    (done,) = decoder("self_consistency", samples=5).run(ROWS[:1], compare=True)
    answer = done.answers[0]
    assert len(answer.texts) == 5 and answer.text in answer.texts and answer.chosen.answer == "a b c d."
    assert answer.plain.text == " a b c d." and done.spent.tokens > len(answer.ids)


def test_a_selector_draws_through_rules_with_prompts_of_their_own():
    made = decoder("classifier_free_guidance:unconditional=self,gamma=1.5", "kgw:key=3,delta=20", "rpc", samples=4)
    (done,) = made.run([Row("x", "The river is", {"unconditional": "The"})])
    moved, seen = done.answers[0].overrode["kgw"]
    assert seen == done.spent.tokens and moved > seen / 2 and done.spent.calls["peers"] > 0


@pytest.mark.parametrize("pad", [True, False])
def test_padding_is_never_read_by_a_peer(tmp_path, pad):
    tokenizer = tiny_tokenizer(300, pad=pad)  # without a token of its own, </s> pads, and prompts begin with it
    for name, seed in (("main", 0), ("small", 1)):
        ids = dict(pad_token_id=2 if pad else 1, eos_token_id=1, bos_token_id=0)
        tiny("gpt2", 300, seed, **ids).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = [Row("a", "</s>Where"), Row("b", "Where does the river go, said the child?"), Row("c", "</s></s>a")]
    rule = f"contrastive_decoding:amateur={tmp_path / 'small'},alpha=0"
    found = [
        [a.ids for a in answers(decoder(rule, model=str(tmp_path / "main"), batch_size=size), rows)] for size in (1, 3)
    ]
    assert found[0] == found[1]


def test_beams_and_stop_texts():
    assert all(a.ids for a in answers(decoder("contrastive_decoding:amateur=zoo:small", num_beams=2)))
    for methods in ((), ("prompt_lookup",)):
        (answer,) = answers(decoder(*methods, stop=(" c",)), ROWS[:1])
        assert answer.text == " a b" and answer.finish == "stop"


@pytest.mark.parametrize(
    ("methods", "settings", "told"),
    [
        (("prompt_lookup",), {"num_beams": 2}, "prompt_lookup: --num-beams must be 1"),
        (("rpc",), {"temperature": 0.0}, "rpc: --temperature must be above 0"),
        (("rpc",), {"stop": ("x",)}, "rpc: --stop must be left out"),
        ((), {"temperature": float("nan")}, "--temperature must be a number >= 0"),
        ((), {"top_p": 0.0}, "--top-p must be"),
        (("classifier_free_guidance:unconditional=zoo:small,alpha=2",), {}, "alpha and beta must be left out"),
    ],
)
def test_settings_that_do_not_go_together(methods, settings, told):
    with pytest.raises(InputError, match=told):
        decoder(*methods, **settings)


def test_a_rule_that_would_compare_a_model_with_itself():
    made = decoder("nudging:nudger=self")
    with pytest.raises(InputError, match="--peer-prompt nudger=TEXT"):
        made.encode(ROWS)
    made.encode([*ROWS, Row("x", "a", {"nudger": "b"})])
    decoder("emulated_disalignment:tuned=zoo:chat,reference=self").encode(ROWS)


def test_prompts_are_checked_before_the_first_is_decoded():
    with pytest.raises(InputError, match="long: the prompt must be within zoo:base's context of 256"):
        next(decoder().run([*ROWS, Row("long", "a " * 300, where="long")]))


def test_lines_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "new" / "o.jsonl"
    lines = Lines(path, resume=False)
    lines.add({"id": "a", "text": "é\n"})
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(PlumblineError, match="no space is left"):
        lines.add({"id": "b"})
    monkeypatch.undo()
    lines.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"id": "a", "text": "é\n"}]
    again = Lines(path, resume=True)
    again.add({"id": "b"})
    again.close()
    assert len(path.read_text().splitlines()) == 2
    Lines(path, resume=False).close()
    assert path.read_text() == ""
    with pytest.raises(InputError, match="-o must be a file that can be written"):
        Lines(tmp_path, resume=False)


def test_spent_adds_up():
    total = Spent()
    for part in (Spent(1, 10, 2.0, drafted=4, kept=1), Spent(2, 20, 1.0)):
        total.add(part)
    assert (total.rows, total.tokens, total.rate, total.drafted) == (3, 30, 10.0, 4)
