"""Batches that are sorted by length and bounded by tokens, padding, and halving a batch that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from plumbline.core.errors import PlumblineError, refuse

Result = TypeVar("Result")


def by_length(lengths: Sequence[int], token_budget: int, max_rows: int | None = None) -> list[list[int]]:
    r"""Group items of similar length so that every padded batch holds at most ``token_budget`` tokens.

    .. math:: |b| \cdot \max_{i \in b} \ell_i \le \text{budget}

    Items are taken longest first (the first batch shows at once whether the budget fits the device), equal lengths in
    their own order: the result depends on the arguments alone.

    Args:
        lengths: tokens of each item [n], each >= 0.
        token_budget: largest padded size, rows times longest row. An item longer than that is a batch of its own.
        max_rows: largest number of rows, default unbounded.

    Returns:
        Lists of indices; every index exactly once.

    Raises:
        InputError: a budget or ``max_rows`` below 1, a negative length.
    """
    if token_budget < 1:
        raise refuse("by_length", "token_budget", "a whole number >= 1", token_budget, "pass --batch-tokens 4096")
    if max_rows is not None and max_rows < 1:
        raise refuse("by_length", "max_rows", "a whole number >= 1 or None", max_rows, "leave it out")
    if len(lengths) and min(lengths) < 0:
        raise refuse("by_length", "lengths", ">= 0", min(lengths), "pass the number of tokens of each item")
    batches: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        current = batches[-1] if batches else []
        full = not current or (len(current) + 1) * longest > token_budget
        if full or (max_rows is not None and len(current) >= max_rows):
            batches.append([i])
            longest = max(lengths[i], 1)
        else:
            current.append(i)
    return batches


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    signs = ("can't allocate memory", "DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def halving(fn: Callable[[list[int]], Result], indices: Sequence[int]) -> Iterator[tuple[list[int], Result]]:
    """Run ``fn`` on a batch; when it does not fit in memory, on its two halves, and so on down to single items.

    Args:
        fn: called with a list of indices; it must be safe to call again on part of them.
        indices: the batch, in order.

    Yields:
        ``(indices, fn(indices))`` in the order of ``indices``; one pair when nothing had to be split.

    Raises:
        PlumblineError: a single item does not fit. Any other error of ``fn`` passes through unchanged.
    """
    waiting = [list(indices)] if len(indices) else []
    while waiting:
        batch = waiting.pop()
        try:
            result = fn(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            failure = " ".join(str(error).split())[:120] or type(error).__name__
        else:
            yield batch, result
            continue
        # Outside the handler: the traceback, and with it the tensors of the failed call, is gone by now.
        _release()
        if len(batch) == 1:
            do = "shorten the item, use a smaller dtype or a device with more memory"
            raise refuse(
                "halving",
                f"item {batch[0]}",
                "small enough for the device on its own",
                failure,
                do,
                error=PlumblineError,
            )
        middle = (len(batch) + 1) // 2
        waiting += [batch[middle:], batch[:middle]]


def _release() -> None:
    """Give cached blocks back, so that the halves are not refused for want of one large block."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def pad(
    rows: Sequence[Sequence[int] | Tensor],
    pad_id: int,
    side: str = "left",
    *,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Stack rows of ids into one rectangle.

    Args:
        rows: B rows of token ids, each of any length.
        pad_id: fills the rest; any valid id, since the mask says what is real.
        side: "left" (generation) or "right".
        device: where the result lies.

    Returns:
        (ids [B, L] int64, mask [B, L] bool), L the longest row's length.

    Raises:
        InputError: another side, or no rows.
    """
    if side not in ("left", "right"):
        raise refuse("pad", "side", '"left" or "right"', side, "use left for generation")
    if not len(rows):
        raise refuse("pad", "rows", "at least one row", "none", "skip empty batches")
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        at = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[i, at] = torch.as_tensor(row, dtype=torch.long)
        mask[i, at] = True
    return ids.to(device), mask.to(device)
