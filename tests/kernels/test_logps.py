"""Log-probabilities and divergences from hidden states against dense autograd."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from plumbline.core.errors import InputError
from plumbline.kernels import logps
from plumbline.kernels.logps import label_logps, linear_logps, linear_stats, linear_topk, next_token

V, D, N = 50, 16, 40
LAWS = [
    {"scale": 1.0, "softcap": None, "temperature": 1.0},
    {"scale": 1.7, "softcap": None, "temperature": 0.7},
    {"scale": 0.8, "softcap": 2.0, "temperature": 0.7},
]


def data(dtype: torch.dtype = torch.float64, n: int = N, v: int = V, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, D, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, D, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(v, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(v, (n,), generator=g)


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None, temperature: float):
    z = (hidden @ weight.T + (0 if bias is None else bias)) * scale
    return (z if softcap is None else softcap * torch.tanh(z / softcap)) / temperature


def same(ours: Tensor, theirs: Tensor, leaves: tuple[Tensor, ...], atol: float) -> None:
    """Values and gradients under an upstream that differs from row to row."""
    upstream = torch.linspace(-1, 2, ours.numel(), dtype=ours.dtype).view(ours.shape)
    assert torch.allclose(ours, theirs, atol=atol, rtol=atol)
    got, want = (torch.autograd.grad(x, leaves, upstream, retain_graph=True) for x in (ours, theirs))
    for g, w in zip(got, want, strict=True):
        assert torch.allclose(g, w, atol=atol * 10, rtol=atol), float((g - w).abs().max())


SIZES = [1, 7, 50, 64]
BLOCKS = [(t, v, LAWS[(i + k) % 3]) for i, t in enumerate(SIZES) for k, v in enumerate(SIZES)]


@pytest.mark.parametrize(("token_block", "vocab_block", "law"), BLOCKS)
def test_every_block_size_equals_dense_autograd(token_block: int, vocab_block: int, law: dict) -> None:
    hidden, weight, bias, y = data()
    ids = torch.stack([y, y.roll(3), y], 1)  # the same id twice in a row
    keep = (token_block + vocab_block) % 3 * N * 8 * 15  # no logits, some, or most kept for backward
    blocks = {"token_block": token_block, "vocab_block": vocab_block, "keep_bytes": keep}
    lp = dense(hidden, weight, bias, **law).log_softmax(-1)
    ours = linear_stats(hidden, weight, ids, entropy=True, bias=bias, **law, **blocks)
    leaves = (hidden, weight, bias)
    same(ours.logps, lp.gather(1, ids), leaves, 1e-10)
    same(ours.lse, dense(hidden, weight, bias, **law).logsumexp(-1), leaves, 1e-10)
    same(ours.entropy, -(lp.exp() * lp).sum(-1), leaves, 1e-10)
    both = ours.logps[:, 0] * 0.3 + ours.entropy - ours.lse  # one backward through all three
    want = lp.gather(1, ids)[:, 0] * 0.3 - (lp.exp() * lp).sum(-1) - dense(hidden, weight, bias, **law).logsumexp(-1)
    same(both, want, leaves, 1e-10)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def dense_js(s: Tensor, t: Tensor) -> Tensor:
    m = torch.logaddexp(s, t) - torch.tensor(2.0, dtype=s.dtype).log()
    return (kl(s, m) + kl(t, m)) / 2


DIVERGENCES = {
    "linear_kl": lambda s, t: kl(t, s),
    "linear_reverse_kl": lambda s, t: kl(s, t),
    "linear_js": dense_js,
}


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("blocks", [(7, 50), (50, 7), (64, 64)])
def test_divergences_equal_dense_autograd(name: str, law: dict, blocks: tuple[int, int]) -> None:
    hidden, weight, bias, _ = data()
    t_hidden, t_weight, _, _ = data(seed=1)
    temperature = law["temperature"]
    s = dense(hidden, weight, bias, **law).log_softmax(-1)
    t = (t_hidden @ t_weight.T / temperature).log_softmax(-1).detach()
    student = SimpleNamespace(weight=weight, bias=bias, scale=law["scale"], softcap=law["softcap"])
    teacher = SimpleNamespace(weight=t_weight, bias=None, scale=1.0, softcap=None)
    ours = getattr(logps, name)(
        hidden, student, t_hidden, teacher, temperature=temperature, token_block=blocks[0], vocab_block=blocks[1]
    )
    same(ours, DIVERGENCES[name](s, t), (hidden, weight, bias), 1e-10)
    ours.sum().backward()
    assert t_hidden.grad is None and t_weight.grad is None


def test_gradcheck_with_softcap_and_temperature() -> None:
    hidden, weight, bias, y = data(n=4, v=7)

    def run(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return linear_stats(h, w, y[:, None], entropy=True, bias=b, softcap=30.0, temperature=0.7, token_block=3,
                            vocab_block=4)  # fmt: skip

    assert torch.autograd.gradcheck(run, (hidden, weight, bias))


@pytest.mark.parametrize("law", LAWS)
def test_float32_equals_one_block_to_1e_6(law: dict) -> None:
    hidden, weight, bias, y = data(torch.float32, n=64, v=300)
    hidden, weight = (x.detach().mul(0.3).requires_grad_() for x in (hidden, weight))
    one = linear_logps(hidden, weight, y, bias=bias, **law, token_block=64, vocab_block=300)
    many = linear_logps(hidden, weight, y, bias=bias, **law, token_block=7, vocab_block=33)
    assert torch.allclose(one, many, atol=1e-6, rtol=1e-6)
    upstream = torch.full_like(one, 1 / 64)
    leaves = (hidden, weight, bias)
    for a, b in zip(*(torch.autograd.grad(x, leaves, upstream) for x in (one, many)), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


class Largest(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_nothing_of_size_n_times_v_is_ever_allocated(softcap: float | None) -> None:
    n, v = 512, 5000
    hidden, weight, bias, y = data(torch.float32, n=n, v=v)
    with Largest() as seen:
        stats = linear_stats(
            hidden,
            weight,
            y[:, None],
            entropy=True,
            bias=bias,
            softcap=softcap,
            token_block=64,
            vocab_block=64,
            keep_bytes=0,
        )
        (stats.logps.sum() + stats.entropy.sum()).backward()
        head = SimpleNamespace(weight=weight, bias=bias, scale=1.0, softcap=softcap)
        for name in DIVERGENCES:
            some, other = hidden[:128], hidden.detach()[128:256]
            getattr(logps, name)(some, head, other, head, token_block=64, vocab_block=250).sum().backward()
    assert 0 < seen.numel <= v * D < 128 * v
    with Largest() as seen:
        (hidden @ weight.T).log_softmax(-1)
    assert seen.numel >= n * v  # the instrument does see it


def test_bf16_error_is_within_twice_the_dense_bf16_error() -> None:
    hidden, weight, bias, y = data(torch.bfloat16, n=64, v=1000)
    exact = linear_logps(*(x.double() for x in (hidden, weight)), y)
    ours = linear_logps(hidden, weight, y)
    usual = (hidden @ weight.T).float().log_softmax(-1).gather(1, y[:, None])[:, 0]
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() <= 2 * (usual - exact).abs().max()
    assert (ours - exact).abs().max() < 1e-4  # in fact float32's
    grads = torch.autograd.grad(ours.mean(), (hidden, weight))
    wants = torch.autograd.grad(exact.mean(), (hidden, weight))
    for g, w in zip(grads, wants, strict=True):
        assert g.dtype == torch.bfloat16
        assert (g.double() - w.double()).abs().max() <= 2**-8 * w.double().abs().max()


def test_label_logps_by_hand_and_with_forbidden_ids() -> None:
    z = torch.tensor([[2.0, 1.0, -torch.inf], [0.0, 0.0, 0.0]]).log_softmax(-1)
    got = label_logps(z, torch.tensor([1, 2]))
    assert torch.allclose(got, torch.tensor([-1.3132617, -1.0986123]))
    assert label_logps(z[:1], torch.tensor([2])).item() == -torch.inf
    assert label_logps(z.bfloat16(), torch.tensor([0, 0])).dtype == torch.float32


def test_bias_of_minus_infinity_forbids_an_id() -> None:
    hidden, weight, bias, y = data(n=6)
    bias = bias.detach()
    bias[:10] = -torch.inf
    y = y.clamp_min(10)
    stats = linear_stats(hidden, weight, y[:, None], entropy=True, bias=bias, vocab_block=4)
    lp = (hidden @ weight.T + bias)[:, 10:].log_softmax(-1)
    assert torch.allclose(stats.logps[:, 0], lp.gather(1, y[:, None] - 10)[:, 0])
    assert torch.allclose(stats.entropy, -(lp.exp() * lp).sum(-1))
    (stats.logps.sum() + stats.entropy.sum()).backward()
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all()
    head = SimpleNamespace(weight=weight, bias=bias, scale=1.0, softcap=None)
    for name in DIVERGENCES:  # both forbid the same ids, then only the student does
        value = getattr(logps, name)(hidden, head, hidden.detach() * 1.1, head, vocab_block=4)
        grad = torch.autograd.grad(value.sum(), hidden)[0]
        assert value.isfinite().all() and grad.isfinite().all(), name
    free = SimpleNamespace(weight=weight, bias=None, scale=1.0, softcap=None)
    assert logps.linear_kl(hidden, head, hidden, free).isposinf().all()
    assert logps.linear_reverse_kl(hidden, head, hidden, free).isfinite().all()


def test_topk_agrees_with_a_sort() -> None:
    hidden, weight, bias, _ = data()
    lp, ids = linear_topk(hidden, weight, 9, bias=bias, softcap=3.0, token_block=7, vocab_block=6)
    want = dense(hidden, weight, bias, 1.0, 3.0, 1.0).log_softmax(-1).topk(9, -1)
    assert torch.allclose(lp, want.values) and torch.equal(ids, want.indices)


def test_next_token_shifts_once() -> None:
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 1, 1, 0]])
    labels, kept = next_token(ids, mask)
    assert labels.tolist() == [[6, 7, 8]] and kept.tolist() == [[True, True, False]]
    assert next_token(ids)[1].all()
    with pytest.raises(InputError, match=r"\[B,L\]"):
        next_token(ids, mask[:, 1:])


def test_nothing_to_score_stays_in_the_graph() -> None:
    hidden, weight, _, _ = data(n=0)
    out = linear_logps(hidden, weight, torch.empty(0, dtype=torch.long))
    assert out.shape == (0,)
    out.sum().backward()
    assert hidden.grad.shape == (0, D) and weight.grad.abs().sum() == 0


@pytest.mark.parametrize("bad", [-100, V])
@pytest.mark.parametrize("call", [lambda h, w, y: linear_logps(h, w, y), lambda h, w, y: label_logps(h @ w.T, y)])
def test_labels_outside_the_vocabulary_are_refused(bad: int, call: Callable[..., Tensor]) -> None:
    hidden, weight, _, y = data()
    y[3] = bad
    with pytest.raises(InputError, match="labels must be within"):
        call(hidden, weight, y)


def test_what_is_refused() -> None:
    hidden, weight, _, y = data()
    with pytest.raises(InputError, match="temperature"):
        linear_logps(hidden, weight, y, temperature=0.0)
    with pytest.raises(InputError, match="flatten"):
        linear_logps(hidden[None], weight, y)
    grad = torch.autograd.grad(linear_logps(hidden, weight, y).sum(), hidden, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.sum().backward()
