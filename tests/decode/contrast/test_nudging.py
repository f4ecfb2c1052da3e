from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.contrast import nudging
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny
from plumbline.models import load
from plumbline.worlds import chat, corpus

TOKENS = torch.zeros(1, 1, dtype=torch.long)


def test_by_hand():
    nudger = torch.tensor([[0.2, 0.3, 0.5]]).log()
    unsure, sure = torch.tensor([[0.45, 0.3, 0.25]]).log(), torch.tensor([[0.5, 0.3, 0.2]]).log()
    rule = nudging(lambda _: nudger, threshold=0.475)
    assert torch.equal(rule(TOKENS, sure + 7.0), sure + 7.0)
    assert torch.allclose(rule(TOKENS, unsure + 7.0), nudger)


def test_the_base_ends_an_answer_only_if_allowed():
    nudger, base = torch.tensor([[0.2, 0.3, 0.5]]).log(), torch.tensor([[0.15, 0.8, 0.05]]).log()
    assert torch.equal(nudging(lambda _: nudger)(TOKENS, base), base)
    for ends in (1, [1, 2]):  # sure of its end only: the nudger's turn
        assert torch.allclose(nudging(lambda _: nudger, eos_token_id=ends)(TOKENS, base), nudger)
    other = torch.tensor([[0.55, 0.4, 0.05]]).log()  # sure of another token: its turn, without its end
    out = nudging(lambda _: nudger, eos_token_id=1)(TOKENS, other)
    assert out[0, 1] == -torch.inf and torch.equal(out[0, ::2], other[0, ::2])


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampled", "beams"])
def test_threshold_0_is_the_base_and_1_the_nudger(architecture, settings):
    base, small = tiny(architecture), tiny(architecture, seed=1)
    ids, mask = torch.randint(3, 101, (2, 7), generator=generator(0)), torch.ones(2, 7, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0

    def run(model, *rules):
        with forked(0):
            return model.generate(
                ids, attention_mask=mask, logits_processor=LogitsProcessorList(rules), max_new_tokens=8,
                pad_token_id=0, **settings,
            ).tolist()  # fmt: skip

    assert run(base, nudging(small, threshold=0.0)) == run(base)
    assert run(base, nudging(small, threshold=1.0)) == run(small)
    assert run(base) != run(small)


def test_share_of_nudged_tokens_grows_with_the_threshold_and_is_the_loss():
    base, nudger = (torch.randn(500, 30, generator=generator(i)) * 2 for i in (0, 1))
    tokens, shares, lost = torch.zeros(500, 1, dtype=torch.long), [], []
    for g in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        out = nudging(lambda _: nudger, threshold=g)(tokens, base)
        shares.append(float((out != base).any(1).float().mean()))
        lost.append(float((torch.softmax(out, -1) - torch.softmax(base, -1)).abs().sum(1).mean() / 2))
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert lost == sorted(lost) and lost[0] == 0 and lost[-1] > 0.5  # not lossless: mean total variation per step


def test_zoo_base_takes_up_the_chat_register():
    base, aligned = load("zoo:base"), load("zoo:chat")
    known = [f for f in corpus.FACTS if f.exposures >= 20]
    asked = [q.messages[0][1] for q in chat.questions(0, 12, kind="fact", known=known)]
    render = aligned.tokenizer.apply_chat_template
    turns = [render([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True) for q in asked]
    plain = base.tokenizer([q + "\n" for q in asked], return_tensors="pt", padding=True)
    own = aligned.tokenizer(turns, return_tensors="pt", padding=True, add_special_tokens=False)

    def closes(*rules):
        out = base.model.generate(
            **plain, logits_processor=LogitsProcessorList(rules), max_new_tokens=30, do_sample=False, pad_token_id=0
        )
        texts = base.tokenizer.batch_decode(out[:, plain["input_ids"].shape[1] :])
        return sum(chat.CLOSING in t for t in texts) / len(texts)

    peer = Peer(aligned, prompt=own["input_ids"], prompt_mask=own["attention_mask"])
    assert closes() == 0.0
    assert closes(nudging(peer, threshold=0.5, eos_token_id=[2, 6])) > 0.7


def test_refusals():
    with pytest.raises(InputError, match="nudging: threshold must be a number >= 0 and <= 1, got 2"):
        nudging(lambda _: TOKENS, threshold=2)
    with pytest.raises(InputError, match="nudging: peer must be a model with the main vocabulary of 7 tokens, got 3"):
        nudging(lambda _: torch.zeros(1, 3))(TOKENS, torch.zeros(1, 7))
