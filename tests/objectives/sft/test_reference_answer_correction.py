from __future__ import annotations

from functools import partial

import pytest
from tests import short_training as short
from tests.objectives.sft.answers import short_answers

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from plumbline.objectives import nll, reference_answer_correction
from plumbline.worlds.corpus import FACTS
from plumbline.worlds.people import RELATIONS

ROWS = [{"prompt": f"Q{i}:", "completion": f" {i}", "id": i} for i in range(10)]


def echo(prompts):
    return [f" no, {p}" for p in prompts]


def test_a_text_row_by_hand():
    rows = [{"prompt": "2 + 2 =", "completion": " 4", "id": 7}]
    given = [dict(row) for row in rows]
    found = reference_answer_correction(rows, lambda prompts: [" 5"], separator=" Mend it:", plain=0.0)
    assert found == [
        {"prompt": "2 + 2 = 5 Mend it:", "completion": " 4", "id": 7, "corrected": True, "self_generated": " 5"}
    ]
    assert rows == given


def test_a_conversation_gets_two_more_turns_that_a_template_renders():
    prompt = [{"role": "user", "content": "2 + 2?"}]
    rows = [{"prompt": prompt, "completion": "4"}]
    (found,) = reference_answer_correction(rows, lambda prompts: ["5"], separator="\n\nMend it.\n", plain=0.0)
    assert found["prompt"] == [
        *prompt, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Mend it."},
    ]  # fmt: skip
    assert len(prompt) == 1
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    text = tokenizer.apply_chat_template(found["prompt"], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|user|>\nMend it.</s>\n<|assistant|>\n")


@pytest.mark.parametrize(("plain", "count"), [(0.0, 0), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_the_share_of_plain_rows_is_exact_and_only_the_others_are_asked(plain, count):
    asked = []

    def generate(prompts):
        asked.extend(prompts)
        return echo(prompts)

    with noted() as heard:
        found = reference_answer_correction(ROWS, generate, plain=plain, generator=generator(1))
    assert [row["id"] for row in found] == list(range(10))
    assert sum(not row["corrected"] for row in found) == count and len(asked) == 10 - count
    assert all({k: row[k] for k in ROWS[0]} == ROWS[row["id"]] for row in found if not row["corrected"])
    assert heard["corrected_rows"] == [10 - count] and heard["already_right"] == [0]


def test_rows_that_are_already_right_are_left_out():
    def generate(prompts):
        return [f" {p[1:-1]}\n" if p in ("Q3:", "Q4:") else " wrong" for p in prompts]

    found = reference_answer_correction(ROWS, generate, plain=0.0)
    assert [row["id"] for row in found] == [0, 1, 2, 5, 6, 7, 8, 9]
    found = reference_answer_correction(ROWS, generate, plain=0.0, same=lambda said, wanted: said == " wrong")
    assert [row["id"] for row in found] == [3, 4]


def test_bad_rows_and_answers_are_refused():
    with pytest.raises(InputError, match="rows must be rows with prompt and completion, got a row with text"):
        reference_answer_correction([{"text": "x"}], echo)
    with pytest.raises(InputError, match="rows must be rows with prompt and completion, got no rows"):
        reference_answer_correction([], echo)
    with pytest.raises(InputError, match="generate must be 5 answers, got 4; one a prompt"):
        reference_answer_correction(ROWS, lambda prompts: echo(prompts)[1:])
    with pytest.raises(InputError, match="plain must be a number >= 0 and <= 1, got -0.1"):
        reference_answer_correction(ROWS, echo, plain=-0.1)


def test_zoo_base_learns_to_mend_its_answers():
    """Facts that it does not know: after 20 steps the reference after its own answer is likelier than after SFT."""
    lm = short.base()
    facts = [f for f in FACTS if f.exposures == 0]
    rows = [{"prompt": RELATIONS[f.relation].prompts(f.subject)[0], "completion": f" {f.object}."} for f in facts]

    def tokens(rows):
        return [short.row(lm, row["prompt"], row["completion"]) for row in rows]

    known = {"generate": partial(short_answers, lm), "separator": " No:"}
    held_out = tokens(reference_answer_correction(rows[:16], plain=0.0, **known))
    found = {}
    for share in (0.5, 1.0):
        data = reference_answer_correction(rows[16:80], plain=share, generator=generator(0), **known)
        x = short.scored(short.trained(nll, {"x": tokens(data)}).model, held_out)
        found[share] = x.logps.sum().item() / x.mask.sum().item()

    assert len(held_out) >= 8 and found[0.5] > found[1.0] + 0.1
