"""Several answers to one prompt, what selecting among them returns, and how they are drawn from a model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.batching import by_length, halving, pad
from plumbline.kernels.head import head_of, hidden_states
from plumbline.kernels.logps import label_logps
from plumbline.kernels.seeds import forked
from plumbline.models.lm import LM, as_told

Floats = NDArray[np.float64]
Answer = Hashable | None
_BLOCK_BYTES = 64 << 20  # of logits that are formed at a time when answers are scored
_NUMBER = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2})?")
_ARRAYS = ("logps", "lengths", "self_certainty", "rewards")


@dataclass(frozen=True, eq=False)
class Samples:
    r"""n answers to ONE prompt, with what the model that gave them thinks of them.

    Attributes:
        texts: the n answers as text. ids: their tokens, an end token included; () where they are not known.
        answers: what each text answers, to be compared with ``==``; None where it gives no answer.
        logps: [n] nats, :math:`\sum_t \log p(y_t \mid x, y_{<t})` on raw logits at temperature 1, however they were
            sampled; None where it is not known (texts from a service). lengths: [n] tokens that the sum runs over.
        self_certainty: [n] nats, see ``decode.search.self_certainty``; None where it is not known.
        rewards: [n], larger is better; None where nothing has judged them. prompt: what was asked.

    Raises:
        InputError: no samples, or a field of another length, or numbers that cannot be.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    answers: tuple[Answer, ...]
    logps: Floats | None = None
    lengths: NDArray[np.int64] | None = None
    self_certainty: Floats | None = None
    rewards: Floats | None = None
    prompt: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not len(self.texts):
            raise refuse("Samples", "texts", "one text a sample, at least one", self.texts, "draw at least one sample")
        put: dict[str, Any] = {"texts": tuple(self.texts), "answers": tuple(self.answers)}
        put["ids"] = tuple(tuple(int(token) for token in row) for row in self.ids)
        for name in ("ids", "answers"):
            if len(put[name]) != len(self) and not (name == "ids" and not put[name]):
                raise refuse("Samples", name, f"one for each of {len(self)} texts", len(put[name]), "leave none out")
        if self.lengths is None and put["ids"]:
            put["lengths"] = [len(row) for row in put["ids"]]
        for name in _ARRAYS:
            value = put.get(name, getattr(self, name))
            if value is not None:
                put[name] = self._array(name, value)
        for answer in put["answers"]:
            if not isinstance(answer, Hashable):
                raise refuse("Samples", "answers", "hashable", answer, "answer with a string, a number or a tuple")
        for name, value in put.items():
            object.__setattr__(self, name, value)

    def _array(self, name: str, value: ArrayLike) -> NDArray[Any]:
        """A read-only copy [n]; lengths are whole, the rest float64."""
        array = np.array(value, np.int64 if name == "lengths" else np.float64)
        array.setflags(write=False)
        if array.shape != (len(self),) or not np.isfinite(array).all():
            shown = array.shape if array.shape != (len(self),) else array.tolist()
            raise refuse("Samples", name, f"{len(self)} finite numbers, one a text", shown, "score every sample")
        if name == "logps" and array.max() > 1e-3:
            raise refuse("Samples", name, "log-probabilities, at most 0", array.max(), "sum logs of probabilities")
        if name == "lengths" and array.min() < 1:
            raise refuse("Samples", name, "at least one token each", array.min(), "count the end token too")
        return array

    def __len__(self) -> int:
        return len(self.texts)

    def known(self, name: str, method: str) -> NDArray[Any]:
        """The field ``name`` [n], or a refusal in the name of the method that cannot do without."""
        value = getattr(self, name)
        if value is None:
            raise refuse(method, f"samples.{name}", "known", "None", f"draw the samples with draw(), or give {name}")
        return value

    def mean_logps(self, method: str) -> Floats:
        """Log-probability per token [n]."""
        return self.known("logps", method) / self.known("lengths", method)


@dataclass(frozen=True)
class Selection:
    """What a selector chose.

    Attributes:
        index: of the chosen sample; None where no sample has an answer.
        answer: the chosen sample's answer.
        confidence: answer -> share, adding up to 1 over the answers that were given; empty where there is none.
    """

    index: int | None
    answer: Answer
    confidence: dict[Answer, float]


def answer_of(text: str) -> str | None:
    r"""What a text answers: its last ``\boxed{...}``, else the last number in it, else its last line; None if empty.

    Numbers are written in one way (``1,200.50`` and ``1200.5`` are one answer). Pass your own function to ``draw``
    where answers look otherwise.
    """
    start = text.rfind("\\boxed{")
    if start >= 0:
        depth, begin = 0, start + len("\\boxed{")
        for at in range(begin - 1, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                inside = text[begin:at].strip().strip("$").strip()
                whole = _NUMBER.fullmatch(inside)
                return _written(inside) if whole else inside or None
    numbers = _NUMBER.findall(text)
    if numbers:
        return _written(numbers[-1])
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else None


def _written(number: str) -> str:
    value = Decimal(number.replace(",", "")).normalize()
    return f"{value + 0:f}"  # adding 0 takes the sign off a zero


def certainty(logits: Tensor) -> Tensor:
    r""":math:`KL(U \| p) = \log\sum_v e^{z_v} - \frac1V \sum_v z_v - \log V` of logits [..., V], [...] nats."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return z.logsumexp(-1) - z.mean(-1) - math.log(z.shape[-1])


def draw(
    lm: LM, prompts: Sequence[str | Sequence[int]], n: int, *, answer: Callable[[str], Answer] = answer_of,
    temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, max_new_tokens: int = 128, seed: int = 0,
    batch_tokens: int = 16384, logits_processor: Any = None,
    reward: Callable[[str, Sequence[str]], ArrayLike] | None = None,
) -> list[Samples]:  # fmt: skip
    r"""Sample n answers to every prompt and score them with the model itself.

    .. math:: y_i \sim p(\cdot \mid x), \qquad \log p(y_i \mid x) = \sum_t \log p(y_{it} \mid x, y_{i,<t})

    Log-probabilities and self-certainties are of the model's raw logits at temperature 1, so that they mean the same
    however the answers were sampled; no [n, T, V] is ever held. A batch that does not fit in memory is halved.

    Args:
        lm: model and tokenizer. prompts: P texts, or token ids where a chat template has already been applied.
        n: samples a prompt. answer: text -> what it answers, or None.
        temperature, top_p, top_k: of the sampling; 1, 1 and 0 sample the model's own distribution.
        max_new_tokens: where an answer is cut off. seed: names the samples, for the same arguments and hardware.
        batch_tokens: most tokens of one batch, padding included.
        logits_processor: a rule, or a list of them, as ``generate`` takes them: they see raw logits.
        reward: ``(prompt, n texts) -> n numbers``, kept as ``Samples.rewards``.

    Returns:
        P ``Samples`` in the order of the prompts, with ids, logps, lengths and self-certainty [n] each.

    Raises:
        InputError: an empty prompt, one that leaves no room in the context, or sampling settings that cannot be.
    """
    rows = _checked(lm, prompts, n, temperature, top_p, top_k, max_new_tokens)
    how = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens}
    each = [row for row in rows for _ in range(n)]
    said = _generate(lm, each, how, logits_processor, seed, batch_tokens)
    logps, sure = _score(lm, each, said, batch_tokens)
    texts = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in said]
    found = []
    for i, row in enumerate(rows):
        own = slice(i * n, (i + 1) * n)
        asked = prompts[i] if isinstance(prompts[i], str) else lm.tokenizer.decode(row, skip_special_tokens=True)
        found.append(Samples(
            tuple(texts[own]), tuple(map(tuple, said[own])), tuple(map(answer, texts[own])), logps[own],
            np.array([len(ids) for ids in said[own]]), sure[own],
            None if reward is None else np.asarray(reward(str(asked), texts[own]), np.float64), str(asked),
        ))  # fmt: skip
    return found


def _checked(
    lm: LM, prompts: Sequence[str | Sequence[int]], n: int, temperature: float, top_p: float, top_k: int, new: int
) -> list[list[int]]:
    """Token ids of every prompt, once all arguments are known to be good."""
    if isinstance(prompts, str) or not len(prompts):
        raise refuse("draw", "prompts", "a list of at least one prompt", prompts, "write draw(lm, [prompt], n)")
    wanted = {
        "n": (n >= 1, "a whole number >= 1", n), "top_k": (top_k >= 0, "a whole number >= 0", top_k),
        "temperature": (0 < temperature < math.inf, "a number > 0", temperature),
        "top_p": (0 < top_p <= 1, "above 0 and at most 1", top_p), "max_new_tokens": (new >= 1, "at least 1", new),
    }  # fmt: skip
    for name, (good, expected, got) in wanted.items():
        if not good:
            raise refuse("draw", name, expected, got, "leave it out to sample the model's own distribution")
    rows = [lm.tokenizer(p).input_ids if isinstance(p, str) else [int(t) for t in p] for p in prompts]
    for i, row in enumerate(rows):
        if not row:
            raise refuse("draw", f"prompts[{i}]", "at least one token", "an empty prompt", "give it a bos token")
        if lm.context is not None and len(row) + new > lm.context:
            room = f"at most {lm.context} tokens together with max_new_tokens"
            raise refuse("draw", f"prompts[{i}]", room, f"{len(row)} + {new}", "shorten the prompt or max_new_tokens")
    return rows


@torch.inference_mode()
def _generate(
    lm: LM, rows: list[list[int]], how: dict[str, Any], rules: Any, seed: int, batch_tokens: int
) -> list[list[int]]:
    """A sampled continuation of every row, up to and with its end token."""
    from transformers import GenerationConfig, LogitsProcessorList

    ends = lm.ends
    pad_id = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else (ends or [0])[0]
    config = GenerationConfig(do_sample=True, eos_token_id=ends or None, pad_token_id=pad_id, **how)
    rules = LogitsProcessorList(rules if isinstance(rules, (list, tuple)) else [] if rules is None else [rules])
    said: list[list[int]] = [[] for _ in rows]

    def run(group: list[int]) -> None:
        ids, mask = pad([rows[i] for i in group], pad_id, device=lm.device)
        with lm.use() as model, as_told(model), forked(seed, "draw", group[0], devices=[lm.device]):
            grown = model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=rules)
        for i, row in zip(group, grown[:, ids.shape[1] :].tolist(), strict=True):
            said[i] = row[: next((k + 1 for k, token in enumerate(row) if token in ends), len(row))]

    for group in by_length([len(row) + how["max_new_tokens"] for row in rows], batch_tokens):
        for _ in halving(run, group):
            pass
    return said


@torch.inference_mode()
def _score(lm: LM, prompts: list[list[int]], said: list[list[int]], batch_tokens: int) -> tuple[Floats, Floats]:
    """Sum of the log-probabilities [N] and mean self-certainty [N] of every continuation, from raw logits."""
    logps, sure = np.zeros((2, len(said)))
    rows = [[*p, *s] for p, s in zip(prompts, said, strict=True)]
    width = len(lm.tokenizer)  # rows of the head beyond the tokenizer's are padding

    def run(group: list[int]) -> None:
        ids, mask = pad([rows[i] for i in group], 0, side="right", device=lm.device)
        starts = torch.tensor([len(prompts[i]) for i in group], device=ids.device)[:, None]
        scored = (mask & (torch.arange(ids.shape[1], device=ids.device) >= starts))[:, 1:]
        with lm.use() as model:
            head = head_of(model)
            states, labels = hidden_states(model, ids)[:, :-1][scored], ids[:, 1:][scored]
            step = max(1, _BLOCK_BYTES // (4 * head.vocab_size))
            parts = []
            for some, label in zip(states.split(step), labels.split(step), strict=True):
                z = head(some)
                parts.append(torch.stack([label_logps(z, label), certainty(z[:, :width])]))
        owner = scored.nonzero()[:, 0].cpu().numpy()
        sums = [np.bincount(owner, x, len(group)) for x in torch.cat(parts, 1).double().cpu().numpy()]
        logps[group], sure[group] = sums[0], sums[1] / np.bincount(owner, minlength=len(group))

    for group in by_length([len(row) for row in rows], batch_tokens):
        for _ in halving(run, group):
            pass
    return logps, sure
