from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import generator
from plumbline.objectives.pretrain.spans import corrupt, draw_spans, uncorrupt

FORMAT = {"mask_ids": [90, 91, 92], "sep_id": 80, "eom_id": 81, "eos_id": 2}


def test_two_spans_by_hand():
    ids = [10, 11, 12, 13, 14, 15, 16]
    found = corrupt(ids, [(1, 3), (5, 7)], **FORMAT)
    assert found == [10, 90, 13, 14, 91, 2, 80, 90, 11, 12, 81, 91, 15, 16, 81]
    assert uncorrupt(found, **FORMAT) == ids and uncorrupt(ids, **FORMAT) == ids


def test_a_text_that_ends_keeps_its_end():
    ids = [10, 11, 12, 2]
    found = corrupt(ids, [(0, 2)], **FORMAT)
    assert found == [90, 12, 2, 2, 80, 90, 10, 11, 81] and uncorrupt(found, **FORMAT) == ids


def test_what_a_model_wrote_is_put_back():
    asked = [10, 90, 13, 2, 80, 90]
    assert uncorrupt([*asked, 7, 8, 9, 81], **FORMAT) == [10, 7, 8, 9, 13]
    assert uncorrupt([*asked, 7, 8], **FORMAT) == [10, 7, 8, 13]  # cut off
    assert uncorrupt([*asked, 81], **FORMAT) == [10, 13]  # nothing was missing


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([10, 90, 2, 80, 90, 1, 81, 80], "one separator"),
        ([10, 90, 80, 90, 1, 81], "context, eos, one separator"),
        ([10, 90, 2, 80, 91, 1, 81], "a span for each mask"),
        ([10, 90, 2, 80, 90, 1, 81, 90, 1, 81], "each span after its own mask"),
        ([10, 90, 2, 80, 7, 1, 81], "got id 7"),
        ([10, 90, 91, 2, 80, 90, 1, 81], r"spans of \[90\]"),
    ],
)
def test_rows_that_nobody_corrupted_are_refused(ids, says):
    with pytest.raises(InputError, match=f"uncorrupt: ids must be .*{says}"):
        uncorrupt(ids, **FORMAT)


def test_every_layout_is_equally_likely():
    """7 tokens, 3 hidden in 2 spans: 2 ways to part 3, and the spans' places by hand."""
    ways = {
        tuple(spans)
        for widths in ((1, 2), (2, 1))
        for a, b in itertools.product(range(7), range(7))
        if a + widths[0] < b and b + widths[1] <= 7
        for spans in [((a, a + widths[0]), (b, b + widths[1]))]
    }
    g = generator(0)
    seen = Counter(tuple(draw_spans(7, 3, 1.5, 5, generator=g)) for _ in range(4000))
    assert set(seen) == ways
    expected = 4000 / len(ways)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in seen.values())


@pytest.mark.parametrize("most", [1, 2, 9])
def test_spans_are_apart_inside_and_as_many_as_asked_for(most):
    g = generator(most)
    for length, hidden, mean in itertools.product((2, 8, 30), (1, 5, 40), (1.0, 3.0)):
        spans = draw_spans(length, hidden, mean, most, generator=g)
        assert 1 <= len(spans) <= most
        assert sum(b - a for a, b in spans) == min(hidden, length - 1)
        edges = [0, *(edge for span in spans for edge in span), length]
        assert edges == sorted(edges) and all(b[0] > a[1] for a, b in zip(spans, spans[1:], strict=False))


def test_no_span_holds_or_crosses_the_end_of_a_document():
    g = generator(1)
    ends = [5, 6, 17]
    for _ in range(500):
        spans = draw_spans(24, 12, 5.0, 4, ends, g)
        assert not any(a <= end < b for a, b in spans for end in ends) and all(a < b for a, b in spans)
    assert draw_spans(3, 2, 2.0, 1, [0, 1, 2], g) == draw_spans(1, 1, 2.0, 1) == []
    # a span of 4 to 12 is cut at 5 and 6, and its longest piece stays
    assert draw_spans(9, 8, 8.0, 1, [2], torch.Generator()) in ([(3, 8)], [(3, 9)])
