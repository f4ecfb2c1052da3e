from __future__ import annotations

from functools import partial

import pytest
import torch
from tests import short_training as short

from plumbline.core.errors import InputError
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.objectives import masked_thought, nll
from plumbline.train.streams import collate
from plumbline.worlds import instructions

MASK = 99
hide = partial(masked_thought, mask_id=MASK, step=10_000)


def batch(rows: int = 200, length: int = 12):
    """Left-padded by 2, a prompt of 3, an answer of 7."""
    ids = torch.randint(3, 90, (rows, length), generator=generator(0, "batch"))
    ids[:, :2] = 0
    labels = ids.clone()
    labels[:, :5] = IGNORED
    return ids, labels


def test_every_answer_token_may_be_hidden_and_no_other():
    ids, labels = batch()
    given = ids.clone(), labels.clone()
    found = hide(ids, labels, rate=1.0)
    assert (found[:, 5:] == MASK).all() and torch.equal(found[:, :5], ids[:, :5])
    assert torch.equal(ids, given[0]) and torch.equal(labels, given[1])
    assert found.dtype == torch.long and torch.equal(hide(ids, labels, rate=0.0), ids)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (25, 0.1), (50, 0.2), (100, 0.4), (400, 0.4)])
def test_the_share_rises_over_the_warm_up(step, share):
    ids, labels = batch(2000)
    with noted() as heard:
        found = masked_thought(ids, labels, mask_id=MASK, step=step, rate=0.4, warmup=100, generator=generator(step))
    assert heard["mask_rate"] == [pytest.approx(share)]
    seen = (found == MASK)[:, 5:].float().mean().item()
    assert seen == pytest.approx(share, abs=4 * (share * (1 - share) / 14000) ** 0.5)


def test_without_a_warm_up_the_first_step_has_the_full_rate():
    ids, labels = batch()
    assert (masked_thought(ids, labels, mask_id=MASK, step=0, rate=1.0, warmup=0)[:, 5:] == MASK).all()


def test_a_random_rate_is_uniform_over_batches():
    ids, labels = batch(20)
    with noted() as heard:
        for seed in range(300):
            hide(ids, labels, rate=0.6, random_rate=True, generator=generator(seed))
    rates = torch.tensor(heard["mask_rate"])
    assert rates.min() >= 0 and rates.max() <= 0.6
    assert rates.mean().item() == pytest.approx(0.3, abs=0.04) and (rates < 0.15).float().mean() == pytest.approx(
        0.25, abs=0.1
    )


def test_a_share_of_the_hidden_becomes_random_ids():
    ids, labels = batch(3000)
    found = hide(ids, labels, rate=0.5, replace_random=0.2, vocab_size=50, generator=generator(1))
    changed = (found != ids)[:, 5:]
    masked = (found == MASK)[:, 5:]
    assert masked.float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert found[:, 5:][changed & ~masked].max() < 50
    # of the 10% that are drawn at random, 1 in 50 draws would equal what stood there
    assert (changed & ~masked).float().mean().item() == pytest.approx(0.1 * (1 - 47 / 87 / 50), abs=0.01)


def test_text_that_holds_the_mask_id_stays():
    ids, labels = batch()
    ids[:, -1] = labels[:, -1] = MASK  # an end that is also the pad and the mask
    found = hide(ids, labels, rate=1.0, replace_random=1.0, vocab_size=50)
    assert (found[:, -1] == MASK).all() and (found[:, 5:-1] < 50).all()


def test_the_same_generator_hides_the_same_tokens():
    ids, labels = batch()
    one, other = (hide(ids, labels, rate=0.5, generator=generator(3)) for _ in range(2))
    assert torch.equal(one, other) and not torch.equal(one, hide(ids, labels, rate=0.5, generator=generator(4)))


def test_bad_arguments_are_refused():
    ids, labels = batch()
    with pytest.raises(InputError, match=r"masked_thought: labels must be of the shape of input_ids, got \[200, 11\]"):
        hide(ids, labels[:, 1:])
    with pytest.raises(InputError, match="masked_thought: vocab_size must be given where replace_random > 0, got None"):
        hide(ids, labels, replace_random=0.1)
    with pytest.raises(InputError, match="rate must be a number >= 0 and <= 1, got 1.2"):
        hide(ids, labels, rate=1.2)


def test_zoo_base_reads_more_of_the_question():
    """After 20 steps the answers are likelier than after plain SFT where part of the answer so far is noise."""
    lm = short.base()
    rows = [short.row(lm, t.prompt, t.completion) for t in instructions.tasks(1, 96) if t.kind in ("copy", "reverse")]
    data, held_out = rows[:-12], collate(rows[-12:], 0)
    vocabulary = lm.model.config.vocab_size
    corrupt = partial(masked_thought, mask_id=lm.tokenizer.pad_token_id, step=1, warmup=0, vocab_size=vocabulary)
    noise = corrupt(held_out["input_ids"], held_out["labels"], rate=0.5, replace_random=1.0, generator=generator(5))
    columns = {"labels": held_out["labels"], "attention_mask": held_out["attention_mask"]}

    def answer(rate: float) -> float:
        def prepare(model, batch, step):
            x = batch["x"]
            hidden = corrupt(x["input_ids"], x["labels"], rate=rate, generator=generator(0, step))
            return {"x": {**x, "input_ids": hidden}}

        done = short.trained(nll, {"x": data}, prepare=prepare)
        with torch.no_grad():
            x = short.Scored.of(done.model, noise, columns["attention_mask"], labels=columns["labels"])
        return x.logps.sum().item() / x.mask.sum().item()

    plain, masked = answer(0.0), answer(0.4)
    assert masked > plain + 0.5
