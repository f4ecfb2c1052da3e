from __future__ import annotations

import pytest
import torch
from scipy.integrate import dblquad
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.watermark import detect_gumbel_watermark, diverse_gumbel_watermark, gumbel_watermark, trials
from plumbline.decode.watermark.gumbel import sampling_settings
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny


def test_by_hand():
    # weights 0.25^(1/0.5) = 1/16 and 0.5^(1/0.5) = 1/4: odds 1 to 4
    p = torch.tensor([0.5, 0.5], dtype=torch.float64)
    found = trials.apply(diverse_gumbel_watermark, p, torch.tensor([[0.25, 0.5]], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([0.2, 0.8], abs=1e-12)


def test_it_is_lossy_by_a_known_amount():
    p = torch.tensor([0.8, 0.2], dtype=torch.float64)
    found = trials.average_over_numbers(diverse_gumbel_watermark, p)
    wanted, _ = dblquad(lambda b, a: a**1.25 / (a**1.25 + b**5), 1e-12, 1, 1e-12, 1, epsabs=1e-9)
    assert found[0].item() == pytest.approx(wanted, abs=1e-6)
    assert trials.distance(found, p) == pytest.approx(0.0339, abs=1e-4)


def test_its_favourite_is_the_exact_forms_pick_and_nothing_overflows():
    tokens, logits = torch.arange(8)[:, None], 30 * torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    logits[:, 5] = -torch.inf
    out = diverse_gumbel_watermark(key=4)(tokens, logits.bfloat16())
    assert torch.equal(out.argmax(-1), gumbel_watermark(key=4)(tokens, logits.bfloat16()).argmax(-1))
    assert out.dtype == torch.float32 and (out.amax(-1) == 0).all() and (out[:, 5] == -torch.inf).all()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox"])
def test_inside_generate_samples_differ_and_are_found(architecture):
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    with forked(0):
        out = tiny(architecture).generate(
            ids, attention_mask=(ids != 0).long(), max_new_tokens=40, min_new_tokens=40, num_return_sequences=3,
            logits_processor=LogitsProcessorList([diverse_gumbel_watermark(key=3)]), **sampling_settings(),
        )  # fmt: skip
    assert len(out.unique(dim=0)) == 6
    mask = torch.tensor([[0, 0] + [1] * 42] * 3 + [[1] * 44] * 3)
    assert detect_gumbel_watermark(out, mask, [2] * 3 + [4] * 3, key=3).p_value.max() < 1e-4


def test_bad_settings_are_refused_by_name():
    with pytest.raises(InputError, match="diverse_gumbel_watermark: temperature must be"):
        diverse_gumbel_watermark(temperature=-1.0)
