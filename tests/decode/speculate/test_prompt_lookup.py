from __future__ import annotations

import torch

from plumbline.decode.loop import Report
from plumbline.decode.speculate import prompt_lookup
from plumbline.lab.transitions import following


def spent(**how) -> Report:
    model, text = following(vocab=64, cycle=16, seed=0)
    told = Report()
    how |= dict(max_new_tokens=48, do_sample=False, pad_token_id=0, report=told, adapt=False)
    out = model.generate(torch.tensor([text]), custom_generate=prompt_lookup, **how)
    assert out[0, 17:].tolist() == (text[1:] * 3)[:48]
    return told


def test_calls_are_the_fewest_that_the_drafts_allow() -> None:
    """48 copied tokens, 10 drafts and the token after them a pass: 5 passes after the reading of the prompt."""
    told = spent()
    assert (told.tokens, told.calls) == (48, 1 + 5)
    assert told.kept == 48 - 5 and told.drafted == 10 * 4 + 3  # the last pass drafts no more than is left
    assert spent(tokens=3).calls == 1 + 12


def test_what_is_read_is_the_prompt_and_the_drafts() -> None:
    told = spent()
    assert told.fed == 16 + told.drafted + 5
