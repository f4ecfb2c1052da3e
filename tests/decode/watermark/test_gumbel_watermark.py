from __future__ import annotations

import math
from functools import cache
from itertools import pairwise, product

import pytest
import torch
from transformers import LogitsProcessorList, TopPLogitsWarper

from plumbline.core.errors import InputError
from plumbline.decode.watermark import detect_gumbel_watermark, gumbel_watermark, trials
from plumbline.decode.watermark.gumbel import nucleus, sampling_settings
from plumbline.decode.watermark.keys import windows
from plumbline.decode.watermark.streams import SeededStream
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny


def test_by_hand():
    # 0.5^(1/0.2) = 0.031 beats 0.01^(1/0.8) = 0.003; at 0.1^(1/0.8) = 0.056 the first wins
    p = torch.tensor([0.8, 0.2], dtype=torch.float64)
    table = torch.tensor([[0.01, 0.5], [0.1, 0.5]], dtype=torch.float64)
    assert trials.apply(gumbel_watermark, p, table).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("p", [[0.25, 0.75], [0.5, 0.3, 0.2], [0.01, 0.09, 0.9]])
def test_over_keys_it_is_the_models_distribution(p):
    target = torch.tensor(p, dtype=torch.float64)
    assert (trials.picks_over_keys(gumbel_watermark, target) - target).abs().max() < 1e-9


def test_temperature_and_nucleus_are_the_ones_sampled_from():
    target = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    sharp = target**2 / (target**2).sum()
    found = trials.picks_over_keys(gumbel_watermark, target, temperature=0.5)
    assert (found - sharp).abs().max() < 1e-9
    cut = trials.picks_over_keys(gumbel_watermark, target, top_p=0.7)
    assert (cut - torch.tensor([0.625, 0.375, 0.0], dtype=torch.float64)).abs().max() < 1e-9


@pytest.mark.parametrize("vocab", [7, 3000])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_nucleus_equals_transformers(vocab, spread):
    logits = spread * torch.randn(4, vocab, generator=generator(0, "l"))
    wanted = TopPLogitsWarper(0.9)(None, logits)
    found = nucleus(logits, 1.0, 0.9)
    assert torch.equal(found > -torch.inf, wanted > -torch.inf)
    assert torch.allclose(found, wanted.double().log_softmax(-1), atol=1e-6)


def _two_token_model(prefix: tuple[int, ...]) -> float:
    """P(next = 0): depends on all that was written, so that a repeated context meets another distribution."""
    return [0.37, 0.62, 0.21, 0.55, 0.48, 0.71, 0.83][int("1" + "".join(map(str, prefix)), 2) - 1]


def _whole_texts(length: int = 3, **settings: bool) -> tuple[float, float]:
    """Largest error of P(text) over all keys, and the total variation. Token 0 wins iff g < p0, g uniform."""

    @cache
    def step(prefix: tuple[int, ...], g: float) -> list[float]:
        numbers = torch.tensor([[math.exp(-g / (1 - g)), math.exp(-1.0)]], dtype=torch.float64)
        p0 = _two_token_model(prefix)
        logits = torch.tensor([[p0, 1 - p0]], dtype=torch.float64).log()
        rule = gumbel_watermark(scheme=trials.Given(numbers), **settings)
        return rule(torch.tensor([[2, *prefix]]), logits).softmax(-1)[0].tolist()

    texts = list(product((0, 1), repeat=length))
    cuts = sorted({0.0, 1.0, *(_two_token_model(t[:n]) for t in texts for n in range(length))})
    cells = [((a + b) / 2, b - a) for a, b in pairwise(cuts)]
    found = dict.fromkeys(texts, 0.0)
    for key in product(cells, repeat=3):  # one g for each context: the tokens 0 and 1, and 2 that ends the prompt
        weight = math.prod(width for _, width in key)
        for text in texts:
            row = (2, *text)
            found[text] += weight * math.prod(step(text[:n], key[row[n]][0])[x] for n, x in enumerate(text))
    errors = []
    for text in texts:
        p0 = [_two_token_model(text[:n]) for n in range(length)]
        errors.append(abs(found[text] - math.prod(p if x == 0 else 1 - p for p, x in zip(p0, text, strict=True))))
    return max(errors), sum(errors) / 2


def test_whole_texts_are_exact_where_repeats_are_skipped_and_only_there():
    worst, _ = _whole_texts(skip_repeats=True)
    assert worst < 1e-9
    _, moved = _whole_texts(skip_repeats=False)
    assert moved > 0.05


def test_the_argmax_of_the_paper_on_a_wide_vocabulary():
    tokens = torch.randint(0, 500, (6, 4), generator=generator(0, "t"))
    logits = torch.randn(6, 500, generator=generator(0, "l"))
    r = SeededStream(key=9, context=2).uniforms(windows(tokens, 2), 500)
    out = gumbel_watermark(key=9, context=2, scheme=SeededStream)(tokens, logits)
    assert torch.equal(out.argmax(-1), (r.log() / logits.double().softmax(-1)).argmax(-1))
    assert (out.max(-1).values == 0).all() and (torch.isfinite(out).sum(-1) == 1).all()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox"])
def test_inside_generate_with_left_padding(architecture):
    model = tiny(architecture)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    settings = dict(attention_mask=(ids != 0).long(), max_new_tokens=30, min_new_tokens=30)
    rule = LogitsProcessorList([gumbel_watermark(key=3, context=2)])
    with forked(0):
        sampled = model.generate(ids, **settings, **sampling_settings(), logits_processor=rule)
    greedy = model.generate(ids, **settings, logits_processor=rule)
    assert torch.equal(sampled, greedy)  # the key decides
    mask = torch.tensor([[0, 0] + [1] * 32, [1] * 34])
    assert detect_gumbel_watermark(sampled, mask, [2, 4], key=3, context=2).p_value.max() < 1e-6


def test_a_beam_has_one_way_on():
    out = gumbel_watermark()(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 50))
    assert (torch.isfinite(out).sum(-1) == 1).all()


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_bad_settings_are_refused_by_name(bad):
    with pytest.raises(InputError, match=f"gumbel_watermark: {next(iter(bad))} must be"):
        gumbel_watermark(**bad)
