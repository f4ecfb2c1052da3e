"""Losslessness proved: the output distribution, by enumeration of every random outcome, is the model's own."""

from __future__ import annotations

import itertools

import pytest
import torch

from plumbline.decode.drafts import Candidates, Trie
from plumbline.decode.speculate import lookahead, prompt_lookup, speculative_jacobi, token_recycling
from plumbline.kernels.choice import Chooser, verify_chain
from plumbline.kernels.seeds import forked
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.tiny import tiny

PROMPT = [[3, 1, 3, 1]]
NEW = 3


def model():
    made = tiny("llama", vocab=4, seed=3, hidden_size=16, num_attention_heads=2, num_key_value_heads=1).double()
    made.generation_config.eos_token_id = None
    return made


def target(lm, prompt, new, warp=lambda z: z):
    """The product of next-token probabilities, by one uncached forward pass a prefix."""
    law = {}
    for tail in itertools.product(range(4), repeat=new):
        p = 1.0
        for t in range(new):
            with torch.no_grad():
                z = lm(torch.tensor([[*prompt, *tail[:t]]])).logits[0, -1]
            p *= float(torch.softmax(warp(z), -1)[tail[t]])
        law[tail] = p
    return law


def warm_trie():
    trie = Trie(branch=3)
    trie.grow([], [3, 1, 2, 3, 1, 0, 1, 3, 2, 1, 1])
    return trie


def warm_table():
    table = Candidates(4, 2)
    table.table[:] = torch.tensor([[1, 2], [3, 0], [0, 1], [1, 2]])
    return table


METHODS = {
    "prompt_lookup": (prompt_lookup, lambda: dict(tokens=2)),
    "lookahead": (lookahead, lambda: dict(trie=warm_trie(), nodes=3)),
    "token_recycling": (token_recycling, lambda: dict(candidates=warm_table(), k=2, nodes=4)),
    "speculative_jacobi": (speculative_jacobi, lambda: dict(window=3, init=lambda chooser, text: text[-1])),
}


def distribution(lm, method, fresh, **how):
    def once(chooser):
        out = lm.generate(torch.tensor(PROMPT), custom_generate=method, chooser=chooser, adapt=False, do_sample=True,
                          max_new_tokens=NEW, top_k=0, pad_token_id=0, **fresh(), **how)  # fmt: skip
        return tuple(out[0, len(PROMPT[0]) :].tolist())

    return exact_distribution(once, limit=20_000)


@pytest.mark.parametrize("name", METHODS)
def test_output_distribution_is_the_models_own(name: str) -> None:
    lm, (method, fresh) = model(), METHODS[name]
    want, got = target(lm, PROMPT[0], NEW), distribution(lm, method, fresh)
    assert abs(sum(got.values()) - 1) < 1e-12
    assert max(abs(got.get(y, 0.0) - p) for y, p in want.items()) < 1e-10


@pytest.mark.parametrize("name", ["lookahead", "speculative_jacobi"])
def test_with_a_temperature_it_is_the_warped_models(name: str) -> None:
    lm, (method, fresh) = model(), METHODS[name]
    want = target(lm, PROMPT[0], NEW, warp=lambda z: z / 0.7)
    got = distribution(lm, method, fresh, temperature=0.7)
    assert max(abs(got.get(y, 0.0) - p) for y, p in want.items()) < 1e-6  # the warper works on what generate gives it


def test_uniform_first_guesses_of_jacobi_change_nothing() -> None:
    lm = model()
    want = target(lm, PROMPT[0], NEW)
    got = distribution(lm, speculative_jacobi, lambda: dict(window=2))
    assert max(abs(got.get(y, 0.0) - p) for y, p in want.items()) < 1e-10


def test_keeping_drafts_without_verifying_them_is_seen(monkeypatch) -> None:
    lm, (method, fresh) = model(), METHODS["speculative_jacobi"]
    want = target(lm, PROMPT[0], NEW)
    biased = lambda chooser, target, proposal, draft: (len(draft), chooser.categorical(target[len(draft)]))  # noqa: E731
    monkeypatch.setattr("plumbline.decode.speculate._speculative_jacobi.verify_chain", biased)
    got = distribution(lm, method, fresh)
    assert sum(abs(got.get(y, 0.0) - p) for y, p in want.items()) / 2 > 0.05


def test_a_chain_is_verified_exactly_for_any_proposal() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (torch.softmax(torch.randn(n, 4, generator=g, dtype=torch.float64), -1) for n in (3, 2))
    for rows in (q, [q[0], None], p[:2]):

        def once(chooser: Chooser, rows=rows) -> tuple[int, ...]:
            draft = [2 if row is None else chooser.categorical(row) for row in rows]
            kept, token = verify_chain(chooser, p, rows, draft)
            out = [*draft[:kept], token]
            return (*out, *(chooser.categorical(p[i]) for i in range(len(out), 3)))

        found = exact_distribution(once)
        assert max(abs(pr - float(p[0, a] * p[1, b] * p[2, c])) for (a, b, c), pr in found.items()) < 1e-12


def test_a_seed_gives_the_same_text_whatever_is_drafted() -> None:
    lm, ids = tiny("qwen3"), torch.tensor([[5, 6, 7, 5, 6]])
    texts = []
    for how in (dict(adapt=False, tokens=1), dict(adapt=False, tokens=8), dict(adapt=True)):
        with forked(0):
            texts.append(lm.generate(ids, custom_generate=prompt_lookup, do_sample=True, max_new_tokens=20,
                                     pad_token_id=0, **how).tolist())  # fmt: skip
    assert texts[0] == texts[1] == texts[2]


def test_sampled_sequences_pass_a_chi_square_test() -> None:
    from scipy.stats import chi2

    lm = model()
    want = target(lm, PROMPT[0], 2)
    with forked(1):
        out = lm.generate(torch.tensor(PROMPT * 4000), custom_generate=prompt_lookup, adapt=False, tokens=2, top_k=0,
                          do_sample=True, max_new_tokens=2, pad_token_id=0)[:, -2:]  # fmt: skip
    seen = dict.fromkeys(want, 0)
    for row in out.tolist():
        seen[tuple(row)] += 1
    statistic = sum((seen[y] - 4000 * p) ** 2 / (4000 * p) for y, p in want.items())
    assert chi2.sf(statistic, len(want) - 1) > 1e-4
