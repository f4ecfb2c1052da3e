from __future__ import annotations

import math

import pytest
import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from plumbline.core.errors import InputError
from plumbline.decode.contrast import contrastive_decoding, entropy_adaptive_decoding
from plumbline.decode.loop import Report
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.tiny import tiny

IDS = torch.randint(3, 101, (3, 7), generator=generator(0))
MASK = torch.ones(3, 7, dtype=torch.long)
IDS[0, :3], MASK[0, :3] = 0, 0
HOW = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


def alternate(small, large, ids=IDS, mask=MASK, **settings):
    return small.generate(
        ids, attention_mask=mask, custom_generate=entropy_adaptive_decoding, large=large, **(HOW | settings)
    ).tolist()


def plain(model, **settings):
    return model.generate(IDS, attention_mask=MASK, **(HOW | settings)).tolist()


def test_infinite_threshold_is_the_small_model_and_never_asks_the_large(architecture):
    small, large, told = tiny(architecture), tiny(architecture, seed=1), Report()
    assert alternate(small, large, threshold=math.inf, report=told) == plain(small)
    assert told.peer_calls == told.peer_tokens == 0 and told.calls == 12


def test_below_zero_is_the_large_model_from_its_first_token(architecture):
    small, large, told = tiny(architecture), tiny(architecture, seed=1), Report()
    rule = {"threshold": -1.0, "min_tokens": 0}
    assert alternate(small, large, start="large", report=told, **rule) == plain(large)
    assert told.calls == 0 and told.peer_tokens == told.tokens
    late = alternate(small, large, **rule)
    assert [r[:8] for r in late] == [r[:8] for r in plain(small)]  # the first token is the small model's
    after = large.generate(torch.tensor(late)[1:, :8], **(HOW | {"max_new_tokens": 11})).tolist()
    assert late[1:] == after


def by_loop(small, large, row, n, threshold, window, min_tokens, start):
    """One row from the definition: no cache, no batch."""
    active, since, bits, row, used = start == "large", 0, [], list(row), 0
    for _ in range(n):
        with torch.no_grad():
            logits = (large if active else small)(torch.tensor([row])).logits[0, -1]
        p = torch.softmax(logits.double(), -1)
        bits.append(float(-(p * p.log2()).sum()))
        row.append(int(logits.argmax()))
        used, since = used + active, since + 1
        if row[-1] == 2:
            break
        last = bits[-window:]
        if since >= min_tokens and active != (sum(last) / len(last) > threshold):
            active, since = not active, 0
    return row, used


@pytest.mark.parametrize("start", ["small", "large"])
@pytest.mark.parametrize(("threshold", "window", "min_tokens"), [(5.3, 1, 0), (5.2, 3, 2), (5.0, 5, 4), (4.9, 4, 10)])
def test_equals_recomputation_row_by_row(architecture, threshold, window, min_tokens, start):
    small, large, told = tiny(architecture), tiny(architecture, seed=1), Report()
    settings = {"threshold": threshold, "window": window, "min_tokens": min_tokens, "start": start}
    found = alternate(small, large, report=told, **settings)
    used = 0
    for row, ids, mask in zip(found, IDS, MASK, strict=True):
        text, by_large = by_loop(small, large, ids[mask == 1].tolist(), 12, **settings)
        assert row[int((mask == 0).sum()) :][: len(text)] == text
        used += by_large
    assert told.peer_tokens == used


def test_rows_switch_on_their_own():
    small, large = tiny("llama"), tiny("llama", seed=1)
    settings = {"threshold": 5.2, "window": 2, "min_tokens": 1}
    together = alternate(small, large, **settings)
    assert together[1:] == [alternate(small, large, IDS[b : b + 1], MASK[b : b + 1], **settings)[0] for b in (1, 2)]
    assert together != plain(small) and together != plain(large)  # lossy: neither model's text


def test_not_lossless_and_by_how_much():
    small, large = (tiny("llama", vocab=4, seed=s, eos_token_id=None).double() for s in (0, 1))
    ids = torch.tensor([[3, 2]])

    def distribution(**settings):
        def method(chooser):
            out = small.generate(ids, custom_generate=entropy_adaptive_decoding, large=large, max_new_tokens=3,
                                 do_sample=True, top_k=0, pad_token_id=0, chooser=chooser, **settings)  # fmt: skip
            return tuple(out[0, 2:].tolist())

        return exact_distribution(method)

    def ancestral(model):
        found = {(): 1.0}
        for _ in range(3):
            step = {}
            for text, p in found.items():
                with torch.no_grad():
                    q = torch.softmax(model(torch.tensor([[3, 2, *text]])).logits[0, -1], -1).tolist()
                step |= {(*text, v): p * q[v] for v in range(4)}
            found = step
        return found

    def distance(p, q):
        return sum(abs(p.get(k, 0) - q.get(k, 0)) for k in {*p, *q}) / 2

    target = ancestral(small), ancestral(large)
    assert distance(distribution(threshold=math.inf), target[0]) < 1e-9
    assert distance(distribution(threshold=-1.0, min_tokens=0, start="large"), target[1]) < 1e-9
    mixed = distribution(threshold=1.4, window=1, min_tokens=0)
    assert sum(mixed.values()) == pytest.approx(1.0)
    assert min(distance(mixed, q) for q in target) > 0.02


def test_it_ends_as_generate_does(architecture):
    small, large = tiny(architecture), tiny(architecture, seed=1)
    free = plain(small)
    end = free[1][9]
    for settings in ({"eos_token_id": [2, end]}, {"max_length": 10, "max_new_tokens": None}):
        assert alternate(small, large, threshold=math.inf, **settings) == plain(small, **settings)

    def third(ids, scores, **_):
        return torch.full((len(ids),), ids.shape[1] >= 10)

    stop = {"stopping_criteria": StoppingCriteriaList([third])}
    assert alternate(small, large, threshold=math.inf, **stop) == plain(small, **stop)


def test_with_the_users_rules_and_sampling():
    small, large = tiny("llama"), tiny("llama", seed=1)
    rules = {"logits_processor": LogitsProcessorList([contrastive_decoding(tiny("llama", seed=2))])}
    assert alternate(small, large, threshold=math.inf, **rules) == plain(
        small, logits_processor=LogitsProcessorList([contrastive_decoding(tiny("llama", seed=2))])
    )
    how = {"do_sample": True, "temperature": 0.7, "threshold": 5.2, "min_tokens": 1}
    drawn = []
    for seed in (0, 0, 1):
        with forked(seed):
            drawn.append(alternate(small, large, **how))
    assert drawn[0] == drawn[1] != drawn[2]
    out = small.generate(IDS, attention_mask=MASK, custom_generate=entropy_adaptive_decoding, large=large,
                         return_dict_in_generate=True, **HOW)  # fmt: skip
    assert out.sequences.shape[0] == 3


def test_refusals():
    small = tiny("llama")
    with pytest.raises(InputError, match="entropy_adaptive_decoding: large must be a model with the vocabulary width"):
        alternate(small, tiny("llama", vocab=77), start="large")
    with pytest.raises(InputError, match="entropy_adaptive_decoding: num_beams must be 1, got 2"):
        alternate(small, small, num_beams=2)
    with pytest.raises(InputError, match="entropy_adaptive_decoding: window must be a whole number >= 1, got 0"):
        alternate(small, small, window=0)
    with pytest.raises(InputError, match="entropy_adaptive_decoding: threshold must be a number"):
        alternate(small, small, threshold=math.nan)


def test_refuses_a_large_model_of_another_dtype() -> None:
    with pytest.raises(InputError, match=r"entropy_adaptive_decoding: large must be .*dtype.*torch.bfloat16"):
        tiny("llama").generate(torch.tensor([[5, 6]]), custom_generate=entropy_adaptive_decoding,
                               large=tiny("llama", seed=1).bfloat16(), max_new_tokens=2)  # fmt: skip
