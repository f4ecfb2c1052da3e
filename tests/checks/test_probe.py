from __future__ import annotations

import itertools

import pytest

from plumbline.checks import CheckFailed
from plumbline.checks import probe as checks
from plumbline.core.declare import probe
from plumbline.core.finding import Finding

TURNS = itertools.count()


@pytest.fixture(autouse=True)
def example(monkeypatch):
    monkeypatch.setitem(globals(), "_example", lambda items: (list(range(items)),))


def failing(fn, gives=()):
    card = probe(paper=None, says="It says.", differs=("Standard.",), gives=("mean", *gives))(fn).card
    found = set()
    for check in checks.CHECKS:
        try:
            check(card)
        except CheckFailed:
            found.add(check.__name__)
    return found


def mean(rows, **more):
    if len(rows) < 2:
        return Finding(name="mean", value=None, sentence="Not measured. It needs at least 2 rows.", needs="Rows.")
    told = {"value": sum(rows) / len(rows), "sentence": "A mean.", "needs": "Rows."} | more
    return Finding(name="mean", **told)


def test_a_probe_of_rows_is_run_on_its_files_example():
    seen = []

    def good(rows):
        """mean of rows [N]."""
        seen.append(len(rows))
        return mean(rows)

    assert failing(good) == set() and set(seen) == {checks.ITEMS, 1}


def test_each_check_can_fail():
    def undeclared(rows):
        """mean of rows [N]."""
        return mean(rows, parts=(Finding(name="spread", value=1.0, sentence="A spread."),))

    def infinite(rows):
        """mean of rows [N]."""
        return mean(rows, value=float("inf"))

    def wandering(rows):
        """mean of rows [N]."""
        return mean(rows, value=float(next(TURNS)))

    def immodest(rows):
        """mean of rows [N]."""
        return mean([*rows, 0])

    def curt(rows):
        """mean of rows [N]."""
        return mean(rows) if len(rows) > 1 else Finding(name="mean", value=None, sentence="No.", needs="Rows.")

    assert failing(undeclared) == {"declared"} and failing(undeclared, gives=("spread",)) == set()
    assert failing(infinite) == {"whole"}
    assert failing(wandering) == {"steady"}
    assert failing(immodest) == failing(curt) == {"modest"}


def test_a_probe_that_cannot_be_run_fails(monkeypatch):
    monkeypatch.delitem(globals(), "_example")

    def alone(rows):
        """mean of rows [N]."""
        return mean(rows)

    assert failing(alone) == {"declared", "whole", "steady", "modest"}
