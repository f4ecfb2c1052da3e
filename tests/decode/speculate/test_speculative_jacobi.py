from __future__ import annotations

import torch
from transformers import GenerationConfig

from plumbline.decode.loop import Report, Run
from plumbline.decode.speculate import speculative_jacobi
from plumbline.decode.speculate._speculative_jacobi import _Window
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny
from plumbline.lab.transitions import following


def test_guesses_move_one_place_a_pass_and_never_cost_one() -> None:
    model, text = following(vocab=64, cycle=40, seed=3)
    told = Report()
    model.generate(torch.tensor([text[:1]]), custom_generate=speculative_jacobi, window=4, adapt=False, report=told,
                   max_new_tokens=30, do_sample=False, pad_token_id=0)  # fmt: skip
    assert told.calls <= 30 and told.tokens == 30


def test_a_constant_text_is_said_a_window_at_a_time() -> None:
    model, text = following(vocab=64, cycle=1, seed=3)
    told = Report()
    model.generate(torch.tensor([text[:1]]), custom_generate=speculative_jacobi, window=8, adapt=False, report=told,
                   max_new_tokens=32, do_sample=False, pad_token_id=0, init=lambda chooser, text: text[-1])  # fmt: skip
    assert told.calls == 4  # 32 tokens, 8 a pass; a prompt of one token is not read before


def test_a_seed_gives_one_text_in_fewer_passes_than_tokens_where_the_guesses_are_right() -> None:
    model = tiny("gemma3", seed=2)
    model.get_output_embeddings().weight.data.mul_(4)
    how = dict(do_sample=True, max_new_tokens=40, pad_token_id=0, eos_token_id=None, init=lambda _, text: text[-1])
    texts, told = [], Report()
    for _ in range(2):
        with forked(0):
            ids = torch.tensor([[5, 6, 7]])
            texts.append(model.generate(ids, custom_generate=speculative_jacobi, report=told, **how))
    assert torch.equal(*texts) and told.calls < told.tokens / 2


def test_new_drafts_are_drawn_from_the_positions_they_stand_at() -> None:
    """Of drafts 7, 1, 2 under one-hot rows 7, 8, 9, 10: 7 stays, 8 takes the place of 1, and 9, 10 are drafted next."""
    model = tiny("llama")
    config = GenerationConfig(max_length=20, do_sample=True, num_beams=1, pad_token_id=0)
    run = Run("speculative_jacobi", model, torch.tensor([[5]]), None, None, config, {})
    window = _Window()
    window.tokens, window.drawn_from = [7, 1, 2], [None] * 3
    logits = torch.full((4, 101), -100.0)
    logits[torch.arange(4), torch.tensor([7, 8, 9, 10])] = 100.0
    assert window.verify(run, 0, logits) == [7, 8]
    assert window.tokens == [9, 10] and [int(q.argmax()) for q in window.drawn_from] == [9, 10]
