from __future__ import annotations

import pytest
import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny
from plumbline.objectives import electra
from plumbline.objectives.pretrain.replaced_tokens import (
    Detector,
    ReplacedTokens,
    corrupted,
    masked_positions,
    share_embeddings,
)

PAD, MASK, V = 0, 4, 60


def electra_pair(**settings):
    size = dict(vocab_size=V, embedding_size=16, num_hidden_layers=1, num_attention_heads=2, pad_token_id=PAD)
    with forked(0, "electra pair"):
        small = ElectraForMaskedLM(ElectraConfig(hidden_size=16, intermediate_size=32, **size))
        large = ElectraForPreTraining(ElectraConfig(hidden_size=32, intermediate_size=64, **size))
    return ReplacedTokens(small.eval(), large.eval(), mask_id=MASK, special_ids=(PAD, 1, 2), **settings)


def causal_pair(**settings):
    return ReplacedTokens(tiny("llama", V), Detector(tiny("llama", V, 1)), special_ids=(PAD, 1, 2), **settings)


def batch(rows=6, length=20, seed=0):
    ids = torch.randint(5, V, (rows, length), generator=generator(seed, "batch"))
    attention = torch.ones_like(ids)
    ids[0, 15:], attention[0, 15:] = PAD, 0
    ids[:, 3] = 2  # a special token
    return {"input_ids": ids, "attention_mask": attention}


def test_as_many_positions_are_masked_as_asked_and_only_allowed_ones():
    allowed = torch.rand(200, 40, generator=generator(0, "allowed")) < 0.7
    found = masked_positions(allowed, 0.15, generator(1, "masked"))
    assert not (found & ~allowed).any()
    assert torch.equal(found.sum(-1), (allowed.sum(-1) * 0.15).round().long())
    assert found.float().mean(0).std() < 0.05  # no place is preferred
    assert masked_positions(torch.ones(1, 3, dtype=torch.bool), 0.01).sum() == 1  # one at least
    assert masked_positions(torch.zeros(1, 3, dtype=torch.bool), 0.5).sum() == 0


def test_a_sample_that_hits_the_original_is_real():
    ids, masked = torch.tensor([[5, 6, 7]]), torch.tensor([[True, True, False]])
    seen, replaced = corrupted(ids, masked, torch.tensor([[9, 6, 8]]))
    assert seen.tolist() == [[9, 6, 7]] and replaced.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("pair", [electra_pair, causal_pair])
def test_three_results_of_one_shape(pair):
    module, data = pair(share=0.5), batch()
    scored, detected, replaced = module(data, generator(0, "rng"))
    first = 20 - scored.logps.shape[1]
    ids, attended = data["input_ids"][:, first:], data["attention_mask"][:, first:].bool()
    assert detected.shape == replaced.shape == scored.logps.shape == (6, 20 - first)
    assert torch.equal(replaced == -100, ~attended)
    assert not (scored.mask & ((ids == 2) | ~attended)).any() and scored.mask.any()
    assert not ((replaced == 1) & ~scored.mask).any()
    share = (replaced == 1).sum() / scored.mask.sum()
    assert share > 0.8  # an untrained generator seldom hits one of 60
    again = module(data, generator(0, "rng"))
    assert torch.equal(again.detected, detected) and torch.equal(again.replaced, replaced)


@pytest.mark.parametrize("pair", [electra_pair, causal_pair])
def test_each_term_trains_its_own_model(pair):
    module = pair(share=0.5)
    for weights, mine, other in (
        ((0.0, 1.0), module.discriminator, module.generator), ((1.0, 0.0), module.generator, module.discriminator)
    ):  # fmt: skip
        module.zero_grad()
        made = module(batch(), generator(0, "rng"))
        electra(*made, generator_weight=weights[0], detector_weight=weights[1]).mean().backward()
        assert any(p.grad is not None and bool((p.grad != 0).any()) for p in mine.parameters())
        assert all(p.grad is None or not bool((p.grad != 0).any()) for p in other.parameters())


def test_a_causal_generator_is_scored_on_the_original_text():
    module, data = causal_pair(), batch()
    scored, *_ = module(data, generator(0, "rng"))
    logps = module.generator(**data).logits[:, :-1].float().log_softmax(-1)
    wanted = logps.gather(-1, data["input_ids"][:, 1:, None])[..., 0]
    assert torch.allclose(scored.logps[scored.mask], wanted[scored.mask], atol=1e-5)


def test_a_masked_generator_sees_the_mask_at_most_of_the_masked_positions():
    module, data = electra_pair(share=1.0), batch(40)
    seen = []
    module.generator.register_forward_pre_hook(lambda _, a, k: seen.append(k["input_ids"]), with_kwargs=True)
    scored, *_ = module(data, generator(0, "rng"))
    hidden = seen[0] == MASK
    assert not (hidden & ~scored.mask).any()
    assert 0.8 < hidden.sum() / scored.mask.sum() < 0.9
    assert torch.equal(seen[0][~hidden], data["input_ids"][~hidden])


def test_a_generator_that_is_always_right_is_warned_of():
    module = electra_pair(temperature=1e-6).train()
    data = {"input_ids": torch.full((2, 8), 7)}
    with torch.no_grad():
        module.generator.generator_lm_head.bias[7] = 1e4
    with pytest.warns(UserWarning, match=r"only 0.0% of the masked tokens were replaced"):
        module(data, generator(0, "rng"))


def test_embeddings_can_be_shared_where_they_fit():
    module = electra_pair()
    share_embeddings(module.generator, module.discriminator)
    theirs = module.discriminator.get_input_embeddings().weight
    assert module.generator.get_input_embeddings().weight is theirs
    assert module.generator.generator_lm_head.weight is theirs  # tied to it
    with pytest.raises(InputError, match="share_embeddings: models must be with embeddings of one size"):
        share_embeddings(tiny("llama", V), module.discriminator.electra)
    with pytest.raises(InputError, match="ReplacedTokens: share must be a share of the tokens, got 0"):
        electra_pair(share=0)
