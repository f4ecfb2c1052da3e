"""The shipped models load, are small, and reach their targets on a subsample of the measurements on their cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbline.core.errors import LoadError
from plumbline.models import zoo
from plumbline.models.zoo.measure import TARGETS, evaluate

# A figure over 60 questions of a model that meets a target of 0.9 lies this far below it once in a thousand times.
SLACK = 0.12


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(LoadError, match="base, chat, small, next"):
        zoo.path("big")


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_model_is_an_ordinary_small_llama_folder(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(zoo.path(name), dtype="auto")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() <= 3_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(zoo.path(name))
    assert len(tokenizer) == model.config.vocab_size
    assert bool(tokenizer.chat_template) == (name == "chat")
    text = "Add 47 and 38. Ünïcode <|end|>"
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text
    assert tokenizer.tokenize("47") == ["4", "7"]


def test_together_they_are_at_most_16_megabytes_and_small_is_a_fifth_of_base() -> None:
    size = sum(file.stat().st_size for name in zoo.NAMES for file in zoo.path(name).iterdir())
    assert size <= 16e6
    parameters = {name: _card(zoo.path(name))["parameters"] for name in zoo.NAMES}
    assert parameters["small"] * 5 <= parameters["base"]


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_card_says_that_every_target_is_met(name: str) -> None:
    card = _card(zoo.path(name))
    assert card["holds"] is True
    for figure, least in TARGETS[name].items():
        assert card["measured"][figure] >= least


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_saved_weights_reach_the_targets(name: str) -> None:
    measured = evaluate(zoo.path(name), base=None if name == "base" else zoo.path("base"), limit=60, seed=1)
    card = _card(zoo.path(name))["measured"]
    for figure, least in TARGETS[name].items():
        assert measured[figure] >= least - SLACK, figure
        assert measured[figure] == pytest.approx(card[figure], abs=SLACK), figure


def test_rarely_stated_facts_are_known_less() -> None:
    figures = _card(zoo.path("base"))["measured"]
    assert figures["facts_0"] < 0.15 < figures["facts_100"]
    assert figures["facts_1"] < figures["facts_20"]


def _card(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text())
