from __future__ import annotations

import math

import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.contrast import gedi
from plumbline.decode.contrast.class_posterior import ClassPosterior
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny

UP, DOWN = 7, 8  # codes; tokens 0 .. 6 are text
DRAW = generator(0, "gedi")
TABLES = {UP: torch.randn(9, 9, generator=DRAW, dtype=torch.float64), DOWN: torch.randn(9, 9, generator=DRAW).double()}
CODES = {"desired": UP, "undesired": DOWN}


def chains(ids):
    """A Markov chain a class, chosen by the code at the start of the row."""
    return torch.stack([TABLES[int(row[0])][row[-1]] for row in ids])


def bayes(text):
    """P(up | text and v) for every v, at equal priors, from products of probabilities."""
    p = {c: torch.softmax(t, -1) for c, t in TABLES.items()}
    joint = {}
    for c in (UP, DOWN):
        path = [c, *text]
        joint[c] = math.prod(float(p[c][a, b]) for a, b in zip(path, path[1:], strict=False)) * p[c][path[-1]]
    return joint[UP] / (joint[UP] + joint[DOWN])


def test_posterior_is_bayes():
    ids = torch.randint(0, 7, (5, 9), generator=generator(1))
    found = ClassPosterior(chains, (UP, DOWN), per_token=False)(ids).exp()
    wanted = torch.stack([bayes(row) for row in ids.tolist()])
    assert (found - wanted).abs().max() < 1e-8
    mean = ClassPosterior(chains, (UP, DOWN), scale=10.0)(ids).exp()  # T + 1 = 10 undoes the mean
    assert (mean - wanted).abs().max() < 1e-8


def test_posterior_follows_growth_cuts_and_new_texts():
    ids = torch.randint(0, 7, (4, 12), generator=generator(2))
    running = ClassPosterior(chains, (UP, DOWN))
    beams = ids[[2, 2, 0, 1]]
    for text in (ids[:, :3], ids[:, :4], ids[:, :9], ids[:, :5], ids[:, :5], beams[:, :6], beams[:2, :7], ids.flip(1)):
        assert torch.allclose(running(text), ClassPosterior(chains, (UP, DOWN))(text), atol=1e-12)


def test_by_hand():
    # one token a class for the text "0": ratio log(.5 / .25); next token 1: log(.5 / .25), next token 0: log(.5 / .75)
    tables = {UP: [0.5, 0.5], DOWN: [0.25, 0.75]}

    def lm(ids):
        return torch.tensor([[*tables[int(r[0])], *[0.0] * 7] for r in ids]).log()

    desire = ClassPosterior(lm, (UP, DOWN))(torch.tensor([[0]])).exp()[0]
    assert desire[0].item() == pytest.approx(2 / (1 + 2), abs=1e-6)  # mean of log 2 and log 2
    ratio = math.exp((math.log(2) + math.log(2 / 3)) / 2)
    assert desire[1].item() == pytest.approx(ratio / (1 + ratio), abs=1e-6)
    assert desire[2].item() == pytest.approx(math.sqrt(2) / (1 + math.sqrt(2)), abs=1e-6)  # neither class: no evidence


def test_filter_by_hand():
    desire = {0: 0.1, 1: 0.5, 2: 0.7, 3: 0.9}  # of four tokens with equal mass at omega 0

    def lm(ids):
        out = torch.full((len(ids), 9), -torch.inf)
        for v, p in desire.items():
            out[:, v] = torch.where(ids[:, 0] == UP, math.log(p), math.log(1 - p))
        return out

    def logits_of(ids):  # each class's p(v) must add up to one for the ratio to be what is written above
        rows = lm(ids)
        rest = torch.log1p(-rows.exp().sum(-1, keepdim=True) / 4)
        return torch.cat([rows[:, :4] - math.log(4), rest, torch.full((len(ids), 4), -torch.inf)], -1)

    empty = Peer(logits_of)
    main = torch.zeros(1, 9)
    main[0, 4:] = -torch.inf
    tokens = torch.zeros(1, 0, dtype=torch.long)
    kept = gedi(empty, omega=0.0, rho=0.6, tau=0.8, **CODES)(tokens, main)[0] > -torch.inf
    assert kept.tolist() == [False, False, True, True] + [False] * 5  # mass .25, .5 < .6 and below tau; .75 not
    kept = gedi(empty, omega=0.0, rho=0.6, tau=0.4, **CODES)(tokens, main)[0] > -torch.inf
    assert kept.tolist() == [False, True, True, True] + [False] * 5
    kept = gedi(empty, omega=0.0, rho=1.0, tau=1.0, **CODES)(tokens, main)[0] > -torch.inf
    assert kept.tolist()[3]  # never the most desired


def test_limits_of_omega():
    ids = torch.randint(0, 7, (5, 6), generator=generator(3))
    main = torch.randn(5, 9, generator=generator(4))
    assert torch.equal(gedi(chains, omega=0.0, rho=0.0, **CODES)(ids, main), main)
    best = ClassPosterior(chains, (UP, DOWN))(ids).argmax(-1)
    assert torch.equal(gedi(chains, omega=1e6, rho=0.0, **CODES)(ids, main).argmax(-1), best)
    moved = torch.softmax(gedi(chains, **CODES)(ids, main), -1) - torch.softmax(main, -1)
    assert moved.abs().sum(-1).min() / 2 > 0.1  # not lossless: total variation from the model's own


def from_scratch(model, text, codes, topic=()):
    """log P+ of one text without cache or batch."""
    totals = []
    for code in codes:
        ids = torch.tensor([[code, *topic, *text]])
        logps = model(ids).logits[0].double().log_softmax(-1)
        said = sum(float(logps[i, t]) for i, t in enumerate([*topic, *text]))
        totals.append((said + logps[-1]) / (len(text) + len(topic) + 1))
    return torch.nn.functional.logsigmoid(totals[0] - totals[1])


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampled", "beams"])
@pytest.mark.parametrize("own", [False, True], ids=["same-prompt", "own-prompt"])
def test_equals_recomputation_inside_generate(architecture, settings, own):
    main, small = tiny(architecture), tiny(architecture, seed=1)
    ids, mask = torch.randint(3, 101, (2, 7), generator=generator(5)), torch.ones(2, 7, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0
    prompt = torch.tensor([[0, 0, 11, 12], [13, 14, 15, 16]])
    peer = Peer(small, prompt=prompt, prompt_mask=prompt.ne(0).long()) if own else small
    topic = torch.tensor([9, 10])
    rule = gedi(peer, desired=5, undesired=6, omega=3.0, rho=0.0, topic=topic)
    posterior, seen = rule.peers[0], []

    def watch(tokens, logits):
        desire = posterior(tokens)
        for row, found in zip(tokens, desire, strict=True):
            text = row[3:] if row[0] == 0 else row
            if own:
                start = 0 if row[0] == 0 else 1
                text = torch.cat([prompt[start][prompt[start] != 0], row[7:]])
            seen.append((from_scratch(small, text.tolist(), (5, 6), (9, 10)) - found).abs().max())
        return logits

    with forked(0), torch.no_grad():
        main.generate(
            ids, attention_mask=mask, logits_processor=LogitsProcessorList([rule, watch]), max_new_tokens=6,
            min_new_tokens=6, pad_token_id=0, **settings,
        )  # fmt: skip
        assert max(seen) < 1e-4 and len(seen) >= 12
        assert small is posterior.inner.lm.model and posterior.inner.lm.rebuilds == 0
        if not own:
            rule(ids[:1, 3:], torch.zeros(1, 101))  # a new text
            wanted = from_scratch(small, ids[0, 3:].tolist(), (5, 6), (9, 10))
            assert (posterior(ids[:1, 3:]) - wanted).abs().max() < 1e-4


def test_long_prompts_are_scored_in_parts():
    small = tiny("llama", max_position_embeddings=512)
    ids = torch.randint(3, 101, (2, 200), generator=generator(6))
    ids[1, :90] = 0
    with torch.no_grad():
        found = ClassPosterior(small, (5, 6))(ids)
        for row, text in zip(found, (ids[0], ids[1, 90:]), strict=True):
            assert (row - from_scratch(small, text.tolist(), (5, 6))).abs().max() < 1e-4


def test_refusals():
    with pytest.raises(InputError, match="gedi: omega must be a number >= 0, got -1"):
        gedi(tiny("llama"), desired=3, undesired=4, omega=-1)
    with pytest.raises(InputError, match="gedi: undesired must be another token than desired"):
        gedi(tiny("llama"), desired=3, undesired=3)
    with pytest.raises(InputError, match="gedi: desired and undesired must be ids below 101"):
        gedi(tiny("llama"), desired=3, undesired=500)
