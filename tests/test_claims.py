"""Claims that cost under a minute hold, and their controls fail; costly ones have committed evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plumbline.checks.claims import run, seconds
from plumbline.core.discover import catalogue
from plumbline.core.errors import InputError

CLAIMS = [(card, claim) for card in catalogue() for claim in card.claims]
EVIDENCE = Path(__file__).parent.parent / "results" / "claims"


@pytest.mark.parametrize("card, claim", [pytest.param(*c, id=f"{c[0].name}-{c[1].name}") for c in CLAIMS])
def test_claim(card, claim):
    if claim.seconds > 60 or claim.cost.startswith("gpu"):
        told = json.loads((EVIDENCE / f"{card.name}.json").read_text())
        assert any(row["claim"] == claim.name and row["holds"] and row["control"] for row in told["claims"])
        return
    evidence = claim.run()
    assert evidence.holds, f"does not hold: {evidence.measured}"
    assert evidence.control, f"the control did not fail: {evidence.measured}"


def test_runner_skips_what_costs_more_and_reads_times():
    card = next(card for card, _ in CLAIMS if card.name == "npo")
    (row,) = run([card], max_seconds=0.5)
    assert row["skipped"] == "costs cpu:2s"
    assert [seconds(t) for t in ("60s", "2m", "1h", "5")] == [60, 120, 3600, 5]
    with pytest.raises(InputError, match="--max-cost"):
        seconds("soon")
