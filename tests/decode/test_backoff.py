from __future__ import annotations

from collections.abc import Callable

from plumbline.decode.backoff import LONGEST, Backoff


def play(backoff: Backoff, accepted: Callable[[int], float], seconds: Callable[[int], float], passes: int) -> list[int]:
    """Widths used over ``passes`` passes; emits the root's token and what ``accepted`` says of a width."""
    used = []
    for _ in range(passes):
        width = backoff.width()
        used.append(width)
        backoff.observe(width, 1 + accepted(width), seconds(width))
    return used


def cost(width: int) -> float:
    return 1 + 0.1 * width


def test_climbs_to_the_widest_while_everything_is_accepted() -> None:
    used = play(Backoff([4, 10, 24]), lambda w: w, cost, 60)
    assert used[-20:].count(24) >= 18


def test_stops_drafting_when_nothing_is_accepted() -> None:
    used = play(Backoff([4, 10, 24]), lambda w: 0, cost, 300)
    spent, plain = sum(map(cost, used)), 300.0
    assert used[-100:].count(0) >= 98 and spent / plain < 1.03
    assert max(used[50:]) == 4  # only the neighbour is tried again, a pass in LONGEST
    assert LONGEST >= 100


def test_finds_the_width_in_between() -> None:
    used = play(Backoff([4, 10, 24], start=3), lambda w: min(w, 10), cost, 200)
    assert max(set(used[-50:]), key=used[-50:].count) == 10


def test_comes_back_when_drafts_become_good() -> None:
    backoff = Backoff([4, 10])
    play(backoff, lambda w: 0, cost, 100)
    used = play(backoff, lambda w: w, cost, 250)
    assert used[-40:].count(10) >= 36


def test_passes_without_a_draft_say_nothing_of_the_width() -> None:
    backoff = Backoff([10])
    for _ in range(50):
        backoff.width()
        backoff.observe(0, 1.0, 1.0)
    assert backoff.rate(0) == 1.0 and backoff.rate(1) is None


def test_with_a_price_the_clock_is_not_read() -> None:
    slow, fast = (Backoff([4, 10], price=0.05) for _ in range(2))
    accepted = lambda w: min(w, 3)  # noqa: E731
    assert play(slow, accepted, lambda w: 100.0 * w + 1, 80) == play(fast, accepted, lambda w: 1.0, 80)


def test_fixed_is_fixed() -> None:
    assert set(play(Backoff.fixed(7), lambda w: 0, cost, 50)) == {7}
