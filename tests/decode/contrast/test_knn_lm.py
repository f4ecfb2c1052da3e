"""The rule: its formula, the identities, and the query it takes inside generate, seen to be the right one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode import knn_lm
from plumbline.decode.contrast.datastore import Datastore, KeySite
from plumbline.kernels.hooks import capture
from plumbline.kernels.peer import Peer, Rule
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny

ARCHITECTURES = ("llama", "gpt2", "gemma3", "gpt_neox", "qwen3")


def store_of(model, seed=0):
    return Datastore.build(model, list(torch.randint(3, 100, (10, 20), generator=generator(seed, "store"))))


def prompts():
    """Left-padded prompts [3, 6] and their mask."""
    ids = torch.randint(3, 100, (3, 6), generator=generator(0, "prompts"))
    mask = torch.ones_like(ids)
    mask[0, :3] = mask[2, :1] = 0
    return ids * mask, mask


def plain_logits(model, row):
    with capture(model, [KeySite()]) as found, torch.no_grad():
        logits = model(row[None]).logits[:, -1]
    return logits, found[KeySite()][:, -1]


def by_hand(model, store, row, k, lam, temperature):
    """Probabilities [V] after an unpadded row, from the equation."""
    logits, query = plain_logits(model, row)
    distance = ((query.numpy().astype(float) - store.keys.astype(float)) ** 2).sum(1)
    near = np.argsort(distance)[:k]
    weights = np.exp(-(distance[near] - distance.min()) / temperature)
    p = np.zeros(logits.shape[-1])
    for i, w in zip(near, weights / weights.sum(), strict=True):
        p[store.values[i]] += w
    return lam * p + (1 - lam) * torch.softmax(logits[0].double(), -1).numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("inside", [True, False])
def test_generates_what_the_equation_gives(architecture, inside):
    model = tiny(architecture)
    store, (ids, mask) = store_of(model), prompts()
    rule = knn_lm(model, datastore=store, k=20, lam=0.4, temperature=5.0)
    how = dict(max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_scores=True, eos_token_id=None)
    if inside:
        with rule:
            out = model.generate(ids, attention_mask=mask, logits_processor=LogitsProcessorList([rule]), **how)
    else:
        out = model.generate(ids, attention_mask=mask, logits_processor=LogitsProcessorList([rule]), **how)
    assert rule.second_passes == (0 if inside else 6)
    for b in range(3):
        for t in (0, 1, 5):
            row = out.sequences[b, 6 - int(mask[b].sum()) : 6 + t]
            wanted = by_hand(model, store, row, 20, 0.4, 5.0)
            assert np.allclose(torch.softmax(out.scores[t][b], -1).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("how", [dict(do_sample=False), dict(do_sample=True, top_p=0.9), dict(num_beams=3)])
def test_looking_into_the_pass_changes_nothing(how):
    model = tiny("llama")
    store, (ids, mask) = store_of(model), prompts()
    found = []
    for inside in (True, False):
        rule = knn_lm(model, datastore=store, k=50, lam=0.5, temperature=5.0)
        with forked(1):
            if inside:
                with rule:
                    out = model.generate(ids, attention_mask=mask, max_new_tokens=8, logits_processor=[rule], **how)
                assert rule.second_passes == 0
            else:
                out = model.generate(ids, attention_mask=mask, max_new_tokens=8, logits_processor=[rule], **how)
        found.append(out)
    assert torch.equal(*found)


def test_lam_0_is_the_model_to_the_bit_and_lam_1_the_neighbours():
    model = tiny("llama")
    store, (ids, _) = store_of(model), prompts()
    logits = torch.randn(3, 101, generator=generator(0, "logits"))
    assert torch.equal(knn_lm(model, datastore=store, lam=0.0)(ids, logits), logits)
    only = torch.softmax(knn_lm(model, datastore=store, lam=1.0, k=1)(ids, logits), -1)
    assert only.max(1).values.tolist() == [1.0] * 3
    plain = model.generate(ids, max_new_tokens=6, do_sample=False)
    ruled = model.generate(
        ids, max_new_tokens=6, do_sample=False, logits_processor=[knn_lm(model, datastore=store, lam=0.0)]
    )
    assert torch.equal(plain, ruled)


def test_a_pass_that_did_not_make_the_logits_is_not_believed():
    """Another rule that runs the same model under another prompt leaves its own activations behind."""
    model = tiny("llama")
    store, ids = store_of(model), torch.randint(3, 100, (2, 5), generator=generator(4, "ids"))
    aside = Peer(lambda tokens: model(tokens.flip(1)).logits[:, -1])
    other = Rule("other", lambda logits, _: logits, aside)
    doubled = Rule("doubled", lambda logits: 2 * logits)
    for first in (other, doubled):
        outside = knn_lm(model, datastore=store, k=9, lam=0.5, temperature=5.0)
        wanted = model.generate(ids, max_new_tokens=5, do_sample=False, logits_processor=[first, outside])
        with knn_lm(model, datastore=store, k=9, lam=0.5, temperature=5.0) as rule:
            got = model.generate(ids, max_new_tokens=5, do_sample=False, logits_processor=[first, rule])
        assert torch.equal(got, wanted) and rule.second_passes == got.shape[1] - 5
    forbids = Rule("forbids", lambda logits: logits.index_fill(1, torch.tensor([5, 9]), -torch.inf))
    with knn_lm(model, datastore=store, k=9, lam=0.5, temperature=5.0) as rule:
        model.generate(ids, max_new_tokens=5, do_sample=False, logits_processor=[forbids, rule])
    assert rule.second_passes == 0


def test_a_prefix_asked_twice_keeps_its_query():
    model = tiny("llama")
    store, (ids, _) = store_of(model), prompts()
    rule = knn_lm(model, datastore=store, k=9)
    logits = torch.zeros(3, 101)
    first, again = rule(ids, logits), rule(ids, logits)
    shorter = rule(ids[:, :-1], logits)
    assert torch.equal(first, again) and not torch.equal(first, shorter)
    assert torch.allclose(shorter, knn_lm(model, datastore=store, k=9)(ids[:, :-1], logits), atol=1e-5)


def test_the_block_leaves_no_hooks_and_the_folder_will_do(tmp_path):
    model = tiny("llama")
    Datastore.build(model, [torch.arange(3, 30)], folder=tmp_path / "s").index(4)
    with pytest.raises(RuntimeError), knn_lm(model, datastore=tmp_path / "s", probe=2):
        raise RuntimeError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_refusals(tmp_path):
    model = tiny("llama")
    store = store_of(model)
    with pytest.raises(InputError, match="built with another LlamaForCausalLM"):
        knn_lm(tiny("llama", seed=1), datastore=store)
    with pytest.raises(InputError, match="whole datastore"):
        knn_lm(model, datastore=str(tmp_path))
    with pytest.raises(InputError, match="logits"):
        knn_lm(model, datastore=store)(torch.tensor([[3]]), torch.zeros(1, 50))
    with pytest.raises(InputError, match="probe"):
        knn_lm(model, datastore=store, probe=2)
    for bad in (dict(k=0), dict(lam=1.5), dict(temperature=0.0), dict(temperature=float("nan"))):
        with pytest.raises(InputError, match=next(iter(bad))):
            knn_lm(model, datastore=store, **bad)
