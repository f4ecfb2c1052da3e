"""Two models that write one text together, each in its own vocabulary: only text passes between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from plumbline.core.errors import refuse
from plumbline.kernels.cached_lm import CachedLM

_REPEATED_WORDS = 5  # a chunk of more words than this that the answer already holds ends the base's turn
_REPEATED_ROUNDS = 3
_REPEATED_SUFFIX = 30  # characters


@dataclass(frozen=True)
class NudgedText:
    """An answer and who wrote it.

    Attributes:
        text: the answer.
        spans: (start, end) of each stretch of ``text`` that the nudger wrote; the base wrote the rest.
        stopped: why it ended: the nudger ended it, the length, the rounds, repeated words, or a full context.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    stopped: str

    @property
    def share(self) -> float:
        """Share of the characters that the nudger wrote."""
        return sum(end - start for start, end in self.spans) / max(len(self.text), 1)


@dataclass(frozen=True)
class Step:
    """A greedy token: the text it adds, its probability, and whether it ends the answer (then the text is empty)."""

    text: str
    top: float
    ended: bool


class Voice:
    """A language model that continues text greedily, token by token, over one cache for all that it is asked.

    Args:
        lm: an ``LM``. special: add the tokenizer's own special tokens (bos); a rendered chat template has them.
    """

    def __init__(self, lm: Any, *, special: bool) -> None:
        self.tokenizer, self.special = lm.tokenizer, special
        self.reader = CachedLM(lm, pad_token_id=-1)
        self.context = getattr(lm, "context", None)
        self.ends = set(lm.ends)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=self.special)["input_ids"])

    def length(self, text: str) -> int:
        """Tokens of a text that is no beginning."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    def full(self, text: str) -> bool:
        """Whether the context has no room for another token."""
        return self.context is not None and len(self.ids(text)) >= self.context

    def steps(self, text: str, n: int) -> Iterator[Step]:
        """At most ``n`` greedy tokens after ``text``; the last is the one that ended the answer, if one did."""
        ids = self.ids(text)
        if not ids:
            raise refuse("nudging_text", "prompts", "texts of at least one token", repr(text), "write a question")
        told = self._decode(ids)
        for _ in range(n):
            if self.context is not None and len(ids) > self.context:
                return
            probability = torch.softmax(self.reader(torch.tensor([ids])), -1)[0]
            top, token = (x.item() for x in probability.max(-1))
            if token in self.ends:
                yield Step("", top, True)
                return
            ids.append(int(token))
            now = self._decode(ids)
            if now.endswith("\ufffd"):  # half a character: its text comes with the token that completes it
                yield Step("", top, False)
                continue
            yield Step(now[len(told) :], top, False)
            told = now

    def _decode(self, ids: list[int]) -> str:
        # of the whole: some tokenizers drop the space that a continuation begins with
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class Duet:
    """One answer, written in rounds: words by the nudger up to where the base is sure, then the base while it is."""

    def __init__(
        self, base: Voice, nudger: Voice, prompts: tuple[str, str], threshold: float, chunk: int, budget: int
    ) -> None:
        self.base, self.nudger, self.threshold, self.chunk, self.budget = base, nudger, threshold, chunk, budget
        self.base_prompt, self.nudger_prompt = prompts
        self.text, self.spans, self.stopped = "", list[tuple[int, int]](), ""
        self._last, self._again = "", 0

    def write(self, rounds: int) -> NudgedText:
        for _ in range(rounds):
            if not self.stopped:
                self._round()
        return _tidy(self.text, self.spans, self.stopped or "rounds")

    def _round(self) -> None:
        if self.base.length(self.text) >= self.budget:
            self.stopped = "length"
        elif self.base.full(self.base_prompt + self.text) or self.nudger.full(self.nudger_prompt + self.text):
            self.stopped = "context"
        if self.stopped:
            return
        steps = list(self.nudger.steps(self.nudger_prompt + self.text, self.chunk))
        proposal = "".join(s.text for s in steps)
        if steps and steps[-1].ended:
            self._nudge(proposal)
            self.stopped = "nudger"
            return
        words, sure = self._words(proposal)
        self._again = self._again + 1 if words == self._last else 0
        self._last = words
        if self._again >= _REPEATED_ROUNDS:
            self.stopped = "repetition"
            return
        self._nudge(words)
        if sure:
            self.text += self._turn()

    def _nudge(self, words: str) -> None:
        if words:
            start = len(self.text)
            if self.spans and self.spans[-1][1] == start:
                start = self.spans.pop()[0]
            self.text += words
            self.spans.append((start, len(self.text)))

    def _words(self, proposal: str) -> tuple[str, bool]:
        """The nudger's words up to where the base agrees with the next or is sure of its own; whether it came to that.

        The first word is always taken; the last of several never, for it may be cut.
        """
        lead = proposal[: len(proposal) - len(proposal.lstrip(" "))]
        words = proposal.lstrip(" ").split(" ")
        taken = proposal
        for i in range(1, len(words)):
            taken = lead + " ".join(words[:i])
            if not words[i]:
                continue
            for own in self.base.steps(self.base_prompt + self.text + taken, 1):
                agrees = bool(own.text) and f" {words[i]}".startswith(own.text)
                if own.ended or agrees or own.top >= self.threshold:
                    return taken, True
        return taken, False

    def _turn(self) -> str:
        """What the base says: one token, then more while it is sure of them."""
        said, first, left = "", True, self.budget - self.base.length(self.text)
        while left > 0:
            part, stopped, n = "", True, min(self.chunk, left)
            for step in self.base.steps(self.base_prompt + self.text + said, n):
                stopped = step.ended or (step.top < self.threshold and not first)
                if stopped:
                    break
                part, first = part + step.text, False
                left -= 1
            repeated = len(part.split(" ")) > _REPEATED_WORDS and part in self.text + said
            if repeated or (not stopped and part in said):
                break
            said += part
            if stopped:
                break
        return said


def _tidy(text: str, spans: list[tuple[int, int]], stopped: str) -> NudgedText:
    """Without white space around it, and without a suffix that repeats the one before it."""
    start = len(text) - len(text.lstrip())
    end = max(len(text.rstrip()), start)
    while size := _repeat(text[start:end]):
        end -= size
    kept = [(max(a, start) - start, min(b, end) - start) for a, b in spans]
    return NudgedText(text[start:end], tuple((a, b) for a, b in kept if a < b), stopped)


def _repeat(text: str) -> int:
    """Length of the longest suffix, of 30 characters at least, that stands twice at the end; 0 if none does."""
    sizes = range(len(text) // 2, _REPEATED_SUFFIX - 1, -1)
    return next((k for k in sizes if text[-2 * k : -k] == text[-k:]), 0)
