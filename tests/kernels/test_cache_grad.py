"""A window over cached states: equal to a pass over everything, and its gradients to finite differences."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from plumbline.core.errors import InputError
from plumbline.kernels.cache_grad import StateModel, gradients
from plumbline.kernels.logps import label_logps
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

ARCHITECTURES = ("llama", "gpt2", "gemma3", "gpt_neox", "qwen3", "mistral")


def ids_of(rows, length):
    return torch.randint(3, 100, (rows, length), generator=generator(0, "ids"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_windows_give_the_logits_of_one_pass(architecture):
    model, ids = tiny(architecture).double(), ids_of(2, 30)
    lm, states, parts = StateModel(model), [], []
    for start in range(0, 30, 8):
        logits, nodes = lm.window(ids[:, start : start + 8], states)
        states = [x.detach() for x in nodes]
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), model(ids).logits, atol=1e-10)
    assert states[0].shape[-2] == 30 and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_finite_differences(architecture):
    model, ids = tiny(architecture).double().requires_grad_(False), ids_of(2, 12)
    close = 1e-4 if architecture.startswith("gpt") else 1e-3  # RMSNorm rounds to float32 in every dtype
    lm = StateModel(model)
    _, nodes = lm.window(ids[:, :7], [])
    states = [x.detach() for x in nodes]

    def loss_of(states):
        logits, nodes = lm.window(ids[:, 7:11], states)
        return -label_logps(logits, ids[:, 8:12]).mean(), nodes

    loss, nodes = loss_of(states)
    found = gradients(loss, nodes)
    for which in range(len(states)):
        direction = torch.randn(states[which].shape, generator=generator(which, "way"), dtype=torch.float64)

        def along(step, which=which, direction=direction):
            moved = [x + step * direction if i == which else x for i, x in enumerate(states)]
            return loss_of(moved)[0].item()

        h = 1e-2
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        g = found[which][..., :7, :]
        assert slope == pytest.approx((g * direction).sum().item(), abs=close * g.norm().item())
        assert found[which][..., 7:, :].abs().max() > 0  # the window's own states, frozen weights or not


def test_the_first_window_has_gradients_with_frozen_weights():
    lm, ids = StateModel(tiny("gpt2").requires_grad_(False)), ids_of(1, 6)
    logits, nodes = lm.window(ids[:, :5], [])
    assert gradients(-label_logps(logits, ids[:, 1:]).mean(), nodes)[0].abs().max() > 0


def test_bf16_states_stay_wide_and_unchanged():
    model, ids = tiny("llama").bfloat16(), ids_of(1, 10)
    lm = StateModel(model)
    _, nodes = lm.window(ids[:, :5], [])
    states = [x.detach().float() for x in nodes]
    before = [x.clone() for x in states]
    logits, nodes = lm.window(ids[:, 5:9], states)
    found = gradients(-label_logps(logits, ids[:, 6:]).mean(), nodes)
    assert logits.dtype == found[0].dtype == torch.float32 and nodes[0].dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))


def test_refusals():
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(InputError, match="cache keys and values"):
        StateModel(MambaForCausalLM(config))
    with pytest.raises(InputError, match="context"):
        StateModel(tiny("llama")).window(ids_of(1, 65), [])
    with pytest.raises(InputError, match="eval"):
        StateModel(tiny("llama").train()).window(ids_of(1, 5), [])
