from __future__ import annotations

import math

import pytest
import torch
from transformers import LogitsProcessorList, WatermarkLogitsProcessor

from plumbline.core.errors import InputError
from plumbline.decode.watermark import detect_kgw, kgw, trials
from plumbline.decode.watermark.keys import Hashed
from plumbline.decode.watermark.streams import TransformersGreens
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import ARCHITECTURES, tiny


def test_by_hand():
    # numbers 0.1 and 0.9 at gamma 1/2: the first token alone is green
    rule = kgw(gamma=0.5, delta=1.5, scheme=trials.Given(torch.tensor([[0.1, 0.9]])))
    assert rule(torch.tensor([[3]]), torch.tensor([[1.0, 2.0]])).tolist() == [[2.5, 2.0]]


def test_key_averaged_distribution_by_hand():
    # two tokens, each green with odds 1/4: P(0) = p with odds 10/16, and once tilted each way with odds 3/16
    p, e = torch.tensor([0.7, 0.3], dtype=torch.float64), math.exp(2.0)
    wanted = 10 / 16 * 0.7 + 3 / 16 * (0.7 * e / (0.7 * e + 0.3) + 0.7 / (0.7 + 0.3 * e))
    found = trials.average_over_lists(kgw, p)
    assert found[0].item() == pytest.approx(wanted, abs=1e-12)
    assert trials.distance(found, p) > 0.02  # lossy


@pytest.mark.parametrize(("scheme", "context"), [("lefthash", 1), ("selfhash", 4)])
def test_equals_transformers_processor(scheme, context):
    theirs = WatermarkLogitsProcessor(1003, "cpu", bias=2.5, seeding_scheme=scheme, context_width=context)
    ours = kgw(delta=2.5, context=context, self_hash=scheme == "selfhash", scheme=TransformersGreens)
    tokens = torch.randint(3, 1003, (4, 12), generator=generator(0, "t"))
    logits = torch.randn(4, 1003, generator=generator(0, "l"))
    assert torch.equal(ours(tokens, logits), theirs(tokens, logits))


def test_forbidden_tokens_stay_so_and_inputs_as_they_were():
    logits = torch.full((1, 50), -torch.inf)
    logits[0, 7] = 0.0
    out = kgw()(torch.tensor([[1, 2]]), logits)
    assert torch.isfinite(out).nonzero().tolist() == [[0, 7]] and logits[0, 7] == 0


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("how", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_inside_generate_with_left_padding(architecture, how):
    assert architecture in ARCHITECTURES
    model = tiny(architecture)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    with forked(0):
        out = model.generate(
            ids, attention_mask=(ids != 0).long(), max_new_tokens=30, min_new_tokens=30, **how,
            logits_processor=LogitsProcessorList([kgw(delta=8.0, key=3)]),
        )  # fmt: skip
    found = detect_kgw(out, mask=[[0, 0] + [1] * 32, [1] * 34], prompt_lengths=[2, 4], key=3, distinct=False)
    assert found.n.tolist() == [30, 30] and (found.figures["green_fraction"] > 0.8).all()


def test_a_prompt_shorter_than_the_context_is_extended_by_zeros():
    short, full = torch.tensor([[5]]), torch.tensor([[0, 0, 5]])
    logits = torch.zeros(1, 100)
    assert torch.equal(kgw(context=3)(short, logits), kgw(context=3)(full, logits))


def test_bf16_logits_and_half_a_vocabulary_more():
    tokens, logits = torch.tensor([[5, 6]]), torch.zeros(1, 100)
    green = kgw()(tokens, logits.bfloat16()) > 0
    assert torch.equal(green, kgw()(tokens, torch.zeros(1, 150))[:, :100] > 0)  # own hash: V plays no part
    assert torch.equal(green[0], Hashed().uniforms(tokens[:, -1:], 100)[0] < 0.25)


@pytest.mark.parametrize(
    "bad", [{"gamma": 0.0}, {"gamma": 1.0}, {"delta": math.nan}, {"delta": -1.0}, {"delta": 0.0}, {"delta": math.inf},
            {"context": 0}, {"key": "secret"}],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(bad):
    with pytest.raises(InputError, match=f"kgw: {next(iter(bad))} must be"):
        kgw(**bad)
