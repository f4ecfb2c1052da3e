"""batching: every item once, within the budget; a batch that does not fit is halved; padding on either side."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.errors import InputError, PlumblineError
from plumbline.kernels.batching import by_length, halving, pad


def test_by_length_by_hand() -> None:
    assert by_length([3, 9, 2, 4, 3], 12) == [[1], [3, 0, 4], [2]]
    assert by_length([3, 9, 2, 4, 3], 12, max_rows=2) == [[1], [3, 0], [4, 2]]
    assert by_length([20, 1], 10) == [[0], [1]]
    assert by_length([], 10) == []
    assert by_length([0, 0, 0], 2) == [[0, 1], [2]]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120), st.one_of(st.none(), st.integers(1, 8)))
def test_every_item_once_and_within_the_budget(lengths: list[int], budget: int, max_rows: int | None) -> None:
    batches = by_length(lengths, budget, max_rows)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for b in batches:
        assert len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget
        assert max_rows is None or len(b) <= max_rows
    # sorted: no batch could have taken the first item of the next
    for one, following in itertools.pairwise(batches):
        more = len(one) + 1
        assert more * max(1, lengths[one[0]]) > budget or (max_rows is not None and more > max_rows)
        assert lengths[one[-1]] >= lengths[following[0]]


@pytest.mark.parametrize(
    ("args", "name"), [(([1], 0), "token_budget"), (([1], 5, 0), "max_rows"), (([-1], 5), "lengths")]
)
def test_bad_arguments_are_named(args: tuple, name: str) -> None:
    with pytest.raises(InputError, match=f"by_length: {name}"):
        by_length(*args)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_halving_goes_on_in_order(error: Exception) -> None:
    calls = []

    def fn(batch: list[int]) -> int:
        calls.append(batch)
        if len(batch) > 2:
            raise error
        return sum(batch)

    found = list(halving(fn, [5, 6, 7, 8, 9]))
    assert found == [([5, 6], 11), ([7], 7), ([8, 9], 17)]
    assert calls == [[5, 6, 7, 8, 9], [5, 6, 7], [5, 6], [7], [8, 9]]
    assert list(halving(fn, [])) == []


def test_a_real_allocation_failure_is_recognised() -> None:
    def fn(batch: list[int]) -> int:
        torch.empty(2**60 if len(batch) > 1 else 1)
        return len(batch)

    assert [b for b, _ in halving(fn, [0, 1])] == [[0], [1]]


def test_a_single_item_that_does_not_fit_is_one_clear_error() -> None:
    def fn(batch: list[int]) -> int:
        if 3 in batch:
            raise MemoryError("too\nlarge")
        return 0

    with pytest.raises(PlumblineError, match=r"halving: item 3 must be small enough.*got too large; shorten") as caught:
        list(halving(fn, [1, 2, 3]))
    assert "\n" not in str(caught.value)


def test_other_errors_pass_through() -> None:
    def fn(batch: list[int]) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(halving(fn, [1, 2]))


def test_the_failed_call_lets_go_of_its_tensors_before_the_halves_run() -> None:
    alive: list[weakref.ref] = []

    def fn(batch: list[int]) -> None:
        gc.disable()
        try:
            assert all(ref() is None for ref in alive)
        finally:
            gc.enable()
        held = torch.zeros(10)
        if len(batch) > 1:
            alive.append(weakref.ref(held))
            raise MemoryError

    list(halving(fn, [0, 1, 2, 3]))
    assert alive


def test_pad_on_either_side() -> None:
    ids, mask = pad([[1, 2, 3], [4], []], pad_id=0)
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [False, False, True], [False] * 3]
    ids, mask = pad([torch.tensor([1, 2]), torch.tensor([3])], pad_id=9, side="right")
    assert ids.tolist() == [[1, 2], [3, 9]] and mask.tolist() == [[True, True], [True, False]]
    assert ids.dtype == torch.long and mask.dtype == torch.bool
    with pytest.raises(InputError, match="pad: side"):
        pad([[1]], 0, side="middle")
    with pytest.raises(InputError, match="pad: rows"):
        pad([], 0)
