from __future__ import annotations

import math

import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.contrast import ck_plug
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

TOKENS = torch.zeros(1, 1, dtype=torch.long)


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def by_loop(l_c, l_p, alpha, margin=0.0, ratio=0.01, min_keep=10):
    """One row of probabilities, from the definition."""

    def soft(z):
        top = max(z)
        e = [math.exp(x - top) for x in z]
        return [x / sum(e) for x in e]

    p_c, p_p = soft(l_c), soft(l_p)

    def keep(p):
        bound = min(max(p) * ratio, sorted(p, reverse=True)[min(min_keep, len(p)) - 1])
        return [x >= bound * (1 - 1e-12) for x in p]

    kept = [a or b for a, b in zip(keep(p_c), keep(p_p), strict=True)]
    f_c, f_p = (soft([x if k else -math.inf for x, k in zip(l, kept, strict=True)]) for l in (l_c, l_p))  # noqa: E741
    h_c, h_p = entropy(f_c), entropy(f_p)
    if not h_p - h_c < margin * h_c:
        return f_c
    if alpha is None:
        d = h_c + (1 + abs(h_c - h_p) / (h_c + h_p)) * h_p
        on_p, on_c = 2 * h_c / d, 2 * h_p / d
    else:
        on_p, on_c = alpha, 1 - alpha
    mixed = [on_p * p + on_c * (c - p) if k else -math.inf for c, p, k in zip(l_c, l_p, kept, strict=True)]
    return soft(mixed)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, None])
@pytest.mark.parametrize("margin", [0.0, 1.0, -1.0])
def test_equals_a_slow_loop(alpha, margin):
    draw = generator(0, "ck")
    context, memory = (torch.randn(40, 30, generator=draw, dtype=torch.float64) * 3 for _ in range(2))
    rule = ck_plug(lambda _: memory, alpha=alpha, margin=margin, min_keep=4)
    found = torch.softmax(rule(TOKENS.expand(40, 1), context), -1)
    wanted = [by_loop(c, p, alpha, margin, min_keep=4) for c, p in zip(context.tolist(), memory.tolist(), strict=True)]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)


def test_the_three_alphas_and_rows_without_conflict():
    flat, sharp = torch.tensor([[2.0, 1.9, 1.0, 0.5]]), torch.tensor([[5.0, 0.0, 1.0, 0.0]])

    def mixed(context, memory, alpha):
        return torch.softmax(ck_plug(lambda _: memory, alpha=alpha)(TOKENS, context), -1)

    assert torch.allclose(mixed(flat, sharp, 1.0), torch.softmax(sharp, -1))  # memory alone
    assert torch.allclose(mixed(flat, sharp, 0.5), torch.softmax(flat / 2, -1))  # the context's at temperature 2
    assert torch.allclose(mixed(flat, sharp, 0.0), torch.softmax(flat - sharp, -1))  # contrast alone
    for alpha in (0.0, 0.5, 1.0, None):
        assert torch.equal(ck_plug(lambda _: flat, alpha=alpha)(TOKENS, sharp), sharp)  # surer with the context


def test_two_sure_prompts_are_left_alone():
    context, memory = torch.full((1, 4), -torch.inf), torch.full((1, 4), -torch.inf)
    context[0, 1], memory[0, 2] = 0.0, 0.0
    for alpha in (0.0, None):
        out = ck_plug(lambda _: memory, alpha=alpha)(TOKENS, context)
        assert out.argmax() == 1 and not out.isnan().any()


def test_inside_generate_it_is_lossy_and_margin_minus_one_is_not(tiny_model):
    draw = generator(0, "prompts")
    ids = torch.randint(3, 101, (2, 7), generator=draw)
    mask = torch.ones_like(ids)
    ids[0, :3], mask[0, :3] = 0, 0
    own = torch.randint(3, 101, (2, 4), generator=draw)

    def run(rules, **more):
        out = tiny_model.generate(
            ids, attention_mask=mask, logits_processor=LogitsProcessorList(rules), max_new_tokens=8, do_sample=False,
            pad_token_id=0, **more,
        )  # fmt: skip
        return out.tolist()

    plain, beams = run([]), run([], num_beams=3)
    assert run([ck_plug(Peer(tiny_model, prompt=own), margin=-1.0, min_keep=101)]) == plain
    assert run([ck_plug(Peer(tiny_model, prompt=own), margin=-1.0, min_keep=101)], num_beams=3) == beams
    changed = run([ck_plug(Peer(tiny_model, prompt=own), alpha=1.0, margin=9.0)])
    assert changed != plain  # not lossless
    memory_alone = tiny_model.generate(own, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert [r[7:] for r in changed] == [r[4:] for r in memory_alone.tolist()]  # by as much as the two prompts differ


def test_refusals():
    with pytest.raises(InputError, match="ck_plug: alpha must be a number >= 0 and <= 1 or None, got 1.5"):
        ck_plug(tiny("llama"), alpha=1.5)
    with pytest.raises(InputError, match="vocabulary of 7"):
        ck_plug(lambda _: torch.zeros(1, 9))(TOKENS, torch.zeros(1, 7))


def test_what_is_forbidden_counts_in_neither_entropy():
    context = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]])
    memory = torch.tensor([[3.0, 0.0, 0.0, 3.0]])  # surer than the context among the first three, less sure over all
    without = ck_plug(lambda _: memory[:, :3], alpha=1.0)(TOKENS, context[:, :3])
    assert torch.allclose(ck_plug(lambda _: memory, alpha=1.0)(TOKENS, context)[:, :3], without)
    assert torch.allclose(torch.softmax(without, -1), torch.softmax(memory[:, :3], -1))
