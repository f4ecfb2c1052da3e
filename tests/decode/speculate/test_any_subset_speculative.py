"""Any-subset speculative decoding: exact on tables and on a tiny XLNet and BERT, calls counted, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, XLNetConfig, XLNetLMHeadModel

from plumbline.core.errors import InputError
from plumbline.decode.speculate import any_subset_speculative
from plumbline.decode.speculate.any_order import BigramDrafter, MaskedRows, TwoStream, visibility
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.joint import JointTable, Law, total_variation

MASK = 3


def law_of(model_fn: Any, tokens: torch.Tensor, **options: Any) -> Law:
    def fill(chooser: Chooser) -> tuple[int, ...]:
        out = any_subset_speculative(model_fn, tokens, chooser=chooser, **options)
        return tuple(out.tokens[0].tolist())

    return exact_distribution(fill)


def one_at_a_time(model_fn: Any, tokens: torch.Tensor, order: list[int], vocab: int) -> Law:
    """The product of conditionals in the order's sequence, from one call a position: the definition."""
    sees, law = visibility(tokens.shape[1], order, tokens.device), {tuple(tokens[0].tolist()): 1.0}
    for at in order:
        after: Law = {}
        for sequence, weight in law.items():
            logits = model_fn(torch.tensor([sequence]), sees, torch.tensor([at]))[0].double()[:vocab]
            for token, p in enumerate(torch.softmax(logits, 0).tolist()):
                after[(*sequence[:at], token, *sequence[at + 1 :])] = weight * p
        law = after
    return law


def random_weights(model: Any, seed: int) -> Any:
    g = generator(seed, "any_order")
    for p in model.parameters():
        if p.dim() > 1:
            p.data = torch.randn(p.shape, generator=g) * p.shape[-1] ** -0.5 * 2
    return model.eval()


def xlnet(vocab: int = 4) -> XLNetLMHeadModel:
    with forked(0):
        shape = dict(d_model=16, n_layer=2, n_head=2, d_inner=24, pad_token_id=None)
        model = XLNetLMHeadModel(XLNetConfig(vocab_size=vocab, **shape))
    return random_weights(model, 1)


def bert() -> BertForMaskedLM:
    config = BertConfig(vocab_size=5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                        max_position_embeddings=8, pad_token_id=4)  # fmt: skip
    with forked(0):
        return random_weights(BertForMaskedLM(config), 2).double()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_bigram_drafts_are_exact_too_and_cost_one_call_a_round(order: tuple[int, ...]) -> None:
    table, calls = JointTable.random(3, 3, seed=1), []

    def fill(chooser: Chooser) -> tuple[int, ...]:
        out = any_subset_speculative(table.any_order, torch.full((1, 3), MASK), mask_token_id=MASK, order=order, k=2,
                                     drafter=BigramDrafter(4, (MASK,)), chooser=chooser)  # fmt: skip
        calls.append(out.calls)
        return tuple(out.tokens[0].tolist())

    assert total_variation(exact_distribution(fill), table.law()) < 1e-10
    assert max(calls) <= 3 and min(calls) == 1


def test_given_tokens_condition_and_stay() -> None:
    table = JointTable.random(3, 3, seed=2)
    law = law_of(table.any_order, torch.tensor([[MASK, 1, MASK]]), mask_token_id=MASK, order=[2, 0], k=2)
    wanted = table.probs[:, 1, :] / table.probs[:, 1, :].sum()
    assert max(abs(p - float(wanted[s[0], s[2]])) for s, p in law.items()) < 1e-12
    assert {s[1] for s in law} == {1}


def test_temperature_acts_on_draft_and_target() -> None:
    table = JointTable.random(3, 2, seed=3)
    law = law_of(table.any_order, torch.full((1, 2), MASK), mask_token_id=MASK, k=2, temperature=0.5)
    first = table.probs.sum(1) ** 2
    second = (table.probs / table.probs.sum(1, keepdim=True)) ** 2
    wanted = (first / first.sum())[:, None] * second / second.sum(1, keepdim=True)
    assert max(abs(p - float(wanted[s])) for s, p in law.items()) < 1e-12


def test_a_two_stream_model_is_sampled_exactly_and_never_sees_its_own_token() -> None:
    model_fn, tokens = TwoStream(xlnet()), torch.tensor([[1, MASK, MASK, MASK]])
    for order in ([1, 2, 3], [3, 1, 2]):
        law = law_of(model_fn, tokens, mask_token_id=MASK, order=order, k=2)
        assert total_variation(law, one_at_a_time(model_fn, tokens, order, 3)) < 1e-5  # XLNet runs in float32 only
    far = torch.tensor([[1, 0, 2, 2]])
    sees = visibility(4, [1, 2, 3], far.device)
    before, after = (model_fn(x, sees, torch.tensor([1])) for x in (tokens, far))
    assert torch.allclose(before, after, atol=1e-6)


def test_a_long_two_stream_text_takes_fewer_calls_than_tokens() -> None:
    model = TwoStream(xlnet(40))
    tokens = torch.full((1, 24), 39)
    tokens[0, ::6] = torch.tensor([3, 5, 7, 9])
    for drafter in (None, BigramDrafter(40, (39,))):
        start = model.calls
        out = any_subset_speculative(model, tokens, mask_token_id=39, k=5, drafter=drafter,
                                     chooser=Chooser(generator(0)))  # fmt: skip
        assert out.calls == model.calls - start <= 20
        assert out.tokens[0, ::6].tolist() == [3, 5, 7, 9] and 39 not in out.tokens[0]
    assert int((tokens == 39).sum()) == 20, "the input was changed"


def test_a_two_stream_model_in_bfloat16() -> None:
    model = xlnet(40)
    tokens = torch.full((1, 12), 39)
    tokens[0, 0] = 1
    out = any_subset_speculative(TwoStream(model.bfloat16()), tokens, mask_token_id=39, chooser=Chooser(generator(0)))
    assert 39 not in out.tokens and out.calls <= 11


def test_a_masked_lm_needs_slow_verify_and_is_exact_with_it() -> None:
    model_fn, tokens = MaskedRows(bert(), MASK), torch.tensor([[1, MASK, MASK, MASK]])
    with pytest.raises(InputError, match="slow_verify.*see itself"):
        any_subset_speculative(model_fn, tokens, mask_token_id=MASK)
    order = [2, 3, 1]

    def fill(chooser: Chooser) -> tuple[int, ...]:
        out = any_subset_speculative(
            model_fn, tokens, mask_token_id=MASK, order=order, k=3, slow_verify=True, chooser=chooser
        )
        assert out.calls >= 3, "a row a position is not cheaper than one at a time, and is counted so"
        return tuple(out.tokens[0].tolist())

    law = exact_distribution(fill)
    assert total_variation(law, _masked_law(model_fn, tokens, order)) < 1e-10


def _masked_law(model_fn: MaskedRows, tokens: torch.Tensor, order: list[int]) -> Law:
    law = {tuple(tokens[0].tolist()): 1.0}
    for at in order:
        after: Law = {}
        for sequence, weight in law.items():
            logits = model_fn.logits(torch.tensor([sequence]))[0, at].double()
            logits[MASK] = -torch.inf
            for token, p in enumerate(torch.softmax(logits, 0).tolist()):
                if p:
                    after[(*sequence[:at], token, *sequence[at + 1 :])] = weight * p
        law = after
    return law


def test_a_model_that_looks_at_hidden_tokens_is_found_out() -> None:
    def peeks(tokens: torch.Tensor, content_mask: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((tokens[0, targets] + 1) % 3, 4).double() * 5

    with pytest.raises(InputError, match="content_mask shows alone"):
        any_subset_speculative(peeks, torch.full((1, 3), MASK), mask_token_id=MASK, chooser=Chooser(generator(0)))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"order": [0, 1]}, "masked positions"), ({"order": [0, 0, 1]}, "masked positions"), ({"k": 0}, "k must be")],
)
def test_refusals(change: dict[str, Any], says: str) -> None:
    table = JointTable.random(3, 3)
    with pytest.raises(InputError, match=says):
        any_subset_speculative(table.any_order, torch.full((1, 3), MASK), **({"mask_token_id": MASK} | change))
    with pytest.raises(InputError, match="TwoStream"):
        any_subset_speculative(xlnet(), torch.full((1, 3), MASK), mask_token_id=MASK)
    with pytest.raises(InputError, match="some given token"):
        any_subset_speculative(TwoStream(xlnet()), torch.full((1, 3), MASK), mask_token_id=MASK)
