from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from plumbline.lab.tiny import tiny
from plumbline.models.lm import as_told

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
