from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2, kstest

from plumbline.decode.watermark.keys import CONTEXT, TOKEN, Hashed, gram_hash, repeated, scramble, windows
from plumbline.kernels.seeds import generator

MASK = (1 << 64) - 1


def splitmix_finaliser(z: int) -> int:
    """From its published definition, in Python's own integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_number(key: int, context: list[int], token: int) -> float:
    s = splitmix_finaliser(key & MASK)
    for x in context:
        s = splitmix_finaliser((s + (x + 1) * CONTEXT) & MASK)
    return ((splitmix_finaliser((s + (token + 1) * TOKEN) & MASK) >> 12) + 0.5) / 2**52


def test_finaliser_equals_whole_number_arithmetic():
    z = torch.randint(-(2**63), 2**63 - 1, (200,), generator=generator(0, "z"))
    wanted = [splitmix_finaliser(x & MASK) for x in z.tolist()]
    assert [x & MASK for x in scramble(z).tolist()] == wanted
    # the first output of splitmix64 from state 0, as its author prints it
    assert scramble(torch.tensor([TOKEN])).item() & MASK == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("key", [0, 15485863, -3, 2**80 + 1])
def test_number_by_a_slow_loop(key):
    grams = torch.tensor([[5, 9, 3], [0, 0, 0], [31999, 7, 128255]])
    found = Hashed(key=key, context=2).uniform(grams)
    assert found.tolist() == [slow_number(key, row[:2], row[2]) for row in grams.tolist()]


def test_self_hash_by_a_slow_loop():
    """Three tokens before and the candidate itself; torch compares signed integers, so does this."""
    scheme, (*before, v) = Hashed(key=3, context=4, self_hash=True), [5, 9, 31999, 77]
    assert scheme.window == 3
    own = splitmix_finaliser((splitmix_finaliser(3) + (v + 1) * CONTEXT) & MASK)
    hashes = [splitmix_finaliser((own + (x + 1) * TOKEN) & MASK) for x in (*before, v)]
    smallest = min(hashes, key=lambda h: h - (1 << 64) if h >> 63 else h)
    wanted = ((splitmix_finaliser(smallest) >> 12) + 0.5) / 2**52
    assert scheme.uniform(torch.tensor([[*before, v]])).tolist() == [wanted]


@pytest.mark.parametrize(("context", "self_hash"), [(1, False), (3, False), (1, True), (4, True)])
def test_rows_of_numbers_are_the_single_numbers(context, self_hash):
    scheme = Hashed(key=11, context=context, self_hash=self_hash)
    contexts = torch.randint(0, 50, (4, scheme.window), generator=generator(0, "c"))
    rows = scheme.uniforms(contexts, 50)
    for v in range(50):
        grams = torch.cat([contexts, torch.full((4, 1), v)], 1)
        assert torch.equal(rows[:, v], scheme.uniform(grams))
    assert torch.equal(scheme.greens(contexts, torch.zeros(4, 50), 0.3), rows < 0.3)


@pytest.mark.parametrize("self_hash", [False, True])
def test_numbers_are_uniform_and_independent_of_their_neighbours(self_hash):
    scheme = Hashed(key=3, context=4, self_hash=self_hash)
    contexts = torch.randint(0, 32000, (20, scheme.window), generator=generator(0, "c"))
    rows = scheme.uniforms(contexts, 20000)
    inside = rows.flatten()
    assert inside.min() > 0 and inside.max() < 1
    cells = (rows[:, :-1] * 8).long() * 8 + (rows[:, 1:] * 8).long()  # one token and the next
    counts = torch.bincount(cells.flatten(), minlength=64).double()
    wanted = counts.sum() / 64
    assert chi2.sf(float(((counts - wanted) ** 2 / wanted).sum()), 63) > 1e-4
    if not self_hash:  # tokens that are the smallest of their own gram share one number in all contexts
        assert kstest(inside[::7].numpy(), "uniform").pvalue > 1e-4


def test_a_self_hash_survives_edits_that_a_left_hash_does_not():
    contexts = torch.randint(0, 1000, (200, 3), generator=generator(0, "c"))
    edited = contexts.clone()
    edited[:, 0] += 1
    own, left = Hashed(context=4, self_hash=True), Hashed(context=3)
    kept = (own.uniforms(contexts, 64) == own.uniforms(edited, 64)).double().mean()
    # two of five hashes (old and new token's among them) must not be the smallest: 3 of 5
    assert kept == pytest.approx(3 / 5, abs=0.05)
    assert not bool((left.uniforms(contexts, 64) == left.uniforms(edited, 64)).any())


def test_windows_and_repeats():
    tokens = torch.tensor([[4, 5, 6, 5, 6], [1, 2, 3, 4, 5]])
    assert windows(tokens, 2).tolist() == [[5, 6], [4, 5]]
    assert windows(tokens[:, :1], 3).tolist() == [[0, 0, 4], [0, 0, 1]]
    assert windows(tokens, 0).shape == (2, 0)
    assert repeated(tokens, 2).tolist() == [True, False]
    assert repeated(tokens[:, :1], 2).tolist() == [False, False]


def test_grams_are_told_apart():
    grams = torch.cartesian_prod(*[torch.arange(40)] * 3)
    assert len(gram_hash(grams).unique()) == 40**3
    assert math.isfinite(float(Hashed().uniform(torch.zeros(1, 2, dtype=torch.int32))))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree_to_the_bit():
    contexts = torch.randint(0, 32000, (4, 3), generator=generator(0, "c"))
    for scheme in (Hashed(context=3), Hashed(context=4, self_hash=True)):
        assert torch.equal(scheme.uniforms(contexts, 32000), scheme.uniforms(contexts.cuda(), 32000).cpu())
