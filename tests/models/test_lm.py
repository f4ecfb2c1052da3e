from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from plumbline.lab.tiny import tiny
from plumbline.models.lm import LM, as_told

IDS = torch.tensor([[5, 6, 7]])
TOLD = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=2)


def test_settings_of_the_checkpoint_stay_out_of_what_was_told() -> None:
    model = tiny("llama", vocab=13)
    plain = model.generate(IDS, generation_config=TOLD)
    model.generation_config.repetition_penalty = 5.0
    leaked = model.generate(IDS, generation_config=TOLD)
    with as_told(model):
        assert torch.equal(model.generate(IDS, generation_config=TOLD), plain)
    assert not torch.equal(leaked, plain)  # what transformers does by itself


def test_the_checkpoints_settings_come_back_after_an_error() -> None:
    model = tiny("llama")
    before = model.generation_config
    with pytest.raises(ZeroDivisionError), as_told(model):
        _ = 1 / 0
    assert model.generation_config is before


@pytest.mark.parametrize(("told", "ends"), [(None, [7]), (2, [2, 7]), ([9, 2], [2, 7, 9]), (7, [7])])
def test_a_text_ends_where_checkpoint_or_tokenizer_say(told, ends) -> None:
    model = tiny("llama")
    model.generation_config.eos_token_id = told
    assert LM(model, SimpleNamespace(eos_token_id=7), "tiny").ends == ends
    model.generation_config = None
    assert LM(model, SimpleNamespace(eos_token_id=None), "tiny").ends == []
