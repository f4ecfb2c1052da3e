from __future__ import annotations

import difflib
import re

import pytest
from tests.short_training import base, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.objectives.preference import dpo, rise
from plumbline.objectives.preference.edits import (
    admits,
    change_related_values,
    change_symbol,
    change_value,
    change_words,
    delete_term,
    errors_for,
    rule_edit,
    self_edit,
    step_spans,
    substitute,
    swap_terms,
    tail,
    without_boxes,
)
from plumbline.objectives.preference.pair_tokens import encode_pair
from plumbline.worlds.arithmetic import steps

GOOD = "Step 1: 7 + 8 = 15, write 5 carry 1.\nStep 2: 2 + 3 + 1 = 6.\nStep 3: The answer is \\boxed{65}."
BAD = "Step 1: 7 + 8 = 15, write 5.\nStep 2: 2 + 3 = 5.\nStep 3: The answer is \\boxed{55}."
OWNS_UP = "Step 1: I made a mistake. The sum is \\boxed{65}."
PROBLEM = {"prompt": "Add 27 and 38.", "answer": "65"}


def judge(text, row):
    return f"boxed{{{row['answer']}}}" in text


def built(edit=rule_edit, samples=(GOOD, BAD, OWNS_UP), seed=0, **how):
    return rise([PROBLEM], lambda prompt, n: list(samples), judge, edit, generator=generator(seed, "t"), **how)


def test_a_problem_gives_one_pair_of_samples_and_one_edited_step():
    sampled, edited = built()
    texts = {"initial_reason_steps": "", "chosen": GOOD, "rejected": BAD}
    assert sampled == {"prompt": PROBLEM["prompt"], "kind": "sampled"} | texts
    whole = edited["initial_reason_steps"] + edited["chosen"]
    assert (
        edited["kind"] == "edited"
        and GOOD.startswith(whole)
        and re.search(r"Step \d:$", edited["initial_reason_steps"])
    )
    assert edited["rejected"] != edited["chosen"] and "boxed" not in edited["rejected"]


def test_every_step_is_drawn_and_the_generator_decides():
    steps = {built(seed=seed)[1]["initial_reason_steps"] for seed in range(30)}
    assert len(steps) == 3 and built(seed=4) == built(seed=4)


def test_a_problem_without_a_right_or_a_wrong_sample_is_left_out():
    with noted() as found:
        assert built(samples=[GOOD, GOOD]) == built(samples=[BAD]) == built(samples=[OWNS_UP, BAD]) == []
    assert found["problems_used"] == [0, 0, 0]


def test_edits_that_give_themselves_away_or_change_nothing_are_dropped():
    for edit in (
        lambda text, *rest: text,
        lambda text, *rest: None,
        lambda text, *rest: text + " This step is incorrect.",
        lambda text, *rest: without_boxes(text),
    ):
        assert [row["kind"] for row in built(edit)] == ["sampled"]


def test_the_editor_sees_the_last_sentences_and_the_rest_is_kept():
    step = " One. Two. Three. Four. Five.\n"
    start, end = tail(step)
    assert step[start:end] == "Two. Three. Four. Five."
    seen = []

    def edit(text, row, before, g):
        seen.append((text, before, row))
        return text.replace("Five", "Six")

    rows = rise([PROBLEM], lambda p, n: [f"Step 1:{step}\\boxed{{65}}", BAD], judge, edit, generator=generator(0, "t"))
    assert seen[0][1].endswith("One. Two. ") and seen[0][2] is PROBLEM
    assert rows[1]["rejected"] == " One. Two. Three. Four. Six.\n65"


def test_steps_lie_behind_their_headers():
    assert [GOOD[a:b] for a, b in step_spans(GOOD)] == [
        " 7 + 8 = 15, write 5 carry 1.\n", " 2 + 3 + 1 = 6.\n", " The answer is \\boxed{65}.",
    ]  # fmt: skip
    assert step_spans("no steps here, Step 1: inside a line") == []


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (r"is \boxed{6}.", "is 6."), (r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}"), (r"\( \boxed{x} \)", "x"),
        (r"\[\boxed{a}\] and \boxed{b}", "a and b"), (r"\boxed{open", "open"), ("none", "none"),
    ],
)  # fmt: skip
def test_boxes_are_taken_off(text, bare):
    assert without_boxes(text) == bare


def test_admissions_count_unless_the_question_is_about_them():
    assert admits("Let's reconsider.") and admits("I misread: a mistake") and not admits("2 + 2 = 5")
    assert not admits("That is wrong.", "Which statement is wrong?")


def words(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?|\w+|[^\w\s]", text)


def test_a_rule_changes_one_to_three_words():
    steps = ["7 + 8 = 15, so 15 apples", "He has 3 apples", "12 / 4 - 1 = 2", "more birds than before", "5 5 5 and 6"]
    for step in steps:
        for seed in range(40):
            edited = rule_edit(step, {}, "", generator(seed, step))
            old, new = words(step), words(edited)
            ops = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
            moved = sum(max(b - a, d - c) for tag, a, b, c, d in ops if tag != "equal")
            if len(old) == len(new):  # exchanged words are two, not one taken out and put in elsewhere
                moved = min(moved, sum(a != b for a, b in zip(old, new, strict=True)))
            assert 1 <= moved <= 3, (step, edited)
    assert rule_edit("Hm", {}, "", None) is None


def test_errors_are_chosen_by_content():
    equation = [substitute, delete_term, change_symbol, swap_terms]
    assert errors_for("a = 3 + 4") == [change_related_values, *equation]
    assert errors_for("3 apples") == [change_value] and errors_for("x = y") == equation
    assert errors_for("more apples") == [change_words]


def test_each_rule_by_hand():
    g = generator(0, "rules")
    assert delete_term("12 + 30", g) == "12" and swap_terms("9 - 4 = 5", g) == "4 - 9 = 5"
    assert swap_terms("9 + 4", g) is None and substitute("7 x", g) is None
    assert change_words("more sheep", g) == "fewer sheep"
    assert re.fullmatch(r"3 [-*/] 4", change_symbol("3 + 4", g)) and change_symbol("well-known", g) is None
    first, second = re.fullmatch(r"(\d+) and (\d+), not 80\.5", change_related_values("8 and 8, not 80.5", g)).groups()
    assert first == second != "8"


def test_the_model_is_asked_for_its_own_error():
    asked = []

    def generate(prompt, n):
        asked.append((prompt, n))
        return ["Here:\n```\n 7 + 8 = 16\n```\n"]

    edited = self_edit(generate)("7 + 8 = 15", PROBLEM, "Step 1:", generator(0, "e"))
    assert edited == "7 + 8 = 16" and asked[0][1] == 1
    assert all(part in asked[0][0] for part in ("Add 27 and 38.", "Step 1:", "7 + 8 = 15", "do not mention"))
    assert self_edit(lambda p, n: ["no fence"])("1", PROBLEM, "", None) is None


def test_both_sides_are_scored_from_the_earlier_border():
    tokenizer = tiny_tokenizer(add_bos=True)
    # the tokenizer knows " let" and "ter": "t" and "er" become one token on one side only
    row = {"prompt": "A", "initial_reason_steps": " lett", "chosen": "er it is.", "rejected": "s us.", "kind": "edited"}
    found = encode_pair(row, tokenizer)
    starts = [next(i for i, y in enumerate(side["labels"]) if y != IGNORED) for side in found.values()]
    assert starts[0] == starts[1]
    for side in ("chosen", "rejected"):
        ids, labels = found[side]["input_ids"], found[side]["labels"]
        assert ids[0] == tokenizer.bos_token_id and tokenizer.decode(ids[1:]) == "A lett" + row[side]
        assert labels[starts[0] :] == ids[starts[0] :] and tokenizer.eos_token_id not in ids
    assert starts[0] == len(tokenizer("A lett").input_ids) - 1


def test_only_a_sampled_answer_ends():
    tokenizer = tiny_tokenizer()
    found = encode_pair(built()[0], tokenizer)
    assert all(side["input_ids"][-1] == side["labels"][-1] == tokenizer.eos_token_id for side in found.values())


def test_a_problem_without_a_prompt_is_refused():
    with pytest.raises(InputError, match="rise: problem 1 must be a row with a text prompt"):
        rise([{"question": "?"}], lambda p, n: [], judge, rule_edit)
    with pytest.raises(InputError, match="rise: samples must be a whole number >= 1"):
        rise([], lambda p, n: [], judge, rule_edit, samples=0)


def test_as_many_samples_are_drawn_as_asked():
    asked = []
    rise([PROBLEM], lambda prompt, n: asked.append(n) or [GOOD, BAD], judge, rule_edit, samples=3)
    rise([PROBLEM], lambda prompt, n: asked.append(n) or [GOOD, BAD], judge, rule_edit)
    assert asked == [3, 5]


def test_twenty_steps_on_edited_pairs_tell_small_errors_apart_better_than_on_samples():
    lm = base()
    sums = [
        (a, b) for a, b in ((27, 38), (45, 16), (58, 19), (33, 48), (19, 71), (64, 28), (85, 17), (36, 47), (29, 55))
    ]

    def solved(a: int, b: int) -> str:
        units, tens, end = steps(a, b).split(". ")
        return f"\nStep 1: {units}.\nStep 2: {tens}.\nStep 3: {end}"

    def pairs(of, seed):
        problems = [{"prompt": f"Add {a} and {b}.", "a": a, "b": b} for a, b in of]
        wrong = {row["prompt"]: solved(row["a"], row["b"] + 13) for row in problems}  # goes its own way from the start
        right = {row["prompt"]: solved(row["a"], row["b"]) for row in problems}
        how = {"generator": generator(seed, "short")}
        return rise(problems, lambda p, n: [right[p], wrong[p]], lambda text, row: text == right[row["prompt"]],
                    rule_edit, **how)  # fmt: skip

    def streams(rows, kind):
        made = [encode_pair(row, lm.tokenizer) for row in rows if row["kind"] == kind]
        return {side: [row[side] for row in made] for side in ("chosen", "rejected")}

    rows = [row for seed in range(4) for row in pairs(sums, seed)]
    unseen = streams(
        [row for seed in range(8) for row in pairs([(28, 37), (46, 15), (57, 24), (39, 42)], seed)], "edited"
    )

    def margin(model) -> float:
        sides = [scored(model, unseen[side]).total() for side in ("chosen", "rejected")]
        return float((sides[0] - sides[1]).mean())

    how = {"steps": 20, "lr": 3e-4}
    edited = margin(trained(dpo, streams(rows, "edited"), **how).model)
    samples = margin(trained(dpo, streams(rows, "sampled"), **how).model)
    assert edited > margin(lm.model) + 1.0 and edited > samples + 1.0
