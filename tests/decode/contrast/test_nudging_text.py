from __future__ import annotations

import copy

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.contrast import nudging_text
from plumbline.decode.contrast.nudged import Duet, Step, _repeat, _tidy
from plumbline.models import load
from plumbline.models.lm import LM

ASKED = ["Add 14 and 20.", "Hello!", "Tell me how to brew tea with mint."]


@pytest.fixture(scope="module")
def aligned():
    return load("zoo:chat")


def turn(lm, question):
    message = [{"role": "user", "content": question}]
    return lm.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


class Scripted:
    """A voice that knows what follows each text, with a probability; a word is a token."""

    def __init__(self, follows):
        self.follows = follows

    def steps(self, text, n):
        for _ in range(n):
            word, top = self.follows(text)
            yield Step(word, top, word == "")
            if not word:
                return
            text += word

    def length(self, text):
        return len(text.split())

    def full(self, text):
        return False


def spoken(base, nudger, threshold=0.5, chunk=4, budget=20, rounds=10):
    duet = Duet(Scripted(base), Scripted(nudger), ("Q:", "N:"), threshold, chunk, budget)
    return duet.write(rounds)


def test_by_hand():
    story = {"Q: Sure, the": (" cat", 0.9), "Q: Sure, the cat": (" sat", 0.4), "Q: Sure, the cat sat": ("", 0.9)}
    sayings = {"N:": [" Sure,", " the", " dog", " ran"], "N: Sure, the cat": [" sat", " down", " there", " now"]}

    def nudger(text):
        for start, words in sayings.items():
            for i in range(4):
                if text == start + "".join(words[:i]):
                    return words[i], 1.0
        return "", 1.0

    found = spoken(lambda text: story.get(text, (" um", 0.1)), nudger)
    # the base is sure of "cat" after "Sure, the", then unsure; its end after "sat" gives the turn back to the nudger
    assert found.text == "Sure, the cat sat down there now" and found.stopped == "nudger"
    assert found.spans == ((0, 9), (13, 32)) and found.share == pytest.approx(28 / 32)


def test_agreement_ends_the_nudgers_words():
    follows = {"Q: one": (" tw", 0.1), "Q: one tw": ("o", 0.1)}
    proposal = {"N:": " one", "N: one": " two", "N: one two": " x", "N: one two x": " y"}
    found = spoken(lambda t: follows.get(t, ("", 0.9)), lambda t: (proposal.get(t, ""), 1.0))
    assert found.text == "one tw" and found.spans == ((0, 3),)  # the base's token, though it is unsure of it


def test_the_same_words_four_times_running_end_an_answer():
    found = spoken(lambda _: ("", 0.9), lambda t: (" la", 1.0), budget=100)
    assert found.text == "la la la" and found.stopped == "repetition"
    assert spoken(lambda _: ("", 0.9), lambda t: (" la", 1.0), rounds=2).stopped == "rounds"
    assert spoken(lambda _: ("", 0.9), lambda t: (" la", 1.0), budget=2).stopped == "length"


def test_a_repeated_end_is_cut():
    twice = "Once upon a time. " + "and so it went on and on again;" * 3
    assert _repeat(twice) == 31
    assert _repeat("a" * 59) == 0 and _repeat("a" * 60) == 30
    tidy = _tidy("  " + twice, [(2, 6), (30, 70)], "nudger")
    assert tidy.text == "Once upon a time. and so it went on and on again;"
    assert tidy.spans == ((0, 4), (28, 49))


def test_one_model_in_both_parts_writes_its_own_greedy_answer(aligned):
    turns = [turn(aligned, q).removeprefix("<|bos|>") for q in ASKED]
    for threshold in (0.0, 1.0):
        found = nudging_text(aligned, aligned, turns, turns, threshold=threshold, chunk=4, max_new_tokens=200)
        for text, said in zip(turns, found, strict=True):
            ids = aligned.tokenizer(text, return_tensors="pt")["input_ids"]
            out = aligned.model.generate(ids, max_new_tokens=200, do_sample=False, pad_token_id=0)
            alone = aligned.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            assert said.text == alone.strip() and said.stopped == "nudger"


class Relabelled:
    """The same tokenizer with every id renamed: another vocabulary for the same text."""

    def __init__(self, tokenizer, to):
        self.tokenizer, self.to, self.back = tokenizer, to, to.argsort()
        self.chat_template, self.eos_token_id = tokenizer.chat_template, int(to[tokenizer.eos_token_id])
        self.apply_chat_template = tokenizer.apply_chat_template

    def __call__(self, text, **settings):
        return {
            "input_ids": self.to[torch.tensor(self.tokenizer(text, **settings)["input_ids"], dtype=torch.long)].tolist()
        }

    def decode(self, ids, **settings):
        return self.tokenizer.decode(self.back[torch.tensor(ids, dtype=torch.long)].tolist(), **settings)


def test_only_text_passes_between_the_two(aligned):
    to = torch.randperm(1024, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(aligned.model)
    with torch.no_grad():
        tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        for table in {id(t): t for t in tables}.values():  # one where they are tied
            table.copy_(table.clone()[to.argsort()])
    model.generation_config.eos_token_id = to[[2, 6]].tolist()
    renamed = LM(model, Relabelled(aligned.tokenizer, to), "renamed")
    base = load("zoo:next")
    settings = {"threshold": 0.7, "chunk": 4, "max_new_tokens": 30}
    plain = [q + "\n" for q in ASKED]
    assert nudging_text(base, renamed, plain, **settings) == nudging_text(base, aligned, plain, **settings)


def test_it_is_lossy_and_alone_equals_in_a_batch(aligned):
    base, plain = load("zoo:base"), [q + "\n" for q in ASKED]
    settings = {"threshold": 0.5, "chunk": 4, "max_new_tokens": 20}
    found = nudging_text(base, aligned, plain, **settings)
    assert found == [nudging_text(base, aligned, [p], **settings)[0] for p in plain]
    ids = [base.tokenizer(p, return_tensors="pt")["input_ids"] for p in plain]
    alone = [base.model.generate(i, max_new_tokens=20, do_sample=False, pad_token_id=0) for i in ids]
    texts = [base.tokenizer.decode(o[0, i.shape[1] :]) for i, o in zip(ids, alone, strict=True)]
    assert all(f.text[:5] != t[:5] for f, t in zip(found, texts, strict=True))  # from the first word on
    assert all(0 < f.share <= 1 for f in found)


def test_a_full_context_ends_an_answer(aligned):
    long = " ".join(["Add 14 and 20 and 72."] * 14)
    assert nudging_text(aligned, aligned, [long], threshold=0.3)[0].stopped in ("context", "nudger")
    longer = " ".join(["Add 14 and 20 and 72."] * 40)
    assert nudging_text(aligned, aligned, [longer])[0].stopped == "context"


def test_refusals(aligned):
    with pytest.raises(InputError, match="nudging_text: nudger_prompts must be one for each of the 2 prompts, got 1"):
        nudging_text(aligned, aligned, ["a", "b"], ["a"])
    with pytest.raises(InputError, match="nudging_text: chunk must be a whole number >= 1, got 0"):
        nudging_text(aligned, aligned, ["a"], chunk=0)
