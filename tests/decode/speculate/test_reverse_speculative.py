from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.speculate import reverse_speculative
from plumbline.kernels.seeds import generator
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.tiny import tiny

TOKENS = torch.zeros(1, 1, dtype=torch.long)


def found(student, teacher, **settings):
    return torch.softmax(reverse_speculative(lambda _: teacher, **settings)(TOKENS, student), -1)[0]


def trials_one_by_one(student, teacher, threshold, trials, top, strict):
    p, q = torch.softmax(student[0], -1), torch.softmax(teacher[0], -1)
    theirs, own = q.topk(top).indices.tolist(), p.topk(top).indices.tolist()

    def draw(chooser):
        for _ in range(trials):
            token = theirs[chooser.categorical(q[theirs])]
            if token in own and p[token] >= threshold:
                return token
        allowed = [v for v in own if p[v] >= threshold] if strict else []
        fallback = allowed or own
        return fallback[chooser.categorical(p[fallback])]

    return exact_distribution(draw)


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.2, 0.99])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("trials", [1, 3])
def test_closed_form_is_the_trials_distribution(threshold, strict, trials):
    for seed in range(4):
        student, teacher = (2 * torch.randn(1, 7, generator=generator(seed, k)).double() for k in "st")
        settings = {"threshold": threshold, "trials": trials, "top": 4, "strict": strict}
        wanted = trials_one_by_one(student, teacher, **settings)
        got = found(student, teacher, **settings)
        assert max(abs(float(got[v]) - wanted.get(v, 0.0)) for v in range(7)) < 1e-12


def test_limits():
    student, teacher = (2 * torch.randn(1, 30, generator=generator(0, k)).double() for k in "st")
    both = {"threshold": 0.0, "top": 30}
    assert torch.allclose(found(student, teacher, **both), torch.softmax(teacher, -1)[0])  # everything accepted
    assert torch.allclose(found(student, teacher, threshold=1.0, top=30), torch.softmax(student, -1)[0])  # nothing is
    lost = (found(student, teacher, top=30) - torch.softmax(student, -1)[0]).abs().sum() / 2
    assert 0.2 < lost < 1  # lossless for neither model
    assert (found(student, teacher, top=30) - torch.softmax(teacher, -1)[0]).abs().sum() / 2 > 0.01


def test_strict_keeps_every_token_likely_under_the_student():
    student, teacher = (4 * torch.randn(1, 60, generator=generator(1, k)).double() for k in "st")
    p = torch.softmax(student, -1)[0]
    assert p[found(student, teacher, strict=True) > 0].min() >= 0.01
    assert p[found(student, teacher) > 0].min() < 0.01  # the plain fallback does not


def test_forbidden_tokens_are_no_part_of_the_pools():
    student, teacher = torch.full((1, 30), -torch.inf), torch.randn(1, 30, generator=generator(2))
    student[0, :3] = torch.tensor([0.0, 1.0, 2.0])
    out = found(student, teacher, threshold=0.0)
    assert (out[3:] == 0).all() and out[:3].sum() == pytest.approx(1.0)


def test_inside_generate(tiny_model):
    ids, mask = torch.randint(3, 101, (2, 7), generator=generator(3)), torch.ones(2, 7, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0
    teacher = tiny("llama", seed=1)
    for settings in ({"do_sample": True}, {"do_sample": False}, {"num_beams": 3}):
        out = tiny_model.generate(
            ids, attention_mask=mask, logits_processor=LogitsProcessorList([reverse_speculative(teacher)]),
            max_new_tokens=6, min_new_tokens=6, pad_token_id=0, **settings,
        )  # fmt: skip
        assert out.shape == (2, 13)
    with torch.no_grad():
        alone = [teacher.generate(ids[1:], max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)]
    open_rule = reverse_speculative(teacher, threshold=0.0, top=101)
    out = tiny_model.generate(
        ids, attention_mask=mask, logits_processor=LogitsProcessorList([open_rule]), max_new_tokens=6,
        min_new_tokens=6, do_sample=False, pad_token_id=0,
    )  # fmt: skip
    assert out[1].tolist() == alone[0][0].tolist()  # an undemanding student writes the teacher's own text


def test_refusals():
    with pytest.raises(InputError, match="reverse_speculative: trials must be a whole number >= 1, got 0"):
        reverse_speculative(lambda _: TOKENS, trials=0)
