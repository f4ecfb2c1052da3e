"""Every check on a text that keeps it and on one that does not; labels that cannot be read are refused."""

from __future__ import annotations

import json

import pytest

from plumbline.core.errors import InputError
from plumbline.objectives.rl.constraints import CHECKS, ifeval

CASES = {
    "verify_keywords": ({"keyword_list": ["Sea", "sun"]}, "the sun over the SEA", "the sun"),
    "verify_keyword_frequency": ({"word": "sea", "N": 2}, "Sea, sea and seas", "sea"),
    "validate_forbidden_words": ({"forbidden_words": ["cat"]}, "concatenate", "a Cat!"),
    "verify_letter_frequency": ({"letter": "e", "N": 3}, "eleven", "ten"),
    "verify_paragraph_count": ({"N": 2}, "one\n* * *\ntwo", "one * * *"),
    "validate_word_constraint": ({"N": 3, "quantifier": "at least"}, "a b c", "a b"),
    "verify_sentence_constraint": ({"N": 2, "quantifier": "at most"}, "Mr. Fox ran. It hid.", "A b. C d. E f."),
    "validate_paragraphs": ({"N": 2, "first_word": "then", "i": 2}, "one\n\nThen two", "then one\n\ntwo"),
    "verify_postscript": ({"postscript_marker": "P.S."}, "text P.S. more", "text P.S."),
    "validate_placeholders": ({"N": 2}, "to [name] at [street]", "to [name]"),
    "verify_bullet_points": ({"N": 2}, "* one\n* two", "* one\n**two**"),
    "validate_title": ({}, "<<A title>> text", "<A title>"),
    "validate_choice": ({"options": ["yes", "no"]}, "I say no", "maybe"),
    "validate_highlighted_sections": ({"N": 1}, "so *very* good", "2 * 3"),
    "validate_sections": ({"N": 2, "section_splitter": "Section"}, "SECTION 1 a Section 2 b", "Section one"),
    "validate_json_format": ({}, '{"a": 1}', "{a: 1}"),
    "validate_repeat_prompt": ({"original_prompt": "Say hi."}, "Say hi. Hi!", "Hi!"),
    "validate_two_responses": ({}, "one ****** two", "one ****** one"),
    "validate_uppercase": ({}, "ALL 3", "All 3"),
    "validate_lowercase": ({}, "all 3", "All 3"),
    "validate_frequency_capital_words": ({"N": 2, "quantifier": "around"}, "NASA and ESA", "no capital"),
    "validate_end": ({"end_phrase": "The end."}, "So. The end.\n", "The end. Yes"),
    "validate_quotation": ({}, '"so"', '"so'),
    "validate_no_commas": ({}, "one two", "one, two"),
}


def test_every_check_has_a_case():
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("name", CASES)
def test_check(name):
    given, keeps, breaks = CASES[name]
    assert ifeval(keeps, {"func_name": name, **given, "unused": None}) == 1
    assert ifeval(breaks, json.dumps({"func_name": name, **given})) == 0


def test_thinking_is_not_judged_and_an_empty_answer_keeps_nothing():
    assert ifeval("<think>a, b</think> ab", {"func_name": "validate_no_commas"}) == 1
    assert ifeval("<think>ab</think> ", {"func_name": "validate_no_commas"}) == 0


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("no json", "answer must be an object such as"), ({"N": 1}, "func_name must be a check"),
        ({"func_name": "validate_response_language", "language": "en"}, "func_name must be a check"),
        ({"func_name": "validate_end"}, "arguments of validate_end must be end_phrase"),
        ({"func_name": "validate_word_constraint", "N": 1, "quantifier": "less"}, "quantifier must be one of"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_read(label, says):
    with pytest.raises(InputError, match=says):
        ifeval("text", label)


def test_json_nested_deep_is_not_an_error():
    assert ifeval("[" * 100_000, {"func_name": "validate_json_format"}) == 0
