"""Sums over the vocabulary against slow loops, identities and limits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from plumbline.core.errors import InputError
from plumbline.kernels import vocab

N, V = 23, 50
INF = math.inf


def pair(n: int = N, v: int = V, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, v, generator=g) * 2
    return a, a + torch.randn(n, v, generator=g), torch.randint(v, (n,), generator=g)


def loop(za: list[float], zb: list[float], y: int) -> dict[str, float]:
    """Every column of one row, from its definition, in Python floats."""

    def log_softmax(z: list[float]) -> list[float]:
        top = max(z)
        lse = top + math.log(math.fsum(math.exp(x - top) for x in z))
        return [x - lse for x in z]

    def kl(l1: list[float], l2: list[float]) -> float:
        return math.fsum(math.exp(p) * (p - q) for p, q in zip(l1, l2, strict=True) if p > -INF)

    la, lb = log_softmax(za), log_softmax(zb)
    lm = [math.log((math.exp(p) + math.exp(q)) / 2) if max(p, q) > -INF else -INF for p, q in zip(la, lb, strict=True)]
    best_a, best_b = za.index(max(za)), zb.index(max(zb))
    out = {
        "kl_ab": kl(la, lb),
        "kl_ba": kl(lb, la),
        "js": (kl(la, lm) + kl(lb, lm)) / 2,
        "tv": math.fsum(abs(math.exp(p) - math.exp(q)) for p, q in zip(la, lb, strict=True)) / 2,
        "rank_a_of_argmax_b": 1 + sum(x > za[best_b] for x in za),
        "rank_b_of_argmax_a": 1 + sum(x > zb[best_a] for x in zb),
    }
    for arm, z, lp, best in (("a", za, la, best_a), ("b", zb, lb, best_b)):
        out |= {
            f"logp_{arm}": lp[y],
            f"rank_{arm}": 1 + sum(x > z[y] for x in z),
            f"ties_{arm}": sum(x == z[y] for x in z) - 1,
            f"ent_{arm}": -math.fsum(math.exp(p) * p for p in lp if p > -INF),
            f"top1_p_{arm}": math.exp(max(lp)),
            f"argmax_{arm}": best,
        }
    order_a, order_b = (sorted(range(len(z)), key=lambda v, z=z: (-z[v], v)) for z in (za, zb))
    return out | {f"overlap_{k}": len({*order_a[:k]} & {*order_b[:k]}) for k in (5, 10)}


def check(za: Tensor, zb: Tensor, y: Tensor, got: dict[str, Tensor], atol: float = 2e-6) -> None:
    for row in range(len(y)):
        want = loop(za[row].double().tolist(), zb[row].double().tolist(), int(y[row]))
        for name, value in want.items():
            assert float(got[name][row]) == pytest.approx(value, abs=atol, rel=atol), (row, name)


@pytest.mark.parametrize("v", [7, 50, 64, 1000, 1501])
def test_compare_equals_a_slow_loop(v: int) -> None:
    za, zb, y = pair(9, v)
    got = vocab.compare(za, zb, y)
    check(za, zb, y, got)
    order = za.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(got["top_ids_a"].long(), order.indices[:, :5])
    assert torch.allclose(got["top_logps_a"], za.log_softmax(-1).gather(1, order.indices[:, :5]), atol=1e-5)


@pytest.mark.parametrize("v", [50, 1501])
def test_ties_in_bf16_go_to_the_lower_id(v: int) -> None:
    za, zb, y = pair(12, v)
    za, zb = (z.mul(4).round().div(4).bfloat16() for z in (za, zb))
    za[0], zb[1] = 0.0, -0.0
    za[2, ::2], za[2, 1::2] = 0.0, -0.0
    got = vocab.compare(za, zb, y)
    check(za, zb, y, got)
    assert got["ties_a"].max() == v - 1 and (got["ties_b"] > 0).any()
    assert got["argmax_a"][2] == 0
    assert torch.equal(got["top_ids_a"].long(), za.sort(dim=-1, descending=True, stable=True).indices[:, :5])


def test_identities() -> None:
    za, zb, y = pair(400)
    got = vocab.compare(za, zb, y, chi2=True)
    kl = torch.minimum(got["kl_ab"], got["kl_ba"])
    assert (kl >= 0).all() and (got["js"] <= math.log(2)).all()
    assert (got["tv"] <= (kl / 2).sqrt() + 1e-6).all()  # Pinsker
    assert (got["kl_ba"] <= got["log1p_chi2_ba"] + 1e-6).all()
    swapped = vocab.compare(zb, za, y)
    for one, other in (("kl_ab", "kl_ba"), ("js", "js"), ("tv", "tv"), ("rank_a", "rank_b"), ("ent_a", "ent_b")):
        assert torch.equal(got[one], swapped[other]), one
    assert torch.allclose(got["ent_a"].double(), torch.tensor(scipy_entropy(za.double().softmax(-1), axis=-1)))
    cooler = vocab.compare(za, zb / 3, y)
    for name in ("rank_b", "rank_a_of_argmax_b", "rank_b_of_argmax_a", "overlap_10"):
        assert torch.equal(got[name], cooler[name]), name


@pytest.mark.parametrize("v", [50, 3001])
def test_a_model_against_itself_is_exactly_zero(v: int) -> None:
    za, _, y = pair(30, v)
    got = vocab.compare(za, za.clone(), y)
    for name in ("kl_ab", "kl_ba", "js", "tv"):
        assert got[name].tolist() == [0.0] * 30 and not got[name].signbit().any(), name
    assert (got["overlap_5"] == 5).all() and (got["overlap_10"] == 10).all()
    assert torch.equal(got["rank_a"], got["rank_b"]) and (got["rank_a_of_argmax_b"] == 1).all()


def test_close_models_keep_their_digits() -> None:
    za, noise, y = pair(20, 2000)
    za, zb = za - 100, za - 100 + noise * 1e-2  # an offset such as GPT-2's
    exact = vocab.compare(za.double(), zb.double(), y)
    got = vocab.compare(za, zb, y)
    for name in ("kl_ab", "kl_ba", "js", "tv"):
        assert (got[name] - exact[name]).abs().max() < 1e-6, name
    assert exact["js"].max() < 1e-3


def test_permuting_ids_permutes_only_ids() -> None:
    za, zb, y = pair()
    order = torch.randperm(V, generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    got, moved = vocab.compare(za, zb, y), vocab.compare(za[:, order], zb[:, order], place[y])
    for name, value in got.items():
        want = place[value.long()].to(value.dtype) if "argmax" in name[:6] or "ids" in name else value
        assert torch.allclose(moved[name].double(), want.double(), atol=2e-6), name


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_block_sizes_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    za, zb, y = pair()
    want = vocab.compare(za, zb, y)
    monkeypatch.setattr(vocab, "rows_per_block", lambda *_: rows)
    for name, value in vocab.compare(za, zb, y).items():
        assert value.dtype == want[name].dtype and torch.allclose(value.double(), want[name].double(), atol=1e-6), name


def test_forbidden_ids_and_broken_rows() -> None:
    za, zb, y = pair(6)
    za[0, :10] = zb[0, :10] = -INF  # both forbid
    zb[1, :10] = -INF  # only b forbids what a allows
    za[2, int(y[2])] = -INF  # the label itself
    za[3, 4] = torch.nan
    zb[4, 4] = INF
    y[0] = 20
    got = vocab.compare(za, zb, y)
    assert got["kl_ab"][1] == INF and got["kl_ba"][1].isfinite() and got["js"][1] < math.log(2)
    assert got["logp_a"][2] == -INF and got["kl_ba"][2] == INF
    for row in (3, 4):
        assert all(got[name][row].isnan().all() for name in got if got[name].is_floating_point()), row
    keep = torch.tensor([0, 5])
    check(za[keep], zb[keep], y[keep], {k: v[keep] for k, v in got.items()})
    plain = [0, 1, 2, 5]
    assert all(got[name][plain].isnan().sum() == 0 for name in got)


def test_columns_and_shapes() -> None:
    za, zb, y = pair(3, 4)
    got = vocab.compare(za, zb, y)
    assert got["top_ids_a"].shape == got["top_logps_b"].shape == (3, 4)  # no more than V
    assert (got["overlap_10"] == 4).all() and "log1p_chi2_ba" not in got
    wide = vocab.compare(
        *(z[:, :40] for z in pair()[:2]), pair()[2].clamp_max(39), top_k=(2,), keep=3
    )  # a strided view
    assert wide["top_ids_b"].shape == (N, 3) and "overlap_2" in wide
    dtypes = {"rank_a": torch.int32, "ties_a": torch.int16, "overlap_5": torch.uint8, "kl_ab": torch.float32}
    assert {name: vocab.compare(*pair())[name].dtype for name in dtypes} == dtypes
    empty = vocab.compare(za[:0], zb[:0], y[:0])
    assert {k: (v.dtype, v.shape[1:]) for k, v in empty.items()} == {k: (v.dtype, v.shape[1:]) for k, v in got.items()}


def test_what_is_refused() -> None:
    za, zb, y = pair()
    with pytest.raises(InputError, match="labels must be within"):
        vocab.compare(za, zb, y + V)
    with pytest.raises(InputError, match="align the positions"):
        vocab.compare(za, zb[:, 1:], y)
    with pytest.raises(InputError, match="one shape"):
        vocab.js(za, zb[1:])
    with pytest.raises(InputError, match="alpha"):
        vocab.skewed_kl(za, zb, alpha=1.5)


def dense(za: Tensor, zb: Tensor) -> dict[str, Tensor]:
    la, lb = za.log_softmax(-1), zb.log_softmax(-1)
    pa, pb = la.exp(), lb.exp()
    lm, mixed = ((pa + pb) / 2).log(), (0.3 * pa + 0.7 * pb).log()
    return {
        "forward_kl": (pa * (la - lb)).sum(-1),
        "reverse_kl": (pb * (lb - la)).sum(-1),
        "js": ((pa * (la - lm)).sum(-1) + (pb * (lb - lm)).sum(-1)) / 2,
        "tv": (pa - pb).abs().sum(-1) / 2,
        "skewed_kl": (pa * (la - mixed)).sum(-1),
    }


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "js", "tv", "skewed_kl"])
def test_divergences_and_gradients_equal_dense_autograd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbline.kernels.divergence.rows_per_block", lambda *_: 4)
    za, zb = (z.double().view(N, 1, V).requires_grad_() for z in pair()[:2])
    extra = {"alpha": 0.3} if name == "skewed_kl" else {}
    got, want = getattr(vocab, name)(za, zb, **extra), dense(za, zb)[name]
    assert got.shape == (N, 1) and torch.allclose(got, want, atol=1e-10)
    upstream = torch.linspace(-1, 2, N, dtype=torch.float64)[:, None]
    for g, w in zip(*(torch.autograd.grad(x, (za, zb), upstream, retain_graph=True) for x in (got, want)), strict=True):
        assert torch.allclose(g, w, atol=1e-10)


def test_one_model_functions() -> None:
    za, _, y = pair()
    assert torch.allclose(vocab.entropy(za).double(), torch.tensor(scipy_entropy(za.double().softmax(-1), axis=-1)))
    assert vocab.rank(za, y).tolist() == [
        1 + sum(x > r[i] for x in r) for r, i in zip(za.tolist(), y.tolist(), strict=True)
    ]
    top = za.softmax(-1).sort(dim=-1, descending=True).values
    assert torch.allclose(vocab.topk_mass(za, 3), top[:, :3].sum(-1))
    assert torch.allclose(vocab.topk_mass(za, 99), torch.ones(N))
    z = za.double().requires_grad_()
    lp = z.log_softmax(-1)
    got, want = (torch.autograd.grad(x.sum(), z)[0] for x in (vocab.entropy(z), -(lp.exp() * lp).sum(-1)))
    assert torch.allclose(got, want, atol=1e-12)


def test_limits_of_the_skew() -> None:
    za, zb, _ = pair()
    assert torch.equal(vocab.skewed_kl(za, zb, alpha=0.0), vocab.forward_kl(za, zb))
    assert torch.allclose(vocab.skewed_kl(za, zb, alpha=1.0), torch.zeros(N), atol=1e-6)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "js", "tv", "skewed_kl"])
def test_gradients_are_finite_under_forbidden_ids_and_in_bf16(name: str) -> None:
    za, zb, _ = pair()
    za[:, :5] = zb[:, 3:5] = zb[:, 10:12] = -INF
    za[:, 10:12] = -INF
    extra = {"alpha": 0.1} if name == "skewed_kl" else {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (z.to(dtype).requires_grad_() for z in (za, zb))
        value = getattr(vocab, name)(a, b, **extra)
        assert value.dtype == torch.float32
        if name == "reverse_kl":
            assert (value == INF).all()  # b allows ids 0..2, which a forbids
            continue
        assert value.isfinite().all()
        for g in torch.autograd.grad(value.sum(), (a, b)):
            assert g.dtype == dtype and g.isfinite().all()
    assert torch.equal(vocab.forward_kl(zb, za), torch.full((N,), INF))


def test_second_derivative_raises() -> None:
    za, zb, _ = pair()
    grad = torch.autograd.grad(vocab.js(za.requires_grad_(), zb).sum(), za, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.square().sum().backward()


@pytest.mark.parametrize("size", [5, 64, 129, 1000, 1024])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_likeliest_is_argmax_and_topk(size: int, k: int) -> None:
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(size))
    logits[0, -1], logits[1, :] = 100.0, -torch.inf
    logits[1, size // 2] = 0.0
    logits[2, 3:5] = 50.0  # a tie at the top goes to the first for k = 1
    found = vocab.likeliest(logits, k)
    assert found.shape == (7, min(k, size))
    assert torch.equal(logits.gather(1, found), logits.topk(min(k, size)).values)
    if k == 1:
        assert torch.equal(found[:, 0], logits.argmax(-1))


def test_log_probs_are_safe_and_wide() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]], dtype=torch.bfloat16)
    found = vocab.log_probs(logits)
    assert found.dtype == torch.float32 and found[0].tolist() == pytest.approx([-math.log(2), -INF, -math.log(2)])
    assert vocab.log_probs(logits.double()).dtype == torch.float64
