"""Two tiny models on disk, with one tokenizer or with two."""

from __future__ import annotations

import pytest

from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Folders of a base model, of the same model with noise in one layer, and of one with another tokenizer."""
    folder = tmp_path_factory.mktemp("pair")
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    base = tiny("llama", vocab=len(tokenizer), seed=0)
    tuned = tiny("llama", vocab=len(tokenizer), seed=0)
    weight = tuned.model.layers[1].mlp.down_proj.weight
    weight.data += 0.3 * weight.data.flip(0)
    other_tokenizer = tiny_tokenizer(400)
    other = tiny("gpt2", vocab=len(other_tokenizer), seed=1)
    for name, model, words in (
        ("base", base, tokenizer),
        ("tuned", tuned, tokenizer),
        ("other", other, other_tokenizer),
    ):
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder
