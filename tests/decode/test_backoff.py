from __future__ import annotations

from collections.abc import Callable

import torch

from plumbline.decode.backoff import FIRST, LONGEST, Backoff


def play(
    backoff: Backoff, right: Callable[[int], int], passes: int, seconds: Callable[[int], float] | None = None
) -> list[int]:
    """Widths used over ``passes`` passes of a chain whose first ``right(width)`` drafts are accepted."""
    used, seconds = [], seconds or cost
    for _ in range(passes):
        width = backoff.width()
        used.append(width)
        backoff.observe(width, [range(1 + min(right(width), width))], seconds(width))
    return used


def cost(width: int) -> float:
    return 1 + 0.1 * width


def test_climbs_to_the_widest_while_everything_is_accepted() -> None:
    used = play(Backoff([4, 10, 24]), lambda w: w, 60)
    assert used[-20:].count(24) >= 18 and used.index(24) < 15


def test_stops_drafting_when_nothing_is_accepted() -> None:
    used = play(Backoff([4, 10, 24], start=2), lambda w: 0, 300)
    assert sum(map(cost, used)) / 300 < 1.03 and sum(map(cost, used[:128])) / 128 < 1.05
    assert used[-100:].count(0) >= 98
    assert max(used[20:]) == 4  # only the neighbour is tried again, a pass in LONGEST
    assert LONGEST >= 100 > FIRST


def test_finds_the_width_in_between() -> None:
    used = play(Backoff([4, 10, 24], start=3), lambda w: min(w, 10), 200)
    assert max(set(used[-50:]), key=used[-50:].count) == 10


def test_narrows_at_once_by_what_the_wide_draft_shows_of_the_narrow_one() -> None:
    """Two of 24 drafts are right: 4 would have gained as much, for less."""
    used = play(Backoff([4, 24], start=2), lambda w: 2, 12)
    first = used.index(24)
    assert 24 not in used[first + 1 : first + FIRST] and used.count(4) >= 8


def test_comes_back_when_drafts_become_good() -> None:
    backoff = Backoff([4, 10])
    play(backoff, lambda w: 0, 100)
    used = play(backoff, lambda w: w, 250)
    assert used[-40:].count(10) >= 36


def test_passes_without_a_draft_say_nothing_of_the_width() -> None:
    backoff = Backoff([10])
    for _ in range(50):
        backoff.width()
        backoff.observe(0, [[0]], 1.0)
    assert backoff.at == 1 and backoff.gains[1] is None and backoff.seconds(0) == 1.0


def test_times_are_remembered_for_a_model() -> None:
    model = torch.nn.Linear(1, 1)
    first = Backoff([4, 10], model=model)
    assert play(first, lambda w: w, 30)[:2] == [0, 0]  # the price of plain passes is learned first, once
    again = Backoff([4, 10], model=model)
    assert again.width() == 4 and again.seconds(10) == first.seconds(10)
    other = Backoff([4, 10], model=model, rows=8)
    assert other.width() == 0


def test_with_a_price_the_clock_is_not_read() -> None:
    slow, fast = (Backoff([4, 10], price=0.05) for _ in range(2))
    assert play(slow, lambda w: 3, 80, lambda w: 100.0 * w + 1) == play(fast, lambda w: 3, 80, lambda w: 1.0)


def test_a_long_trial_gives_a_draft_time_to_become_good() -> None:
    """A draft that is right only from the third pass in a row that uses it."""
    for trial, found in ((1, False), (4, True)):
        backoff, row = Backoff([8], trial=trial, price=0.1, start=0), 0
        used = []
        for _ in range(60):
            width = backoff.width()
            row = row + 1 if width else 0
            used.append(width)
            backoff.observe(width, [range(9 if row > 2 else 1)], 1.0)
        assert (used[-20:].count(8) >= 18) == found


def test_fixed_is_fixed() -> None:
    assert set(play(Backoff.fixed(7), lambda w: 0, 50)) == {7}
