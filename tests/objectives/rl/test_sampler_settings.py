from __future__ import annotations

from types import SimpleNamespace

import pytest

from plumbline.core.errors import InputError
from plumbline.objectives.rl.sampler_settings import check_sampler


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"temperature": 1.0, "top_p": 1, "top_k": -1, "min_p": 0.0, "logit_bias": {}, "bad_words": []},
        {"temperature": None, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": 512, "n": 8},
    ],
)  # fmt: skip
def test_plain_sampling_passes(settings):
    check_sampler(settings)
    check_sampler(SimpleNamespace(**settings))


@pytest.mark.parametrize(("name", "value"), [("top_p", 0.95), ("top_k", 20), ("min_p", 0.05), ("top_p", "0.9")])
def test_truncation_needs_its_kept_sets(name, value):
    with pytest.raises(InputError, match=f"check_sampler: {name} must be off where the kept sets are not recorded"):
        check_sampler({name: value})
    check_sampler({name: value}, support=True)
    check_sampler({name: value}, allow_support_bias=True)
    with pytest.raises(InputError, match="raw log-probabilities"):
        check_sampler({name: value}, support=True, processed=False)


def test_temperatures_must_agree():
    with pytest.raises(InputError, match="temperature must be the trainer's, 1, got 0.7"):
        check_sampler({"temperature": 0.7})
    check_sampler({"temperature": 0.7}, temperature=0.7)
    with pytest.raises(InputError, match="raw log-probabilities at 0.7; set logprobs_mode"):
        check_sampler({"temperature": 0.7}, temperature=0.7, processed=False)
    check_sampler({}, processed=False)
    with pytest.raises(InputError, match="greedy answers have no ratio"):
        check_sampler({"temperature": 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("repetition_penalty", 1.1), ("presence_penalty", 0.5), ("frequency_penalty", -0.5), ("logit_bias", {"5": 1.0}),
     ("bad_words", ["no"]), ("min_tokens", 4), ("logits_processors", [print])],
)  # fmt: skip
def test_what_reshapes_the_distribution_is_refused_even_with_kept_sets(name, value):
    with pytest.raises(InputError, match=f"check_sampler: {name} must be off"):
        check_sampler({name: value}, support=True, allow_support_bias=True)
