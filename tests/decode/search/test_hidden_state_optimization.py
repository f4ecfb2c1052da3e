"""Hidden-state optimisation: the model's own NLL at rate 0, a slow loop with torch's Adam, rows apart, labels."""

from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import hidden_state_optimization
from plumbline.decode.search.hidden_states import HiddenStates, classify, read_text
from plumbline.kernels.cache_grad import StateModel
from plumbline.kernels.logps import label_logps
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

ARCHITECTURES = ("llama", "gpt2", "gemma3", "gpt_neox", "qwen3")


def ids_of(rows, length, seed=0):
    return torch.randint(3, 100, (rows, length), generator=generator(seed, "ids"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rate_0_is_the_models_own_nll(architecture):
    model, ids = tiny(architecture).double(), ids_of(2, 40)
    wanted = -label_logps(model(ids).logits[:, :-1], ids[:, 1:])
    for update in ("past", "all"):
        found = hidden_state_optimization(model, ids, lr=0.0, window=7, steps=2, update=update)
        assert torch.allclose(found, wanted, atol=1e-10) and found.dtype == torch.float64
    moved = hidden_state_optimization(model, ids, window=7)
    assert torch.equal(moved[:, :14], found[:, :14])  # the first window has no past, the second is read before a step
    assert (moved[:, 14:] - wanted[:, 14:]).abs().max() > 1e-4


def slow(model, ids, window, lr, own):
    """One row, one step a window: torch's own Adam, one optimiser a position."""
    lm, positions, nll = StateModel(model), [], []
    for start in range(0, ids.shape[1] - 1, window):
        stop = min(start + window, ids.shape[1] - 1)
        layers = range(len(positions[0][0])) if positions else []
        states = [torch.cat([p[0][i].detach() for p in positions], -2) for i in layers]
        logits, nodes = lm.window(ids[:, start:stop], states)
        loss = -label_logps(logits, ids[:, start + 1 : stop + 1])
        nll.append(loss.detach())
        grads = torch.autograd.grad(loss.mean(), nodes)
        for t in range(start, stop):
            leaves = [x[..., t : t + 1, :].detach().clone().requires_grad_() for x in nodes]
            positions.append((leaves, torch.optim.Adam(leaves, lr=lr)))
        for t, (leaves, optimizer) in enumerate(positions):
            if own or t < start:
                for leaf, g in zip(leaves, grads, strict=True):
                    leaf.grad = g[..., t : t + 1, :].clone()
                optimizer.step()
    return torch.cat(nll, 1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("update", ["past", "all"])
def test_against_one_adam_a_position(architecture, update):
    model, ids = tiny(architecture).double(), ids_of(1, 24)
    found = hidden_state_optimization(model, ids, lr=0.02, window=5, update=update)
    assert torch.allclose(found, slow(model, ids, 5, 0.02, update == "all"), atol=1e-8)


def test_rows_learn_apart_and_padding_changes_nothing():
    model, ids = tiny("qwen3").double(), ids_of(3, 30)
    mask = torch.ones_like(ids)
    mask[0, :11] = mask[2, :4] = 0
    how = dict(lr=0.02, window=6, steps=2, update="all")
    whole = hidden_state_optimization(model, ids * mask, mask, **how)
    for b, start in ((0, 11), (1, 0), (2, 4)):
        alone = hidden_state_optimization(model, ids[b : b + 1, start:], **how)
        assert torch.allclose(whole[b, start:], alone[0], atol=1e-8)
        assert whole[b, : max(start - 1, 0)].eq(0).all()
    right = hidden_state_optimization(model, ids[:1, 11:].repeat(1, 2)[:, :25], mask[:1].flip(1)[:, :25], **how)
    assert torch.allclose(right[0, :18], whole[0, 11:], atol=1e-8) and right[0, 19:].eq(0).all()


def test_steps_follow_the_gradient_and_weights_stay():
    model, ids = tiny("llama"), ids_of(4, 60)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    own, once, thrice = (
        hidden_state_optimization(model, ids.clone().fill_(7) + ids % 2, lr=lr, window=10, steps=s).mean()
        for lr, s in ((0.0, 1), (0.01, 1), (0.01, 3))
    )
    assert thrice < once < own
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert hidden_state_optimization(model.bfloat16(), ids, lr=0.01).isfinite().all()


def test_labels_are_scored_after_the_optimised_prompt():
    model, prompt = tiny("gpt2").double(), ids_of(1, 20)[0]
    labels = [[5], [9, 11], [7, 3, 4]]
    found = classify(model, prompt, labels, lr=0.0)
    for label, score in zip(labels, found, strict=True):
        row = torch.cat([prompt, torch.tensor(label)])[None]
        alone = label_logps(model(row).logits[:, :-1], row[:, 1:])[0, 19:].sum()
        assert score.item() == pytest.approx(alone.item(), abs=1e-9)
    taught = torch.tensor([30, 5, 31, 5, 32, 5, 33, 5, 34, 5, 35])
    plain, tuned = (classify(model, taught, [[5], [9]], lr=lr, steps=1, window=5) for lr in (0.0, 0.05))
    assert tuned[0] - tuned[1] > plain[0] - plain[1]


def test_refusals():
    model, ids = tiny("llama"), ids_of(1, 10)
    for bad in (dict(lr=-1.0), dict(window=0), dict(steps=0), dict(update="future"), dict(lr=float("nan"))):
        with pytest.raises(InputError, match=next(iter(bad))):
            hidden_state_optimization(model, ids, **bad)
    for wrong in (ids[0], ids[:, :1]):
        with pytest.raises(InputError, match="input_ids"):
            hidden_state_optimization(model, wrong)
    with pytest.raises(InputError, match="context"):
        hidden_state_optimization(model, ids_of(1, 80))
    with pytest.raises(InputError, match="labels"):
        classify(model, ids[0], [[]])
    hidden = HiddenStates(model, lr=0.0)
    assert read_text(hidden, ids, torch.ones_like(ids), 4).shape == (1, 9) and hidden.states[0].shape[-2] == 9
