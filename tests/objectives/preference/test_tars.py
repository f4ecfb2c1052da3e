from __future__ import annotations

import cmath
import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.objectives.preference import dpo, tars
from plumbline.objectives.preference.perturb import masked, perturb, perturbed_pair, replaced, without_context
from plumbline.train.streams import collate

B, L = 3, 12


def random_rows(seed: int) -> dict[str, torch.Tensor]:
    g = generator(seed, "test_tars")
    ids = torch.randint(5, 101, (B, L), generator=g)
    labels, attention = ids.clone(), torch.ones_like(ids)
    labels[:, :3] = IGNORED
    labels[1, 9:], attention[1, 9:], ids[1, 9:] = IGNORED, 0, 0
    relevance = torch.rand(B, L, generator=g) * (labels != IGNORED)  # a collator pads with 0
    relevance[:, :3] = 1.0
    return {"input_ids": ids, "labels": labels, "attention_mask": attention, "relevance": relevance}


def views(batch: dict[str, torch.Tensor], *models) -> list[Scored]:
    return [Scored.of(m, batch["input_ids"], batch["attention_mask"], labels=batch["labels"]) for m in models]


def test_by_hand():
    one = Scored(torch.tensor([[-1.0, -1.0]]))
    chosen, degraded = one, Scored(torch.tensor([[-2.0, -1.0]]))
    rejected, ref = Scored(torch.tensor([[-3.0, -2.0]])), Scored(torch.tensor([[-2.0, -2.0]]))
    # log-ratios: chosen 2, rejected -1, degraded 1; margins 3 and 1 at beta 1/2
    wanted = math.log1p(math.exp(-1.5)) + math.log1p(math.exp(-0.5))
    assert tars(chosen, rejected, ref, ref, degraded, ref, beta=0.5).item() == pytest.approx(wanted)


def test_without_the_other_terms_it_is_dpo_exactly():
    model, ref = tiny("llama", seed=1), tiny("llama", seed=2)
    batch = {"chosen": random_rows(0), "rejected": random_rows(1)}
    same = perturbed_pair(batch, change=replaced(101), rate=0.0)
    plain = [v for view in ("chosen", "rejected") for v in views(batch[view], model, ref)]
    ours = [v for view in ("chosen", "rejected") for v in views(same[view], model, ref)]
    clean = [views(same[f"clean_{view}"], ref)[0] for view in ("chosen", "rejected")]
    wanted = dpo(plain[0], plain[2], plain[1], plain[3], beta=0.3)
    found = tars(ours[0], ours[2], ours[1], ours[3], None, None, *clean, beta=0.3, lam=0.0)
    assert torch.equal(found, wanted)


def test_the_spectral_term_against_a_slow_transform():
    model, ref = tiny("llama", seed=1), tiny("llama", seed=2)
    batch = perturbed_pair({"chosen": random_rows(0), "rejected": random_rows(1)}, change=masked(7), rate=0.3,
                           generator=generator(0, "draw"))  # fmt: skip
    w, w_ref = views(batch["chosen"], model, ref)
    r, r_ref = views(batch["rejected"], model, ref)
    near, far = views(batch["clean_chosen"], ref)[0], views(batch["clean_rejected"], ref)[0]
    found = tars(w, r, w_ref, r_ref, None, None, near, far, beta=0.1, lam=2.0, margin=0.5)

    def magnitudes(view: Scored, row: int, n: int) -> list[float]:
        h = view.hidden()[row, 2 : 2 + n].tolist()  # the token at 3 is predicted at 2
        turns = [[cmath.exp(-2j * math.pi * k * t / n) for t in range(n)] for k in range(n)]
        return [abs(sum(turn[t] * h[t][d] for t in range(n))) for turn in turns for d in range(len(h[0]))]

    for i, n in enumerate((9, 6, 9)):
        a, b, c = (magnitudes(view, i, n) for view in (w, near, far))
        apart = [sum((x - y) ** 2 for x, y in zip(a, other, strict=True)) / len(a) for other in (b, c)]
        wanted = 2.0 * max(0.0, apart[0] - apart[1] + 0.5)
        assert (found - dpo(w, r, w_ref, r_ref))[i].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert bool(((found - dpo(w, r, w_ref, r_ref)) > 0.1).any())


def test_a_gradient_of_the_spectral_term_alone_reaches_the_model():
    model, ref = tiny("llama", seed=1), tiny("llama", seed=2)
    view, near, far = views(random_rows(0), model)[0], views(random_rows(0), ref)[0], views(random_rows(1), ref)[0]
    still = Scored(torch.zeros(B, L - 1))
    view.logps = view.logps.detach()
    loss = tars(view, still, view, still, None, None, near, far, margin=50.0).sum()
    found = torch.autograd.grad(loss, model.get_input_embeddings().weight)[0]
    assert float(found.norm()) > 1e-3


def test_perturbed_tokens_are_not_scored_and_both_models_read_the_same():
    batch = {"chosen": random_rows(0), "rejected": random_rows(1)}
    found = perturbed_pair(batch, change=replaced(101), rate=0.2, never=(0,), generator=generator(3, "draw"))
    for side in ("chosen", "rejected"):
        new, old = found[side], batch[side]
        moved = (new["labels"] != old["labels"]) | (new["input_ids"] != old["input_ids"])
        attended = int(old["attention_mask"].sum())
        assert int(moved.sum()) == int(0.2 * attended) and bool((new["labels"][moved] == IGNORED).all())
        assert not bool(moved[:, :3].any()) and not bool(moved[old["attention_mask"] == 0].any())
        assert found[f"clean_{side}"] is old and torch.equal(
            old["labels"], random_rows(int(side == "rejected"))["labels"]
        )
        view = views(new, tiny("llama", seed=1))[0]
        assert bool((view.logps[moved[:, 1:]] == 0).all())


def test_positions_are_drawn_by_irrelevance():
    ids = torch.full((1, 4), 9)
    relevance = torch.tensor([[1.0, torch.nan, 0.75, 0.25]])
    counts = torch.zeros(4)
    for seed in range(400):
        how = {"change": masked(3), "rate": 0.25, "generator": generator(seed, "draw")}
        counts += perturb(ids, ids, relevance, torch.ones_like(ids), **how)[2][0]
    assert counts[:2].sum() == 0 and counts.sum() == 400
    assert float(counts[3]) / 400 == pytest.approx(0.75, abs=0.07)


def test_limits_of_the_rate():
    ids, ones = torch.arange(5, 15)[None], torch.ones(1, 10, dtype=torch.long)
    relevance = torch.tensor([[0.0] * 4 + [1.0] * 6])
    for rate, count in ((0.0, 0), (0.01, 1), (0.3, 3), (1.0, 4)):
        assert int(perturb(ids, ids, relevance, ones, change=masked(3), rate=rate)[2].sum()) == count
    assert int(perturb(ids, ids, relevance, ones, change=masked(3), rate=1.0, never=(5, 6))[2].sum()) == 2
    with pytest.raises(InputError, match=r"perturb: rate and relevance must be within \[0, 1\]"):
        perturb(ids, ids, relevance * 2, ones, change=masked(3))
    with pytest.raises(InputError, match="perturb: relevance must be of the shape"):
        perturb(ids, ids, relevance[:, :3], ones, change=masked(3))
    with pytest.raises(InputError, match="replaced: lowest must be an id below vocab_size"):
        replaced(4)


def test_the_degraded_stream_is_the_perturbed_text_without_its_context():
    batch = {"chosen": random_rows(0) | {"context": torch.zeros(B, L, dtype=torch.bool)}, "rejected": random_rows(1)}
    batch["chosen"]["context"][:, 1:3] = True
    found = perturbed_pair(batch, change=masked(7), rate=0.3, generator=generator(0, "d"), degrade=without_context)
    assert torch.equal(found["degraded"]["input_ids"], found["chosen"]["input_ids"])
    assert int(found["degraded"]["attention_mask"][0].sum()) == L - 2
    with pytest.raises(InputError, match="without_context: columns must be a stream with a column context"):
        without_context(random_rows(0))


def test_refusals():
    x = Scored(torch.zeros(2, 3))
    with pytest.raises(InputError, match="tars: degraded and degraded_ref must be both given or both left out"):
        tars(x, x, x, x, x)
    with pytest.raises(InputError, match="tars: clean_chosen_ref must be as long as chosen"):
        tars(x, x, x, x, None, None, Scored(torch.zeros(2, 4)), x)
    with pytest.raises(InputError, match="stream rejected must be a stream with a column relevance"):
        perturbed_pair({"chosen": random_rows(0), "rejected": {}}, change=masked(3))
    with pytest.raises(InputError, match="tars: beta must be a number > 0"):
        tars(x, x, x, x, beta=0)


def test_twenty_steps_make_the_answer_depend_on_its_context_more_than_dpo_does():
    lm, streams = base(), {"chosen": [], "rejected": []}
    for a, b in ((12, 30), (45, 11), (27, 38), (50, 19), (33, 33), (18, 71), (64, 22), (81, 15)):
        for side, value in (("chosen", a), ("rejected", b)):
            made = row(lm, f"Note: the key is {a}. Which key?", f" The key is {value}, as was said.")
            ids, answer = made["input_ids"], [label != IGNORED for label in made["labels"]]
            digits = [lm.tokenizer.decode([i]).strip().isdigit() for i in ids]
            context = [d and not a for d, a in zip(digits, answer, strict=True)]
            kept = [float(d or not a) for d, a in zip(digits, answer, strict=True)]
            streams[side].append(made | {"relevance": kept, "context": context})

    def prepare(model, batch, step):
        how = {"change": replaced(len(lm.tokenizer)), "generator": generator(0, "tars", step)}
        return perturbed_pair(batch, rate=0.05, degrade=without_context, **how)

    def leaning(model) -> float:
        """By how much the context raises the chosen answers, in nats."""
        batch = without_context(collate(streams["chosen"], 0))
        with torch.no_grad():
            blind = views(batch, model)[0].total()
        return float((scored(model, streams["chosen"]).total() - blind).mean())

    before = leaning(lm.model)
    how = {"steps": 20, "lr": 1e-3}
    ours = leaning(trained(tars, streams, prepare=prepare, **how).model)
    plain = leaning(trained(dpo, streams, **how).model)
    assert ours > before + 1.0 and ours > plain + 1.0
