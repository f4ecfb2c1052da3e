from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row
from transformers import ElectraConfig, ElectraForPreTraining

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import forked, generator
from plumbline.models import load
from plumbline.objectives import electra
from plumbline.objectives.pretrain.replaced_tokens import Detector, ReplacedTokens
from plumbline.train import fit

MASKED = Scored(torch.tensor([[0.5, 0.25, 0.1]]).log(), torch.tensor([[1, 1, 0]]))


def test_by_hand():
    # masked: -log(1/2) and -log(1/4), mean 1.5 log 2; detected at 3/4, 1/4 and 1/4 (replaced, real, real)
    odds = torch.tensor([[math.log(3), -math.log(3), -math.log(3)]])
    wanted = 2 * 1.5 * math.log(2) + 10 * math.log(4 / 3)
    with noted() as notes:
        found = electra(MASKED, odds, torch.tensor([[1, 0, 0]]), generator_weight=2.0, detector_weight=10.0)
    assert found.tolist() == pytest.approx([wanted])
    assert notes == {"replaced": [0.5], "caught": [1.0], "passed": [1.0]}


def test_what_is_no_token_counts_for_nothing():
    logits, labels = torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[1, 0, -100]])
    far = torch.tensor([[1.0, -2.0, -30.0]])
    assert torch.equal(electra(MASKED, logits, labels), electra(MASKED, far, labels))
    nothing = Scored(torch.zeros(1, 3), torch.zeros(1, 3))
    assert electra(nothing, logits, torch.full((1, 3), -100)).item() == 0


def test_the_detection_term_is_that_of_transformers():
    with forked(0, "electra"):
        model = ElectraForPreTraining(
            ElectraConfig(vocab_size=50, embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        ).eval()
    g = generator(0, "test_electra")
    ids, labels = torch.randint(50, (3, 7), generator=g), torch.randint(2, (3, 7), generator=g)
    out = model(input_ids=ids, labels=labels)
    none = Scored(torch.zeros(3, 7), torch.zeros(3, 7))
    assert electra(none, out.logits, labels, detector_weight=1.0).mean().item() == pytest.approx(out.loss.item(), 1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"electra: generator, detected, replaced must be of one shape \[B,T\]"):
        electra(MASKED, torch.zeros(1, 4), torch.zeros(1, 4))


def test_short_training_teaches_the_discriminator_to_find_what_the_small_model_replaced():
    rows = [
        row(base(), "", f"{a} told {b} that {c} lives here.") for a, b, c in zip("ABCDEFGH", "HGFEDCBA", "CDEFGHAB")
    ]

    def learnt(weight):
        with forked(0, "module"):
            module = ReplacedTokens(load("zoo:small").model, Detector(base().model), share=0.5)
        told = dict(max_steps=20, learning_rate=1e-3, per_device_train_batch_size=8, logging_steps=1, disable_tqdm=True)
        done = fit(
            module, {"x": rows}, seed=0, **told,
            loss=lambda s: s.mean(electra(*module(s.batch["x"], s.generator), detector_weight=weight)),
        )  # fmt: skip
        assert all(math.isfinite(entry["loss"]) for entry in done.history if "loss" in entry)
        assert all(bool(torch.isfinite(p).all()) for p in module.parameters())
        last = [entry for entry in done.history if "caught" in entry][-5:]
        return sum(entry["caught"] + entry["passed"] for entry in last) / 10  # balanced accuracy

    assert learnt(50.0) > max(0.6, learnt(0.0) + 0.05)
