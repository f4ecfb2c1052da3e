from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WatermarkLogitsProcessor

from plumbline.core.errors import InputError
from plumbline.decode.watermark.streams import (
    SeededStream,
    TransformersGreens,
    _is_drawn,
    _rand,
    head_mask,
    in_head,
    swaps,
)
from plumbline.kernels.seeds import generator

SEEDS = [0, 1, 15485863 * 77, 2**40 + 5, 2**64 - 2]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("vocab", "head"), [(32000, 8000), (1001, 250), (7, 6), (5, 1)])
def test_the_settled_part_is_randperms(seed, vocab, head):
    order = torch.randperm(vocab, generator=torch.Generator().manual_seed(seed))
    wanted = np.zeros(vocab, bool)
    wanted[order[:head].numpy()] = True
    assert (head_mask(seed, vocab, head) == wanted).all()
    assert (in_head(seed, vocab, head, np.arange(vocab)) == wanted).all()
    taken = swaps(seed, vocab, head)
    assert [_is_drawn(taken, t) for t in range(0, vocab, 1 + vocab // 50)] == wanted[:: 1 + vocab // 50].tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_torch_rands(seed):
    wanted = torch.rand(1000, generator=torch.Generator().manual_seed(seed)).double().numpy()
    assert (_rand(seed, 1000) == np.maximum(wanted, 2.0**-53)).all()


@pytest.mark.parametrize(("scheme", "context"), [("lefthash", 1), ("lefthash", 3), ("selfhash", 1), ("selfhash", 4)])
@pytest.mark.parametrize("key", [15485863, 35317, 2**33 + 9])
def test_greenlists_equal_transformers(scheme, context, key):
    vocab, own = 1003, scheme == "selfhash"
    theirs = WatermarkLogitsProcessor(vocab, "cpu", hashing_key=key, seeding_scheme=scheme, context_width=context)
    tokens = torch.randint(3, vocab, (3, 9), generator=generator(0, "t"))
    logits = torch.randn(3, vocab, generator=generator(0, "l"))
    ours = TransformersGreens(key=key, context=context, self_hash=own)
    green = ours.greens(tokens[:, tokens.shape[1] - ours.window :], logits, 0.25)
    assert torch.equal(green, theirs(tokens, logits) > logits)


def test_seed_rule_by_a_slow_loop():
    scheme, contexts = SeededStream(key=99, context=2), torch.tensor([[5, 1000], [70000, 3]])
    for row, green, r in zip(
        contexts.tolist(),
        scheme.greens(contexts, torch.zeros(2, 300), 0.5),
        scheme.uniforms(contexts, 300),
        strict=True,
    ):
        s = 99
        for x in row:
            s = (s * 35317 + x) % (2**64 - 1)
        order = torch.randperm(300, generator=torch.Generator().manual_seed(s))
        assert sorted(order[:150].tolist()) == green.nonzero()[:, 0].tolist()
        assert torch.equal(r, torch.rand(300, generator=torch.Generator().manual_seed(s)).double())


@pytest.mark.parametrize("scheme", [SeededStream(context=2), TransformersGreens(context=2)])
def test_single_colours_are_the_lists(scheme):
    contexts = torch.randint(0, 200, (6, 2), generator=generator(0, "c"))
    lists = scheme.greens(contexts, torch.zeros(6, 200), 0.25)
    for v in range(0, 200, 9):
        grams = torch.cat([contexts, torch.full((6, 1), v)], 1)
        assert torch.equal(scheme.green(grams, 0.25, 200), lists[:, v])


def test_what_they_cannot_do_is_refused():
    grams = torch.tensor([[1, 500]])
    with pytest.raises(InputError, match="vocab must be given.*not the tokenizer's length"):
        TransformersGreens().green(grams, 0.25, None)
    with pytest.raises(InputError, match="vocab must be more than the largest token id, 500, got 400"):
        TransformersGreens().green(grams, 0.25, 400)
    with pytest.raises(InputError, match="one green token of 3"):
        TransformersGreens().greens(grams[:, :1], torch.zeros(1, 3), 0.25)
    with pytest.raises(InputError, match="colours only"):
        TransformersGreens().uniforms(grams, 600)
    with pytest.raises(InputError, match="SeededStream: self_hash must be False"):
        SeededStream(self_hash=True)
    with pytest.raises(InputError, match="TransformersGreens: key must be a 64-bit integer"):
        TransformersGreens(key=2**70, self_hash=True)
