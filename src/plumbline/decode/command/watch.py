"""What a generation does while it runs: forward passes, overridden tokens, text as it comes, and texts that end it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria

MAIN, PEERS = "main", "peers"


class Watch:
    """Marks before, between and behind rules: whose likeliest token each rule replaced, and where a pass belongs.

    Attributes:
        overridden, seen: [rules][rows] positions at which a rule moved the likeliest token, and all its positions. A
            loop that drafts asks rules about drafts too; those that are rejected count as positions.
        calls: forward passes, ``main`` and ``peers``; a pass that a rule makes is a peer's, even of the main model.

    Args:
        prompts: [B, L] the batch's main prompts. ends: tokens after which a row is finished. rules: how many there are.
    """

    def __init__(self, prompts: Tensor, ends: Sequence[int], rules: int) -> None:
        self.length, self.ends = prompts.shape[1], torch.tensor(list(ends), dtype=torch.long)
        self._prompts: dict[tuple[int, ...], int] = {}
        for b, row in enumerate(prompts.tolist()):
            self._prompts.setdefault(tuple(row), b)
        self._count = len(prompts)
        self.overridden, self.seen = ([[0] * len(prompts) for _ in range(rules)] for _ in range(2))
        self.calls: Counter[str] = Counter()
        self.inside = False
        self._best: Tensor | None = None

    def around(self, rules: Sequence[Any]) -> list[Any]:
        """``rules`` with a mark before the first and behind each."""
        if not rules:
            return []
        marks = [_Mark(self, place) for place in range(len(rules) + 1)]
        return [marks[0], *(part for pair in zip(rules, marks[1:], strict=True) for part in pair)]

    def note(self, place: int, tokens: Tensor, scores: Tensor) -> None:
        best = scores.argmax(-1)
        self.inside = place < len(self.seen)
        if place and self._best is not None:
            moved = (best != self._best).tolist()
            over = torch.isin(tokens[:, self.length :], self.ends.to(tokens.device)).any(-1).tolist()
            for b, changed, done in zip(self._owners(tokens), moved, over, strict=True):
                if not done:
                    self.seen[place - 1][b] += 1
                    self.overridden[place - 1][b] += changed
        self._best = best

    def _owners(self, tokens: Tensor) -> list[int]:
        """The prompt that each row continues: in order, beams side by side, or found by how it begins."""
        if len(tokens) % self._count == 0:
            each = len(tokens) // self._count
            return [b // each for b in range(len(tokens))]
        return [self._prompts.get(tuple(row), 0) for row in tokens[:, : self.length].tolist()]

    @contextmanager
    def counting(self, main: nn.Module, others: Sequence[nn.Module] = ()) -> Iterator[None]:
        """Counts forward passes inside the block."""
        modules = {id(m): m for m in (main, *others)}.values()
        before = [(m, m.__dict__.get("forward")) for m in modules]
        for module in modules:
            module.forward = self._counted(module.forward, MAIN if module is main else PEERS)
        try:
            yield
        finally:
            for module, forward in before:
                del module.forward
                if forward is not None:
                    module.forward = forward

    def _counted(self, forward: Callable[..., Any], whose: str) -> Callable[..., Any]:
        @functools.wraps(forward)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[PEERS if self.inside else whose] += 1
            return forward(*args, **kwargs)

        return counted


class _Mark:
    """Looks at the scores between two rules and leaves them as they are."""

    def __init__(self, watch: Watch, place: int) -> None:
        self.watch, self.place = watch, place

    def begin(self, tokens: Tensor) -> None:
        """Rows may come one at a time: they are told apart by their prompts."""

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        self.watch.note(self.place, tokens, scores)
        return scores


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text for a terminal: a model may write escape sequences, and they are shown, not obeyed."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


class Stream(StoppingCriteria):  # type: ignore[misc]
    """Writes the first row's text as its tokens come."""

    def __init__(self, tokenizer: Any, length: int, write: Callable[[str], None]) -> None:
        self.tokenizer, self.length, self.write = tokenizer, length, write
        self.said = ""

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.show(self.tokenizer.decode(input_ids[0, self.length :], skip_special_tokens=True))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def show(self, text: str, *, last: bool = False) -> None:
        """Write what is new; a character that is not whole yet waits."""
        text = text if last else text.rstrip("\ufffd")
        if text.startswith(self.said) and len(text) > len(self.said):
            self.write(printable(text[len(self.said) :]))
            self.said = text


class StopAt(StoppingCriteria):  # type: ignore[misc]
    """Ends a row whose text holds one of ``texts``; works in ``generate`` and in samplers."""

    def __init__(self, tokenizer: Any, length: int, texts: Sequence[str]) -> None:
        self.tokenizer, self.length, self.texts = tokenizer, length, tuple(texts)
        self.reach = max((len(t.encode()) for t in texts), default=0) + 8  # tokens that can hold it, and some before

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, self.length :][:, -self.reach :], skip_special_tokens=True)
        found = [any(t in tail for t in self.texts) for tail in tails]
        return torch.tensor(found, device=input_ids.device)

    def cut(self, text: str) -> str:
        """The text up to the first of them."""
        ends = [at for t in self.texts if (at := text.find(t)) >= 0]
        return text[: min(ends)] if ends else text
