"""In-context navigation: finding answers that stand behind look-alikes of the first one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.search.navigation import Navigation, asked, complete, quoted
from plumbline.lab.categories import Catalog, correlated_keys
from plumbline.models.prompts import encode


@function(
    paper=Paper(
        "Correlation and Navigation in the Vocabulary Key Representation Space of Language Models",
        "Peng et al.",
        2024,
        arxiv="2410.02284",
    ),
    says="Tell a model what it has answered already, so that answers behind look-alike tokens come to the top.",
    differs=(
        "The first token is appended as an id; the official code joins its text to the prompt and tokenises again.",
        "Special tokens are no candidates: no answer begins with one.",
        "Empty and repeated completions are not listed in the prompt; each is still an attempt and has its vote.",
    ),
)
def in_context_navigation(
    lm: Any,
    instruction: str,
    *,
    formatter: Callable[[Sequence[str]], str] = quoted,
    terminator: str = '"',
    rounds: Count = 10,
    per_round: Count = 10,
    top_k: Count = 100,
    max_new_tokens: Count = 64,
    remember: Count | None = None,
) -> Navigation:
    r"""Answers to one instruction, each round led away from those before.

    .. math::
        x_r = \text{first } x \in \mathrm{top}_k\, p(\cdot \mid c \oplus f(E_r)) \text{ with } x \notin F_r, \qquad
        y_r = x_r \oplus \mathrm{greedy}(c \oplus f(\emptyset) \oplus x_r), \qquad
        E_{r+1} = E_r \cup \{y_r\}, \; F_{r+1} = F_r \cup \{x_r\}

    for the instruction c, the explored answers E in the format f, and the first tokens F that were used (compared as
    text). The list steers the ranking of first tokens alone: answers are completed without it.

    Args:
        lm: an ``LM``; its ``model`` may also be a function of tokens [B, T] that gives logits [B, V].
        instruction: the question, or a whole prompt that the list follows; a rendered chat prompt is fine.
        formatter: ``(explored answers) -> text`` after the instruction, ending where the next answer begins;
            ``quoted`` or ``ways_of_solving`` of ``decode.search.navigation``, or one's own.
        terminator: text that ends an answer, and is no part of it.
        rounds: at most this many; they end early when no token within ``top_k`` is new.
        per_round: new first tokens in each round. For reasoning the paper takes 1, and as many rounds as ways.
        top_k: how far down the ranking [V] a round looks.
        max_new_tokens: of each answer. remember: list only the last so many of them.

    Returns:
        ``Navigation``: ``ways``, pairs (first token, completion); ``found``, the distinct completions; ``votes(f)``.

    Raises:
        InputError: the prompt, with the list, leaves no room in the model's context (``remember`` bounds the list).
    """
    ask_round, ask_answer = asked(lm), asked(lm)  # two caches: the prompts differ, and each shares with itself
    opening = _ids(lm, instruction + formatter([]), max_new_tokens)
    special = set(lm.tokenizer.all_special_ids)
    explored: list[str] = []
    used: set[str] = set()
    ways: list[tuple[str, str]] = []
    for done in range(rounds):
        shown = explored[-remember:] if remember else explored
        logits = ask_round(torch.tensor([_ids(lm, instruction + formatter(shown), 1)]))[0]
        firsts: dict[str, int] = {}
        for token in logits.topk(min(top_k, len(logits))).indices.tolist():
            text = lm.tokenizer.decode([token])
            if token not in special and text not in used and len(firsts) < per_round:
                firsts.setdefault(text, token)
        if not firsts:
            return Navigation(ways, done)
        used.update(firsts)
        answers = complete(ask_answer, lm.tokenizer, opening, list(firsts.values()), terminator, max_new_tokens)
        ways.extend(zip(firsts, answers, strict=True))
        explored.extend(text for text in dict.fromkeys(answers) if text and text not in explored)
    return Navigation(ways, rounds)


def _ids(lm: Any, text: str, room: int) -> list[int]:
    ids, context = encode(text, lm.tokenizer, special=True), getattr(lm, "context", None)
    if not ids:
        raise refuse("in_context_navigation", "instruction", "text with a token in it", repr(text), "ask something")
    if context and len(ids) + room > context:
        raise refuse("in_context_navigation", "instruction", f"with its list and {room} new tokens within {context}",
                     f"{len(ids)} tokens", "shorten it, lower max_new_tokens, or set remember")  # fmt: skip
    return ids


@claim(
    in_context_navigation,
    "Look-alikes of a right answer's key outrank other right answers, until what was explored is taken off the query.",
    cost="cpu:1s",
)
def look_alikes_step_aside() -> Evidence:
    lm, right = correlated_keys()
    settings: dict[str, Any] = dict(
        formatter=lambda found: " ".join(["start", *found]), terminator="|", max_new_tokens=1
    )
    plain = in_context_navigation(lm, "", rounds=1, per_round=len(right), **settings)
    icn = in_context_navigation(lm, "", rounds=len(right), per_round=1, **settings)
    measured = {name: sum(t in right for t in way.found) / len(right) for name, way in (("top", plain), ("icn", icn))}
    return Evidence(holds=measured["icn"] == 1.0, measured=measured, control=measured["top"] <= 0.2)


@claim(
    in_context_navigation,
    "Ten answers by navigation are more often right than the ten likeliest first tokens.",
    cost="cpu:15s",
)
def more_right_answers_than_the_top_ten() -> Evidence:
    gains, blind, measured = [], [], []
    for seed in range(3):
        catalog = Catalog(seed)
        top = _precision(catalog, 1, catalog.listed)
        icn, without = _precision(catalog, 10, catalog.listed), _precision(catalog, 10, lambda explored: " ;")
        gains.append(icn - top)
        blind.append(without - top)
        measured.append({"top ten": top, "navigation": icn, "without the list": without})
    return Evidence(min(gains) > 0.1, {"seeds": measured, "smallest gain": min(gains)}, control=max(blind) < 0.1)


def _precision(catalog: Catalog, rounds: int, formatter: Callable[[Sequence[str]], str]) -> float:
    """The share of right answers among ten, over all categories."""
    right = []
    for kind, members in catalog.members.items():
        found = in_context_navigation(
            catalog.lm,
            kind,
            formatter=formatter,
            terminator=";",
            rounds=rounds,
            per_round=10 // rounds,
            max_new_tokens=4,
        )
        right += [text in members for _, text in found.ways]
    return sum(right) / len(right)
