"""Which tokens are plausible, by a slow loop; sums of log-probabilities that meet -inf."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.mixing import nucleus, plausible, shifted, weighted
from plumbline.kernels.seeds import generator

INF = math.inf


@pytest.mark.parametrize(("ratio", "min_keep"), [(0.1, 1), (0.01, 5), (0.9, 3), (1.0, 1), (0.5, 99)])
def test_plausible_is_its_definition(ratio: float, min_keep: int) -> None:
    logits = 3 * torch.randn(4, 30, generator=generator(0))
    logits[1, 3] = -INF
    kept = plausible(logits, ratio, min_keep)
    for row, found in zip(torch.softmax(logits.double(), -1).tolist(), kept.tolist(), strict=True):
        kth = sorted(row, reverse=True)[min(min_keep, 30) - 1]
        bound = min(max(row) * ratio, kth)
        assert found == [p > 0 and p >= bound * (1 - 1e-6) for p in row]


def test_plausible_at_its_limits() -> None:
    logits = torch.tensor([[1.0, 2.0, -INF, 2.0], [-INF, 0.0, -INF, -INF]])
    assert plausible(logits, 0.0).tolist() == [[True, True, False, True], [False, True, False, False]]
    assert plausible(logits, 1.0).tolist() == [[False, True, False, True], [False, True, False, False]]
    assert plausible(logits, 1.0, 3).tolist() == [[True, True, False, True], [False, True, False, False]]
    shifted_rows = logits + torch.tensor([[5.0], [-7.0]])
    assert torch.equal(plausible(logits, 0.3), plausible(shifted_rows, 0.3))
    with pytest.raises(InputError, match="plausible: ratio must be a number from 0 to 1, got nan"):
        plausible(logits, math.nan)
    with pytest.raises(InputError, match="plausible: min_keep"):
        plausible(logits, 0.5, 0)


def test_plausible_in_bf16_compares_in_float32() -> None:
    logits = torch.tensor([[8.0, 8.0 + math.log(0.1) + 0.01]]).bfloat16()
    assert torch.equal(plausible(logits, 0.1), plausible(logits.float(), 0.1))


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 1.0])
def test_nucleus_is_the_fewest_likeliest_tokens(top_p: float) -> None:
    logits = 2 * torch.randn(5, 25, generator=generator(1))
    logits[2, 4] = -INF
    for row, found in zip(torch.softmax(logits.double(), -1).tolist(), nucleus(logits, top_p).tolist(), strict=True):
        wanted, mass = set[int](), 0.0
        for i in sorted(range(25), key=lambda i: -row[i]):
            if (wanted and mass >= top_p) or row[i] == 0:
                break
            wanted.add(i)
            mass += row[i]
        assert {i for i, kept in enumerate(found) if kept} == wanted


def test_weighted_never_makes_a_nan() -> None:
    a = torch.tensor([[0.0, -1.0, -INF, -INF]])
    b = torch.tensor([[-2.0, -INF, -1.0, -INF]])
    assert weighted((2.0, a), (-1.0, b)).tolist() == [[2.0, -INF, -INF, -INF]]
    assert weighted((2.0, a), (0.0, b)).tolist() == [[0.0, -2.0, -INF, -INF]]
    assert torch.equal(weighted((1.0, a), (0.0, b)), a)
    for weights in ((0.0, 0.0), (1.0, INF), (math.nan, 1.0)):
        with pytest.raises(InputError, match="weighted: weights must be finite"):
            weighted((weights[0], a), (weights[1], b))


def test_shifted_by_hand_and_at_weight_zero() -> None:
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    towards, away = torch.tensor([[3.0, 1.0]]).double().log(), torch.tensor([[1.0, 1.0]]).double().log()
    out = torch.softmax(shifted(logits, towards, away, 2.0), -1)
    assert out[0, 0].item() == pytest.approx(0.9)  # 3 ** 2 / (3 ** 2 + 1)
    assert torch.softmax(shifted(logits, towards, away, 0.0), -1)[0].tolist() == [0.5, 0.5]
