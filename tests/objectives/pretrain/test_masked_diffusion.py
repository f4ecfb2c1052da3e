from __future__ import annotations

import math

import pytest
import torch
from tests import short_training as short

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.objectives import masked_diffusion, nll, rainbow_padding
from plumbline.objectives.pretrain.noising import filled_rows, noised, padding_tokens
from plumbline.worlds import instructions


def test_by_hand():
    # a prompt of one, a response of three of which two are hidden at q = 1/2: (log 2 + log 4) * 2 / 3
    x = Scored(torch.tensor([[0.9, 0.5, 0.3, 0.25]]).log(), torch.tensor([[False, True, False, True]]))
    found = masked_diffusion(x, torch.tensor([[0.0, 0.5, 0.5, 0.5]]))
    assert found.tolist() == [pytest.approx(2 * math.log(8) / 3, rel=1e-6)]


def test_a_slow_loop_agrees():
    g = generator(0)
    logps, mask = -torch.rand(5, 9, generator=g), torch.rand(5, 9, generator=g) < 0.5
    rate = torch.rand(5, 9, generator=g) * 0.9 + 0.1
    rate[:, :2], mask[:, :2] = 0.0, False
    wanted = []
    for b in range(5):
        total, n = 0.0, 0
        for t in range(9):
            n += rate[b, t] > 0
            total += -logps[b, t] / rate[b, t] if mask[b, t] else 0.0
        wanted.append(total / n)
    assert torch.allclose(masked_diffusion(Scored(logps, mask), rate), torch.stack(wanted))


def test_all_hidden_at_rate_one_is_the_mean_cross_entropy():
    x = Scored(-torch.rand(3, 5, generator=generator(1)))
    assert torch.allclose(masked_diffusion(x, torch.ones(3, 5)), nll(x).mean(-1))


def test_a_row_with_nothing_hidden_costs_nothing():
    x = Scored(torch.full((1, 3), -1.0, requires_grad=True), torch.zeros(1, 3, dtype=torch.bool))
    assert masked_diffusion(x, torch.full((1, 3), 0.3)).tolist() == [0.0]


def test_the_gradient_is_the_weight():
    logps = torch.full((1, 4), -1.0, requires_grad=True)
    x = Scored(logps, torch.tensor([[False, True, True, False]]))
    (found,) = torch.autograd.grad(masked_diffusion(x, torch.tensor([[0.0, 0.1, 0.1, 0.1]])).sum(), logps)
    assert torch.allclose(found, torch.tensor([[0.0, -10 / 3, -10 / 3, 0.0]]))


def test_position_t_of_a_model_scores_token_t():
    model = tiny("llama").bfloat16().float()
    ids, response = torch.randint(3, 100, (3, 10), generator=generator(2)), torch.arange(10).expand(3, -1) > 2
    noisy = noised(ids, response, 100, generator=generator(3))
    x = Scored.of(model, noisy["input_ids"], labels=noisy["labels"], shift=False)
    logits = model(noisy["input_ids"]).logits.double()
    chosen = logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)
    weight = torch.where(noisy["labels"] != -100, 1 / noisy["mask_prob"], 0.0)
    assert torch.allclose(masked_diffusion(x, noisy["mask_prob"]).double(), -(chosen * weight).sum(-1) / 7, atol=1e-4)


def test_bad_arguments_are_refused():
    x = Scored(torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"masked_diffusion: mask_prob must be of shape \[2, 4\], got \[2, 5\]; score"):
        masked_diffusion(x, torch.ones(2, 5))
    with pytest.raises(InputError, match="mask_prob must be above 0 wherever a token is hidden"):
        masked_diffusion(x, torch.zeros(2, 4))


def test_zoo_base_learns_to_restore_hidden_tokens():
    """After 20 steps held-out hidden tokens are likelier than after next-token training on the same clean rows."""
    lm = short.base()
    mask, *pads = padding_tokens(lm.model, lm.tokenizer, 8)
    state = {k: v.clone() for k, v in lm.model.state_dict().items()}
    coded = [
        [lm.tokenizer(t, add_special_tokens=False).input_ids for t in (x.prompt, x.completion)]
        for x in instructions.tasks(1, 80)
    ]
    rows = [{"prompt_ids": p, "response_ids": r} for p, r in coded if len(p) + len(r) < 60]

    def fill(response, length):
        return rainbow_padding(response, length=length, eos_id=lm.tokenizer.eos_token_id, pad_ids=pads)

    ids, response = filled_rows(rows, 80, fill)
    held_out = noised(ids[:12], response[:12], mask, generator=generator(4))
    clean = [{"input_ids": i, "labels": torch.where(r, i, -100)} for i, r in zip(ids[12:], response[12:], strict=True)]

    def fresh(model, batch, step):  # new noise at every step
        x = batch["x"]
        return {"x": noised(x["input_ids"], x["labels"] != -100, mask, generator=generator(0, step))}

    found = {}
    for name, how in (
        ("nll", {"loss": nll}),
        ("diffusion", {"loss": masked_diffusion, "prepare": fresh, "shift": False}),
    ):
        lm.model.load_state_dict(state)
        done = short.trained(streams={"x": clean}, lm=lm, lr=3e-3, **how)
        with torch.no_grad():
            x = Scored.of(done.model, held_out["input_ids"], labels=held_out["labels"], shift=False)
        found[name] = x.logps.sum().item() / x.mask.sum().item()
    assert found["diffusion"] > found["nll"] + 0.5
