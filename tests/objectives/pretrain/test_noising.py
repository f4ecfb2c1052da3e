from __future__ import annotations

from functools import partial

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.objectives import rainbow_padding
from plumbline.objectives.pretrain.noising import cut_response, filled_rows, noised, padding_tokens

MASK = 5


def clean(rows=4000, prompt=4, length=24):
    ids = torch.randint(10, 90, (rows, length), generator=generator(0))
    return ids, (torch.arange(length) >= prompt).expand(rows, -1)


def test_what_is_hidden_is_labelled_and_nothing_else_changes():
    ids, response = clean()
    given = ids.clone()
    found = noised(ids, response, MASK, generator=generator(1))
    hidden = found["labels"] != -100
    assert torch.equal(hidden, found["input_ids"] == MASK) and bool((hidden <= response).all())
    assert torch.equal(found["labels"][hidden], ids[hidden]) and torch.equal(found["input_ids"][~hidden], ids[~hidden])
    assert torch.equal(ids, given) and found["attention_mask"].all()


def test_the_rate_is_uniform_over_rows_and_is_the_share_hidden():
    ids, response = clean()
    found = noised(ids, response, MASK, least=0.1, generator=generator(1))
    rate, hidden = found["mask_prob"], (found["labels"] != -100).float()
    assert (rate[:, :4] == 0).all() and (rate[:, 4:] == rate[:, 4:5]).all() and rate.dtype == torch.float32
    q = rate[:, 4]
    assert q.min() >= 0.1 and q.max() <= 1 and q.mean().item() == pytest.approx(0.55, abs=0.02)
    assert (q < 0.325).float().mean().item() == pytest.approx(0.25, abs=0.03)
    for low in (0.1, 0.4, 0.7):
        inside = (q > low) & (q <= low + 0.3)
        assert hidden[inside][:, 4:].mean().item() == pytest.approx(q[inside].mean().item(), abs=0.01)
    assert noised(ids, response, MASK)["mask_prob"][:, 4].min() >= 1e-3


def test_rows_of_one_length_with_their_prompts():
    fill = partial(rainbow_padding, eos_id=2, pad_ids=[7, 8])
    rows = [{"prompt_ids": [30, 31], "response_ids": [20]}, {"prompt_ids": [32], "response_ids": [20, 21, 22]}]
    ids, response = filled_rows(rows, 7, fill)
    assert ids.tolist() == [[30, 31, 20, 2, 7, 8, 7], [32, 20, 21, 22, 2, 7, 8]]
    assert response.tolist() == [[False] * 2 + [True] * 5, [False] + [True] * 6]
    with pytest.raises(InputError, match="filled_rows: length must be above the prompt's 2 tokens, got 2; raise it"):
        filled_rows(rows, 2, fill)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([20, 21, 2, 7, 8], [20, 21]),
        ([20, 7, 21, 8], [20, 21]),  # stray pads, no end
        ([7, 20, 2], []),  # it begins with padding
        ([2, 20], []),
        ([], []),
    ],
)
def test_decoded_rows_are_cut(ids, text):
    assert cut_response(ids, eos_id=2, pad_ids=[7, 8]) == text
    assert cut_response(torch.tensor(ids, dtype=torch.long), eos_id=2, pad_ids=[7, 8]) == text


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_start_at_the_mean_in_embedding_and_head(tied):
    tokenizer = tiny_tokenizer()
    old = len(tokenizer)
    model = tiny("llama", vocab=old, tie_word_embeddings=tied)
    before = model.get_input_embeddings().weight.detach().clone(), model.get_output_embeddings().weight.detach().clone()
    ids = padding_tokens(model, tokenizer, 7)
    assert ids == list(range(old, old + 7)) and len(set(tokenizer.convert_ids_to_tokens(ids))) == 7
    for weight, was in zip(
        (model.get_input_embeddings().weight, model.get_output_embeddings().weight), before, strict=True
    ):
        assert weight.shape[0] == old + 7 and torch.equal(weight[:old], was)
        assert torch.allclose(weight[old:], was.mean(0).expand(7, -1), atol=1e-6)
    assert model(torch.tensor([ids])).logits.shape[-1] == old + 7
    assert tokenizer.encode("<|pad_3|>", add_special_tokens=False) == [ids[3]]
    with torch.no_grad():
        model.get_input_embeddings().weight[ids[0]] = 3.0  # trained
    assert padding_tokens(model, tokenizer, 7) == ids and len(tokenizer) == old + 7
    assert (model.get_input_embeddings().weight[ids[0]] == 3.0).all()


def test_reserved_tokens_are_taken_where_there_are_enough():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|reserved_special_token_{i}|>" for i in range(9)]})
    model = tiny("llama", vocab=len(tokenizer) + 3)
    before = model.get_input_embeddings().weight.detach().clone()
    ids = padding_tokens(model, tokenizer, 7)
    assert tokenizer.convert_ids_to_tokens(ids) == [f"<|reserved_special_token_{i}|>" for i in range(7)]
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_bad_arguments_are_refused():
    ids, response = clean(2)
    with pytest.raises(InputError, match=r"noised: response must be \[B, L\] as ids, got \[2, 24\] and \[2, 23\]"):
        noised(ids, response[:, 1:], MASK)
    with pytest.raises(InputError, match="ids must be free of the mask id 10, got a text that holds it"):
        noised(torch.full((1, 4), 10), torch.ones(1, 4, dtype=torch.bool), 10)
