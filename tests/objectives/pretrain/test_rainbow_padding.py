from __future__ import annotations

from functools import partial

import pytest
import torch
from tests import short_training as short

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.objectives import masked_diffusion, rainbow_padding
from plumbline.objectives.pretrain.noising import cut_response, filled_rows, noised, padding_tokens
from plumbline.worlds import instructions

fill = partial(rainbow_padding, eos_id=2, pad_ids=[7, 8, 9])


def test_a_row_by_hand():
    ids, padding = fill([20, 21], length=8)
    assert ids.tolist() == [20, 21, 2, 7, 8, 9, 7, 8]
    assert padding.tolist() == [False] * 3 + [True] * 5 and padding.dtype == torch.bool
    ids, padding = fill(torch.tensor([], dtype=torch.long), length=1)
    assert ids.tolist() == [2] and padding.tolist() == [False]


def test_one_pad_that_is_the_end_is_padding_by_ends():
    ids, padding = rainbow_padding([20, 21], length=6, eos_id=2, pad_ids=[2])
    assert ids.tolist() == [20, 21, 2, 2, 2, 2] and padding.tolist() == [False] * 3 + [True] * 3


def test_a_response_without_room_is_cut_and_counted():
    with noted() as heard:
        exact, full, cut = (fill(range(20, 20 + n), length=4) for n in (3, 4, 6))
    assert exact[0].tolist() == [20, 21, 22, 2] and full[0].tolist() == cut[0].tolist() == [20, 21, 22, 23]
    assert not cut[1].any() and heard["rainbow_truncated"] == [0.0, 1.0, 1.0]


def test_every_response_comes_back_from_its_row():
    for n in range(12):
        text = list(range(20, 20 + n))
        assert cut_response(fill(text, length=12)[0], eos_id=2, pad_ids=[7, 8, 9]) == text


@pytest.mark.parametrize(
    ("pads", "said"),
    [([7, 7], r"\[7, 7\]"), ([2, 7], r"\[2, 7\]"), ([7, 5], r"\[7, 5\]"), ([], r"\[\]")],
)
def test_pads_that_cannot_be_told_apart_are_refused(pads, said):
    with pytest.raises(InputError, match=f"rainbow_padding: pad_ids must be distinct ids, .* got {said}"):
        rainbow_padding([20], length=4, eos_id=2, pad_ids=pads, mask_id=5)


def test_bad_responses_and_lengths_are_refused():
    with pytest.raises(InputError, match="response_ids must be free of pads and ends"):
        fill([20, 8], length=4)
    with pytest.raises(InputError, match="length must be a whole number >= 1, got 0"):
        fill([20], length=0)


def test_zoo_base_is_not_certain_of_the_end_at_late_places():
    """After 20 steps of masked diffusion on answers of 2 to 8 tokens in 40 places, all of them hidden."""
    lm = short.base()
    mask, *pads = padding_tokens(lm.model, lm.tokenizer, 8)
    state = {k: v.clone() for k, v in lm.model.state_dict().items()}
    tasks = instructions.tasks(1, 64)
    coded = [[lm.tokenizer(t, add_special_tokens=False).input_ids for t in (x.prompt, x.completion)] for x in tasks]
    rows = [{"prompt_ids": p, "response_ids": r} for p, r in coded if len(p) + len(r) < 60]
    eos = lm.tokenizer.eos_token_id
    peak = {}
    for name, chosen in (("ends", [eos]), ("rainbow", pads)):
        lm.model.load_state_dict(state)
        ids, response = filled_rows(rows, 100, partial(rainbow_padding, eos_id=eos, pad_ids=chosen))
        noisy = noised(ids, response, mask, generator=generator(0))
        data = [dict(zip(noisy, values, strict=True)) for values in zip(*noisy.values(), strict=True)]
        done = short.trained(masked_diffusion, {"x": data}, lm=lm, shift=False, lr=3e-3)
        with torch.no_grad():
            p = done.model(torch.where(response, mask, ids)).logits[:, 80:].softmax(-1)
        peak[name] = p.mean((0, 1)).max().item()

    assert peak["ends"] > 0.9 and peak["rainbow"] < 0.4
