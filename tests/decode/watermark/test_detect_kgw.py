from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from transformers import LlamaConfig, WatermarkDetector, WatermarkingConfig

from plumbline.core.errors import InputError
from plumbline.decode.watermark import detect_kgw, kgw, trials
from plumbline.decode.watermark.keys import Hashed
from plumbline.decode.watermark.streams import SeededStream, TransformersGreens
from plumbline.kernels.seeds import generator


def slow(text: list[int], gamma: float, context: int, start: int = 0) -> tuple[int, int]:
    """Scored and green tokens, position by position."""
    scheme, seen = Hashed(key=5, context=context), {}
    for t in range(max(context, start), len(text)):
        gram = tuple(text[t - context : t + 1])
        seen[gram] = bool(scheme.uniform(torch.tensor([gram]))[0] < gamma)
    return len(seen), sum(seen.values())


@pytest.mark.parametrize("context", [1, 3])
def test_by_a_slow_loop_and_the_formula(context):
    texts = torch.randint(0, 9, (4, 60), generator=generator(0, "t"))
    found = detect_kgw(texts, prompt_lengths=[0, 1, 7, 59], gamma=0.3, key=5, context=context)
    for i, start in enumerate([0, 1, 7, 59]):
        n, g = slow(texts[i].tolist(), 0.3, context, start)
        assert (found.n[i], found.figures["green"][i]) == (n, g)
        z = (g - 0.3 * n) / math.sqrt(n * 0.3 * 0.7)
        assert found.z[i] == pytest.approx(z)
        assert found.p_value[i] == pytest.approx(math.erfc(z / math.sqrt(2)) / 2)
        assert found.figures["exact_p_value"][i] == pytest.approx(binom.sf(g - 1, n, 0.3))
    assert found.decided.tolist() == [True, True, True, False]


@pytest.mark.parametrize(("scheme", "context"), [("lefthash", 1), ("lefthash", 2), ("selfhash", 1), ("selfhash", 4)])
@pytest.mark.parametrize("distinct", [True, False])
def test_z_scores_equal_transformers(scheme, context, distinct):
    vocab = 331
    config = WatermarkingConfig(seeding_scheme=scheme, context_width=context)
    theirs = WatermarkDetector(LlamaConfig(vocab_size=vocab), "cpu", config, ignore_repeated_ngrams=distinct)
    ids = torch.randint(3, 30, (3, 50), generator=generator(0, "t"))
    wanted = theirs(ids, return_dict=True)
    found = detect_kgw(ids, context=context, self_hash=scheme == "selfhash", scheme=TransformersGreens, vocab=vocab,
                       distinct=distinct)  # fmt: skip
    assert np.array_equal(found.n, wanted.num_tokens_scored)
    assert np.array_equal(found.z, wanted.z_score)
    assert np.allclose(found.p_value, wanted.p_value, rtol=1e-12)
    assert np.array_equal(found.figures["green_fraction"], wanted.green_fraction)


@pytest.mark.parametrize("settings", [{}, {"context": 3}, {"self_hash": True, "context": 4}, {"scheme": SeededStream},
                                      {"scheme": TransformersGreens}])  # fmt: skip
def test_the_right_key_finds_it_and_the_wrong_one_does_not(settings):
    ids = trials.write(kgw(key=7, delta=3.0, **settings), rows=8, length=80)
    assert trials.z_scores(ids, key=7, **settings).min() > 4
    assert abs(trials.z_scores(ids, key=8, **settings).mean()) < 1.5


def test_arrays_lists_padding_sides_and_strings_agree():
    texts = [[5, 6, 7, 8, 9, 5, 6], [9, 8, 7], []]
    wanted = detect_kgw(texts, min_tokens=2)
    left, right = torch.zeros(3, 9, dtype=torch.int64), torch.zeros(3, 9, dtype=torch.int32)
    for i, text in enumerate(texts):
        left[i, 9 - len(text) :], right[i, : len(text)] = torch.tensor(text), torch.tensor(text)
    lengths = torch.tensor([[7], [3], [0]])
    place = torch.arange(9)
    for ids, mask in ((left, place >= 9 - lengths), (right.numpy(), (place < lengths).numpy())):
        assert detect_kgw(ids, mask, min_tokens=2).rows() == wanted.rows()

    def tokenizer(strings, add_special_tokens):
        return {"input_ids": [[int(x) for x in s.split()] for s in strings]}

    strings = [" ".join(map(str, t)) for t in texts]
    assert detect_kgw(strings, tokenizer=tokenizer, min_tokens=2).rows() == wanted.rows()
    assert detect_kgw(strings[0], tokenizer=tokenizer, min_tokens=2).rows() == wanted.rows()[:1]


def test_rows_are_json_and_little_text_is_undecided():
    rows = detect_kgw([[1, 2], [], list(range(40))]).rows()
    assert [row["verdict"] for row in rows] == ["undecided", "undecided", "not watermarked"]
    assert rows[1]["z"] is None and rows[1]["n"] == 0 and json.loads(json.dumps(rows)) == rows
    for settings in ({}, {"scheme": SeededStream}, {"scheme": TransformersGreens, "self_hash": True, "context": 4}):
        assert detect_kgw([], vocab=50, **settings).rows() == []
        assert detect_kgw([[]], vocab=50, **settings).rows()[0]["verdict"] == "undecided"


def test_the_verdict_follows_the_exact_tail():
    # 11 of 16 green: z = 4.04 but the binomial tail is 2.9e-4, nine times the normal's
    scheme, text = Hashed(), [0]
    for want in [True] * 11 + [False] * 5:
        numbers = scheme.uniforms(torch.tensor([[text[-1]]]), 4000)[0]
        text.append(next(v for v in range(4000) if v not in text and bool(numbers[v] < 0.25) == want))
    found = detect_kgw([text])
    assert found.z[0] > 4 and found.p_value[0] < 3.2e-5 and not found.watermarked[0]
    assert detect_kgw([text], level=1e-3).watermarked[0]


@pytest.mark.parametrize(
    ("texts", "settings", "told"),
    [
        (["a text"], {}, "tokenizer must be given"),
        ([[1, 2]], {"gamma": 1.0}, "gamma must be"),
        ([[1, -2]], {}, "whole token ids >= 0"),
        (torch.zeros(2, 3), {}, "whole token ids"),
        (torch.zeros(2, 3).long(), {"mask": torch.ones(2, 2)}, "mask must be of the ids' shape"),
        ([[1, 2]], {"prompt_lengths": [1, 2]}, "prompt_lengths must be one number"),
        ([[1, 2]], {"scheme": TransformersGreens}, "vocab must be given"),
        (7, {}, "texts must be ids"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(texts, settings, told):
    with pytest.raises(InputError, match=told):
        detect_kgw(texts, **settings)
