"""What in-context navigation is made of: how prompts are written, how answers are completed, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.kernels.cached_lm import CachedLM

LogitsOf = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Navigation:
    """What was found, in order.

    Attributes:
        ways: (first token, completion) of every attempt, repeated and empty completions included.
        rounds: how many rounds found a token that was new.
    """

    ways: list[tuple[str, str]]
    rounds: int

    @property
    def found(self) -> list[str]:
        """The completions that say something, each once."""
        return list(dict.fromkeys(text for _, text in self.ways if text))

    def votes(self, answer_of: Callable[[str], str | None] = str) -> Counter[str]:
        """How many ways lead to each answer; a way whose ``answer_of`` is None has no vote."""
        answers = (answer_of(text) for _, text in self.ways)
        return Counter(answer for answer in answers if answer is not None)


def quoted(found: Sequence[str]) -> str:
    """A numbered list in quotation marks, with the next number's quotation open."""
    lines = [f'{i}. "{text}"\n' for i, text in enumerate(found, start=1)]
    return "\n\nAnswer:\n" + "".join(lines) + f'{len(found) + 1}. "'


def ways_of_solving(found: Sequence[str]) -> str:
    """Blocks ``### Way i:`` of reasoning, with the next one open; ``terminator="#"`` ends one."""
    blocks = [f"### Way {i}:\n{text}\n" for i, text in enumerate(found, start=1)]
    head = "\n\nHere are different ways to solve the problem:\n"
    return head + "".join(blocks) + f"### Way {len(found) + 1}:\n* **Step 1:**\n"


def asked(lm: Any) -> LogitsOf:
    """``lm.model`` as a function (tokens [B, T]) -> logits [B, V]; one that is such a function is left alone."""
    return CachedLM(lm) if hasattr(lm.model, "generate") else lm.model  # type: ignore[no-any-return]


def complete(
    ask: LogitsOf, tokenizer: Any, opening: list[int], firsts: Sequence[int], terminator: str, max_new_tokens: int
) -> list[str]:
    """Greedy continuations of ``opening`` with each first token, up to the terminator or the end token.

    All go on in one batch, which shrinks as they end.
    """
    rows = [[*opening, first] for first in firsts]
    texts = [tokenizer.decode([first]) for first in firsts]
    live = [i for i, text in enumerate(texts) if terminator not in text]
    for _ in range(max_new_tokens - 1):
        if not live:
            break
        picked = ask(torch.tensor([rows[i] for i in live])).argmax(-1).tolist()
        for i, token in zip(live, picked, strict=True):
            rows[i].append(token)
            texts[i] = tokenizer.decode(rows[i][len(opening) :], skip_special_tokens=True)
        ended = {i for i, token in zip(live, picked, strict=True) if token == tokenizer.eos_token_id}
        live = [i for i in live if i not in ended and terminator not in texts[i]]
    return [text.split(terminator)[0].strip() for text in texts]
