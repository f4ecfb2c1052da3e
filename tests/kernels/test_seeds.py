"""seeds: named streams are independent of order and of each other; the global generator is never left changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.kernels.seeds import derive, forked, generator, rng


def test_the_same_path_gives_the_same_stream() -> None:
    assert torch.equal(torch.rand(8, generator=generator(3, "a", 1)), torch.rand(8, generator=generator(3, "a", 1)))
    assert np.array_equal(rng(3, "a", 1).random(8), rng(3, "a", 1).random(8))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "ab"), (0, "a", "b")),
        ((0, 1), (0, "1")),
        ((0, 1, 2), (0, 12)),
        ((0, "a", "b"), (0, "b", "a")),
        ((0, "a"), (1, "a")),
        ((0,), (0, "")),
        ((-1,), (1,)),
    ],
)
def test_different_paths_are_different_streams(one: tuple, other: tuple) -> None:
    assert derive(*one) != derive(*other)


def test_a_stream_does_not_change_between_versions() -> None:
    # Runs are resumed and compared across machines: this number may never change.
    assert derive(0, "prompt", 7) == 8114231310355429329


def test_neighbouring_streams_are_uncorrelated() -> None:
    draws = np.stack([rng(0, "row", i).standard_normal(2000) for i in range(20)])
    off = np.corrcoef(draws)[~np.eye(20, dtype=bool)]
    assert np.abs(off).max() < 0.12  # 5 standard errors


def test_the_global_generators_are_untouched() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(3, generator=generator(0, "x"))
    rng(0, "x").random()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_forked_seeds_inside_and_restores_after() -> None:
    before = torch.get_rng_state()
    with forked(5):
        first = torch.rand(4)
    with forked(5, devices=["cpu", torch.device("cpu")]):
        second = torch.rand(4)
    with forked(6):
        third = torch.rand(4)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)


def test_forked_restores_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), forked(5):
        torch.rand(4)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_forked_does_not_start_an_accelerator() -> None:
    started = torch.cuda.is_initialized()
    with forked(1):
        torch.rand(1)
    assert torch.cuda.is_initialized() == started


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_forked_covers_a_device() -> None:
    before = torch.cuda.get_rng_state()
    draws = []
    for _ in range(2):
        with forked(5, devices=["cuda"]):
            draws.append(torch.rand(4, device="cuda"))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.cuda.get_rng_state(), before)
