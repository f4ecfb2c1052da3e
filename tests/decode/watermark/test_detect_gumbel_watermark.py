from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import gamma

from plumbline.core.errors import InputError
from plumbline.decode.watermark import detect_gumbel_watermark, gumbel_watermark, trials
from plumbline.decode.watermark.keys import Hashed
from plumbline.decode.watermark.streams import SeededStream, TransformersGreens
from plumbline.kernels.seeds import generator


def test_by_a_slow_loop():
    text = torch.randint(0, 9, (50,), generator=generator(0, "t")).tolist()
    seen = {tuple(text[t - 2 : t + 1]) for t in range(10, 50)}
    total = sum(-math.log(1 - float(Hashed(key=5, context=2).uniform(torch.tensor([g]))[0])) for g in seen)
    found = detect_gumbel_watermark([text], prompt_lengths=10, key=5, context=2)
    assert found.n[0] == len(seen) and found.figures["S"][0] == pytest.approx(total)
    assert found.p_value[0] == pytest.approx(gamma.sf(total, len(seen)))
    assert found.z[0] == pytest.approx((total - len(seen)) / math.sqrt(len(seen)))


@pytest.mark.parametrize("settings", [{}, {"context": 3}, {"context": 4, "self_hash": True}, {"scheme": SeededStream}])
def test_the_right_key_finds_it_and_the_wrong_one_does_not(settings):
    ids = trials.write(gumbel_watermark(key=7, **settings), rows=8, length=60)
    right, wrong = (detect_gumbel_watermark(ids, key=key, vocab=trials.VOCAB, **settings) for key in (7, 8))
    assert right.watermarked.all() and right.z.min() > 6
    assert abs(wrong.z.mean()) < 1.5 and not wrong.watermarked.any()


def test_no_text_is_undecided():
    found = detect_gumbel_watermark([[], [4]])
    assert found.n.tolist() == [0, 0] and math.isnan(found.p_value[0]) and not found.decided.any()


def test_a_scheme_of_colours_is_refused():
    with pytest.raises(InputError, match="scheme must be one that gives every token a number"):
        detect_gumbel_watermark([[1, 2, 3]], scheme=TransformersGreens, vocab=10)
