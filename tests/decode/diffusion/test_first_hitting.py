"""The first-hitting sampler: exact by enumeration, on real masked LMs in batches, times, the lossy parallel form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from plumbline.core.errors import InputError
from plumbline.decode.diffusion import ancestral_sampling, first_hitting
from plumbline.decode.masked import MaskedLM, masked_probs
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.joint import JointTable, Law, any_order_law, random_conditionals, total_variation

PAD, MASK = 0, 4
SHAPE: dict[str, Any] = dict(vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                             intermediate_size=48, max_position_embeddings=40, pad_token_id=PAD)  # fmt: skip
FAMILIES = {
    "bert": (BertConfig, BertForMaskedLM, {}),
    "roberta": (RobertaConfig, RobertaForMaskedLM, {}),
    "modernbert": (ModernBertConfig, ModernBertForMaskedLM,
                   dict(bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=8)),
}  # fmt: skip


def law_of(logits_fn: Any, x: torch.Tensor, mask: int, **options: Any) -> Law:
    def sample(chooser: Chooser) -> tuple[int, ...]:
        return tuple(first_hitting(logits_fn, x, mask_token_id=mask, chooser=chooser, **options).tokens[0].tolist())

    return exact_distribution(sample)


def tiny_masked(family: str) -> torch.nn.Module:
    config, model, extra = FAMILIES[family]
    with forked(0, family):
        return model(config(**SHAPE, **extra)).eval()


def test_law_of_a_joint_table_given_a_token() -> None:
    table = JointTable.random(3, 3, seed=4)
    assert total_variation(law_of(table.masked, torch.full((1, 3), 3), 3), table.law()) < 1e-10
    law = law_of(table.masked, torch.tensor([[3, 2, 3]]), 3)
    wanted = table.probs[:, 2] / table.probs[:, 2].sum()
    assert max(abs(p - float(wanted[s[0], s[2]])) for s, p in law.items()) < 1e-12


def test_inconsistent_conditionals_are_averaged_over_orders() -> None:
    net = random_conditionals(2, 3, seed=0)
    law = law_of(net, torch.full((1, 3), 2), 2)
    assert total_variation(law, any_order_law(net, 2, 3)) < 1e-12
    assert sum(law.values()) == pytest.approx(1)


@pytest.mark.parametrize(("per_call", "least"), [(2, 0.02), (3, 0.1)])
def test_several_a_call_is_lossy(per_call: int, least: float) -> None:
    table = JointTable.random(2, 3, seed=1)
    loss = total_variation(law_of(table.masked, torch.full((1, 3), 2), 2, per_call=per_call), table.law())
    assert least < loss < 0.5  # 0.034 and 0.159


def test_rows_with_different_numbers_of_masks_are_what_they_are_alone() -> None:
    table = JointTable.random(3, 3, seed=5)
    x = torch.tensor([[3, 3, 3], [0, 1, 2], [1, 3, 2]])
    calls = table.calls
    out = first_hitting(table.masked, x, mask_token_id=3, chooser=Chooser(generator(0)))
    assert out.calls == table.calls - calls == 3
    assert out.tokens[1].tolist() == [0, 1, 2] and out.order[1].tolist() == [-1, -1, -1]
    assert sorted(out.order[0].tolist()) == [0, 1, 2] and out.order[2].tolist() == [-1, 0, -1]
    assert int((x == 3).sum()) == 4, "the input was changed"

    def both(chooser: Chooser) -> tuple[tuple[int, ...], ...]:
        filled = first_hitting(table.masked, x[[0, 2]], mask_token_id=3, chooser=chooser)
        return tuple(map(tuple, filled.tokens.tolist()))

    second: Law = {}
    for (_, row), p in exact_distribution(both).items():
        second[row] = second.get(row, 0.0) + p
    assert total_variation(second, law_of(table.masked, x[2:], 3)) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampler", [first_hitting, ancestral_sampling])
def test_masked_models_of_real_architectures_in_batches(
    family: str, dtype: torch.dtype, sampler: Callable[..., Any]
) -> None:
    model = tiny_masked(family).to(dtype)
    x = torch.full((3, 12), MASK)
    x[:, 0] = 1
    x[1, 8:], x[2, 3:6] = PAD, 7
    out = sampler(model, x, mask_token_id=MASK, chooser=Chooser(generator(1)))
    assert MASK not in out.tokens and torch.equal(out.tokens[x != MASK], x[x != MASK])
    assert 1 <= out.calls <= (11 if sampler is first_hitting else 26)
    again = sampler(model, x, mask_token_id=MASK, chooser=Chooser(generator(1)))
    assert torch.equal(again.tokens, out.tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_logits(family: str) -> None:
    lm = MaskedLM(tiny_masked(family))
    short = torch.tensor([[1, MASK, 5, 6]])
    padded = torch.cat([short, torch.zeros(1, 5, dtype=torch.long)], 1)
    assert torch.allclose(lm(short), lm(padded)[:, :4], atol=1e-5) and lm.calls == 2


def test_times_fall_and_are_the_largest_of_uniforms() -> None:
    seen = []

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x.eq(2).sum(1), t))
        return torch.zeros(*x.shape, 3)

    x = torch.full((2000, 3), 2)
    out = first_hitting(net, x, mask_token_id=2, time_of=lambda share: share**2, chooser=Chooser(generator(2)))
    assert out.times is not None and len(seen) == 3
    by_order = out.times.gather(1, out.order.argsort(1))
    assert bool((by_order.diff(dim=1) < 0).all())
    shares = by_order.sqrt().mean(0)  # order statistics of three uniforms: 3/4, 2/4, 1/4
    assert torch.allclose(shares, torch.tensor([0.75, 0.5, 0.25], dtype=torch.float64), atol=0.02)
    assert torch.allclose(seen[0][1].double(), by_order[:, 0])


def test_the_mask_is_forbidden_and_low_precision_is_widened() -> None:
    logits = torch.tensor([[0.0, 1.0, 9.0]], dtype=torch.bfloat16)
    p = masked_probs(logits, 2)
    assert (
        p.dtype == torch.float64 and float(p[0, 2]) == 0 and float(p[0, 1] / p[0, 0]) == pytest.approx(2.718281828459)
    )


def test_refusals() -> None:
    table = JointTable.random(2, 2)
    with pytest.raises(InputError, match=r"\[B, L\]"):
        first_hitting(table.masked, torch.tensor([2, 2]), mask_token_id=2)
    with pytest.raises(InputError, match="logits_fn"):
        first_hitting(lambda x: torch.zeros(1, 3), torch.tensor([[2, 2]]), mask_token_id=2)
    with pytest.raises(InputError, match="NaN"):
        first_hitting(lambda x: torch.full((1, 2, 3), torch.nan), torch.tensor([[2, 2]]), mask_token_id=2)
    with pytest.raises(InputError, match="eval"):
        first_hitting(tiny_masked("bert").train(), torch.tensor([[1, MASK]]), mask_token_id=MASK)
    with pytest.raises(InputError, match="per_call"):
        first_hitting(table.masked, torch.tensor([[2, 2]]), mask_token_id=2, per_call=0)
