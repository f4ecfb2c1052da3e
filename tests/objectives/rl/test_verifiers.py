"""Answers read out of a model's text, and compared; none of it is evaluated, and nothing takes long."""

from __future__ import annotations

import re
import time
from fractions import Fraction

import pytest

from plumbline.objectives.rl.verifiers import (
    boxed,
    equal,
    exact,
    f1,
    final_answer,
    gsm8k,
    last_number,
    mathematics,
    stated,
    string_match,
    tagged,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("x = -5", "-5"), ("so 7-3", "3"), ("it costs -$5.00 now", "-5.00"), ("1,234.50 in all.", "1234.50"),
        ("value −7", "-7"), ("(-2)", "-2"), ("3 - 5", "5"), ("it is .5", ".5"), ("none", None), ("50%", "50"),
    ],
)  # fmt: skip
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"), (r"\boxed{a}, no, \boxed{b{c{d{e}}}}", "b{c{d{e}}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed{1", None), ("boxed 3", None), (r"\boxed{}", ""),
    ],
)  # fmt: skip
def test_boxed(text, inner):
    assert boxed(text) == inner


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5.", "5"), ("The final answer is $\\frac12$. I hope it is correct.", "$\\frac12$"),
        ("Answer: 3.5", "3.5"), ("answer is **7**", "7"), ("first the answer is 3. Then the answer is 4.", "4"),
        ("nothing", None),
    ],
)  # fmt: skip
def test_stated(text, answer):
    assert stated(text) == answer


def test_final_answer_prefers_the_box_then_the_statement_then_mathematics_then_a_number():
    assert final_answer(r"The answer is 4. \boxed{5} $6$ 7") == "5"
    assert final_answer("The answer is 4, or $6$ or 7\n8") == "4, or $6$ or 7"
    assert final_answer("we get $6$ and 7") == "6" and final_answer("7 or 8") == "8" and final_answer("no") is None


EQUAL = [
    ("1/2", "0.5"), (r"\dfrac12", ".5"), (r"2\frac{1}{2}", "5/2"), ("2 1/2", "2.5"), (r"-\frac{1}{2}", "-0.5"),
    (r"5\text{ cm}", "5"), (r"10\text{ m}^2", "10"), (r"90^\circ", "90"), ("1,234", "1234"), (r"50\%", "50"),
    (r"\$5", "5"), ("x = 4", "4"), ("(A)", "A"), ("(1,2)", "( 1, 2.0 )"), (r"\{1,2\}", r"\{2, 1\}"), ("5.00", "5"),
    (r"3\times10^{2}", "300"), ("1e3", "1000"), (r"\sqrt2", r"\sqrt{2}"), (r"\left(3,\frac12\right)", "(3, 0.5)"),
    (r"\text{Monday}", "Monday"), ("−3", "-3"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal(a, b):
    assert equal(a, b) and equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5", "-5"), ("2 1/2", "21/2"), ("3 4", "34"), ("(1,2)", "(2,1)"), ("(1,2)", "(1,2]"), ("1/0", "0"), ("", ""),
        ("0.3333", "1/3"), ("12", "1,2"), (r"\{1,1\}", r"\{1,2\}"), ("1e99999999", "2"), ("A", "B"),
        ("9" * 300 + "1", "9" * 300 + "2"), ("__import__('os')", "0"),
    ],
)  # fmt: skip
def test_not_equal(a, b):
    assert not equal(a, b) and not equal(b, a)


def test_exact_is_exact():
    assert exact("0.1") == Fraction(1, 10) and exact(r"\frac{0.1}{0.3}") == Fraction(1, 3) and exact("two") is None


def test_hostile_text_takes_no_time():
    began = time.perf_counter()
    for text in ("9" * 100_000, "{" * 50_000, r"\boxed{" * 20_000, "1," * 50_000, "$" * 50_000, "(" * 300 + "1" * 90,
                 r"\text{" * 20_000, "answer is " * 10_000, "1e" * 50_000, "\\ " * 50_000, "- " * 50_000,
                 "(" * 199 + "1,2" + ")" * 199, r"1\ " * 120):  # fmt: skip
        final_answer(text), mathematics(text, "3"), gsm8k(text, "3"), f1(text, "3"), equal(text[:390], "(1,2)")
    assert time.perf_counter() - began < 5


def test_gsm8k_keeps_signs_that_the_official_pattern_drops():
    def official(prediction, label):
        told = re.sub(r"(\d),(\d)", r"\1\2", prediction)
        return float(re.findall(r"[-+]?\d*\.\d+|\d+", told)[-1] == label)

    for text, label, ours, theirs in [
        ("so it is 42.", "42", 1, 1), ("1,234 apples", "1234", 1, 1), ("we get -5", "5", 0, 1),
        ("we get -5", "-5", 1, 0),
        ("5.0 each", "5", 1, 0), ("first 3, then 4", "3", 0, 0), ("about 1.5", "1.5", 1, 1),
    ]:  # fmt: skip
        assert (gsm8k(text, label), official(text, label)) == (ours, theirs), text
    assert gsm8k("it is 42", "work\n#### 42") == 1 and gsm8k("none", "42") == 0


@pytest.mark.parametrize(
    ("text", "label", "score"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1), (r"<think>\boxed{9}</think> The answer is 3.", "3", 1),
        (r"<think>The answer is 3.</think> I do not know", "3", 0), ("we find $x=4$", "4", 1), ("4", "4", 1),
        (r"The answer is 3. \boxed{4}", "3", 1), ("7 and $8$", "7", 0), (r"\boxed{5", "5", 0),
        (r"\boxed{2}", ["1", "2"], 1),
    ],
)  # fmt: skip
def test_mathematics(text, label, score):
    assert mathematics(text, label) == score


def test_words_and_tags():
    assert string_match("<think>no</think> The Eiffel Tower!", "eiffel tower") == 1
    assert string_match("It is <answer>a cat</answer>.", "cat") == 1 and string_match("a cat and", "cat") == 0
    assert f1("the quick brown fox", "quick red fox") == pytest.approx(2 / 3) and f1("", "x") == 0
    assert f1("blue", ["red", "blue"]) == 1
    assert tagged("<answer>1</answer> <answer>2</answer>", "answer") == "2" and tagged("<answer>1", "answer") is None
