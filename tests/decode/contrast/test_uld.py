"""ULD's logit difference, generating and scoring; assistants and their loss."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.decode import uld
from plumbline.decode.contrast.assistants import assistant, assistant_loss, subtract
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

TOKENS = torch.zeros(3, 1, dtype=torch.long)
TARGET, ASSISTANT = 2 * torch.randn(2, 3, 20, generator=generator(0), dtype=torch.float64)


def test_difference_inside_the_set_and_nothing_outside() -> None:
    found = torch.softmax(uld(lambda _: ASSISTANT, weight=-0.8, ratio=0.1)(TOKENS, TARGET), -1)
    for b in range(3):
        p = torch.softmax(TARGET[b], -1).tolist()
        bound = min(0.1 * max(p), sorted(p, reverse=True)[1])  # int(0.1 * 20) = 2 tokens are kept at least
        raw = [math.exp(float(TARGET[b, v] - 0.8 * ASSISTANT[b, v])) * (p[v] >= bound) for v in range(20)]
        assert found[b].tolist() == pytest.approx([x / sum(raw) for x in raw], abs=1e-12)


def test_scoring_leaves_the_rest_at_the_targets_logits() -> None:
    out, kept = subtract(TARGET, ASSISTANT, weight=-0.8, ratio=0.1)
    own = TARGET - TARGET.logsumexp(-1, keepdim=True)
    torch.testing.assert_close(out[~kept], own[~kept], rtol=0, atol=1e-12)
    assert kept.any() and not kept.all()
    excess = ASSISTANT - ASSISTANT.logsumexp(-1, keepdim=True) + math.log(20)
    torch.testing.assert_close(out[kept], (own - 0.8 * excess)[kept])
    whole, _ = subtract(TARGET[None].expand(2, 3, 20), ASSISTANT[None].expand(2, 3, 20), weight=-0.8, ratio=0.1)
    assert torch.equal(whole[1], out)  # [B, L, V] too


@pytest.mark.parametrize("shift", [0.0, 7.5])
def test_a_uniform_assistant_or_weight_zero_is_the_target(shift: float) -> None:
    flat = torch.full_like(TARGET, shift)
    p = torch.softmax(TARGET, -1)
    torch.testing.assert_close(torch.softmax(uld(lambda _: flat, ratio=0.0)(TOKENS, TARGET), -1), p, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.softmax(subtract(TARGET, flat, ratio=0.3)[0], -1), p, rtol=0, atol=1e-12)
    none = uld(lambda _: ASSISTANT, weight=0.0, ratio=0.0)(TOKENS, TARGET)
    torch.testing.assert_close(torch.softmax(none, -1), p, rtol=0, atol=1e-12)


def test_a_positive_weight_is_refused() -> None:
    with pytest.raises(InputError, match="uld: weight must be a number > -1e"):
        uld(lambda _: ASSISTANT, weight=0.5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox", "mistral"])
def test_an_assistant_is_the_targets_first_blocks(architecture: str) -> None:
    target = tiny(architecture)
    small, ids = assistant(target, layers=1), torch.randint(3, 101, (2, 9), generator=generator(1))
    assert not small.training and sum(p.numel() for p in small.parameters()) < sum(
        p.numel() for p in target.parameters()
    )
    with torch.no_grad():
        hidden = target(ids, output_hidden_states=True).hidden_states[1]  # after the first block, before any norm
        norm = next(m for n, m in target.named_modules() if n.endswith(("model.norm", "ln_f", "final_layer_norm")))
        wanted = target.get_output_embeddings()(norm(hidden))
        torch.testing.assert_close(small(ids).logits, wanted, rtol=0, atol=1e-5)
        next(small.parameters()).zero_()
        assert bool(next(target.parameters()).any())  # a copy, not a view
    with pytest.raises(InputError, match="assistant: layers must be from 1 to the target's 2, got 3"):
        assistant(target, layers=3)


def test_assistant_loss_by_hand_and_it_trains() -> None:
    half = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]]])  # p = (3/4, 1/4) at the second token
    scored = Scored.from_logits(half, torch.tensor([[0, 1, 0]]))
    wanted = -(math.log(0.5) + math.log(0.75)) / 2 + 5 * (-math.log(2) - (math.log(0.75) + math.log(0.25)) / 2) / 2
    assert float(assistant_loss(scored, scored)) == pytest.approx(wanted, abs=1e-6)
    small = assistant(tiny("llama"), layers=1)
    ids = torch.randint(3, 101, (2, 8), generator=generator(2))
    loss = assistant_loss(Scored.from_logits(small(ids).logits, ids), Scored.from_logits(small(ids).logits, ids))
    loss.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in small.parameters())
