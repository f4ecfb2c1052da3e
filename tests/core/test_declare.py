from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest

from plumbline.core.declare import Bound, Count, Evidence, Paper, Positive, Probability, claim, objective, probe
from plumbline.core.errors import DeclarationError, InputError

PAPER = Paper("A Title of Things", "Doe et al.", 2024, arxiv="2401.00001")


def declared(**how):
    @probe(**{"paper": PAPER, "says": "It measures.", "gives": ("part",), **how})
    def measured(
        comparison,
        *,
        k: Count = 3,
        t: Positive | None = None,
        share: Probability = 0.5,
        how: Literal["a", "b"] = "a",
        call: Callable[[int], int] | None = None,
    ) -> int:
        """x = y, [B]."""
        return k

    return measured


def test_card_is_derived_from_signature_and_docstring():
    card = declared().card
    assert (card.name, card.room, card.roles, card.gives) == ("measured", "", ("comparison",), ("part",))
    assert {n: p.default for n, p in card.params.items()} == {"k": 3, "t": None, "share": 0.5, "how": "a", "call": None}
    told = card.to_json()
    assert told["paper"] == {"title": PAPER.title, "authors": "Doe et al.", "year": 2024, "arxiv": "2401.00001"}
    assert told["params"]["share"]["expects"] == "a number >= 0 and <= 1"


@pytest.mark.parametrize(
    "bad",
    [
        {"k": 0},
        {"k": 1.5},
        {"k": True},
        {"t": math.nan},
        {"t": 0},
        {"share": 1.01},
        {"how": "c"},
        {"call": 3},
        {"k": "3"},
    ],
)
def test_bounds_are_checked_at_the_call_and_named(bad):
    with pytest.raises(InputError, match=f"measured: {next(iter(bad))} must be .*; pass"):
        declared()(None, **bad)


def test_good_values_pass():
    assert declared()(None, k=7, t=0.1, share=1, how="b", call=abs) == 7


def test_bound_admits():
    bound = Bound(gt=0, le=2)
    assert [bound.admits(v) for v in (0, 1e-9, 2, 2.1, math.nan, math.inf)] == [False, True, True, False, False, False]


def test_what_cannot_be_interpreted_is_an_error_at_import():
    def no_annotation(x, *, beta=1):
        """x"""

    def positional(x, beta: Positive = 1.0):
        """x"""

    def bad_default(x, *, beta: Positive = 0.0):
        """x"""

    def odd(x, *, beta: 3 = 3):
        """x"""

    def undocumented(x):
        pass

    for fn, told in (
        (no_annotation, "no annotation"),
        (positional, "keyword-only"),
        (bad_default, "default beta=0.0"),
        (odd, "beta"),
        (undocumented, "docstring"),
    ):
        with pytest.raises(DeclarationError, match=told):
            objective(paper=PAPER, says="It says.")(fn)
    for how, told in (({"differs": "a string"}, "tuple"), ({"says": " "}, "sentence"), ({"paper": None}, "paper")):
        with pytest.raises(DeclarationError, match=told):
            declared(**how)


def test_claim_needs_a_declared_method_a_cost_and_evidence():
    method = declared()
    with pytest.raises(DeclarationError, match="cost"):
        claim(method, "It holds.", cost="2 seconds")(lambda: None)
    with pytest.raises(DeclarationError, match="declared method"):
        claim(len, "It holds.", cost="cpu:2s")(lambda: None)

    @claim(method, "It holds.", cost="cpu:2m")
    def seen() -> Evidence:
        return Evidence(holds=True, measured={"x": 1.0}, control=False)

    found = method.card.claims[-1]
    assert found.seconds == 120 and found.run().measured == {"x": 1.0}
    assert not found.run().passed, "a control that does not fail must sink the claim"

    @claim(method, "It forgets.", cost="cpu:1s")
    def nothing():
        return True

    with pytest.raises(InputError, match="must return Evidence"):
        nothing()


def test_evidence_needs_numbers_and_turns_tensors_plain():
    import numpy as np
    import torch

    with pytest.raises(DeclarationError, match="measured"):
        Evidence(holds=True, measured={}, control=True)
    found = Evidence(holds=torch.tensor(True), measured={"a": np.float32(2), "b": [torch.tensor(1)]}, control=True)
    assert found.measured == {"a": 2.0, "b": [1]} and found.passed and isinstance(found.holds, bool)


def test_bibtex():
    text = PAPER.bibtex()
    assert text.startswith("@article{doe2024title,") and "Doe and others" in text and "eprint = {2401.00001}" in text
