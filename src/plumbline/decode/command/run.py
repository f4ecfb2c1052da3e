"""Decoding prompts with any rules, sampler or selector, and counting what it took."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import PlumblineError, refuse
from plumbline.decode.command.compose import Cast
from plumbline.decode.command.rows import Place, Row, ids_of, own_ids, spread
from plumbline.decode.command.watch import MAIN, PEERS, StopAt, Stream, Watch
from plumbline.decode.loop import Report
from plumbline.decode.samples import Selection, draw
from plumbline.kernels.batching import pad
from plumbline.kernels.seeds import derive, forked
from plumbline.kernels.tree import TreeLM
from plumbline.models.lm import as_told

Write = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to generate, beside the methods. ``temperature`` None: greedy, or 1 where a selector needs samples."""

    max_new_tokens: int = 128
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1
    samples: int = 16
    stop: tuple[str, ...] = ()
    seed: int = 0
    batch_size: int = 8

    def check(self, cast: Cast) -> None:
        """Refuse what does not go together, before anything is generated."""
        parts, warm = cast.parts, self.temperature
        if warm is not None and not 0 <= warm < float("inf"):
            raise refuse("decode", "--temperature", "a number >= 0", warm, "0 is greedy")
        if not 0 < self.top_p <= 1:
            raise refuse("decode", "--top-p", "above 0 and at most 1", self.top_p, "1 keeps every token")
        method = parts.sampler or parts.selector
        if self.num_beams > 1 and method is not None:
            raise refuse(method.card.name, "--num-beams", "1", self.num_beams, "leave beams out, or the method")
        if parts.selector is not None and warm == 0:
            raise refuse(parts.selector.card.name, "--temperature", "above 0, as it chooses among samples", warm,
                         "leave it out for 1")  # fmt: skip
        if parts.selector is not None and self.stop:
            raise refuse(
                parts.selector.card.name, "--stop", "left out", list(self.stop), "its samples end by themselves"
            )


@dataclass
class Spent:
    """What some answers took. ``calls``: forward passes; ``drafted`` and ``kept``: of a sampler's draft tokens."""

    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    drafted: int = 0
    kept: int = 0

    def add(self, other: Spent) -> None:
        for name in ("rows", "tokens", "seconds", "drafted", "kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.calls += other.calls

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"tokens": self.tokens, "seconds": round(self.seconds, 4)}
        told |= {"tokens_per_second": round(self.rate, 2)}
        told |= {"calls": {name: self.calls[name] for name in (MAIN, PEERS)}}
        return told | ({"drafted": self.drafted, "kept": self.kept} if self.drafted else {})


@dataclass
class Answer:
    """What came of one prompt. ``ids`` end with the end token if it was generated; ``overrode``: rule -> counts."""

    row: Row
    ids: list[int]
    text: str
    finish: str
    overrode: dict[str, tuple[int, int]] = field(default_factory=dict)
    plain: Answer | None = None
    chosen: Selection | None = None
    texts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.row.id, "prompt": self.row.text, "text": self.text}
        told |= {"tokens": len(self.ids), "finish": self.finish, "ids": self.ids}
        if self.overrode:
            told["overrode"] = {name: share(counts) for name, counts in self.overrode.items()}
        if self.chosen is not None:
            told["answer"] = self.chosen.answer
            told["confidence"] = {str(a): round(p, 4) for a, p in self.chosen.confidence.items()}
            told["samples"] = list(self.texts)
        return told | ({} if self.plain is None else {"plain": self.plain.text})


def share(counts: tuple[int, int]) -> float | None:
    """Overridden positions among all, None where there were none."""
    return round(counts[0] / counts[1], 4) if counts[1] else None


@dataclass
class Done:
    """One batch: its answers, what they took, and what plain decoding of the same prompts took."""

    answers: list[Answer]
    spent: Spent
    plain: Spent | None = None


class Decoder:
    """The models of a run and how prompts go through them.

    Args:
        cast: the models and the composed methods. settings: of the generation.
    """

    def __init__(self, cast: Cast, settings: Settings) -> None:
        settings.check(cast)
        self.cast, self.settings, self.lm = cast, settings, cast.main
        self.warm = settings.temperature if settings.temperature is not None else float(cast.parts.selector is not None)
        self.own_ends = self.lm.ends
        # a peer may end an answer in its own way: a chat model's turn ends with a token that its base never writes
        self.ends = sorted({end for lm in cast.others.values() for end in lm.ends})
        pad_id = self.lm.tokenizer.pad_token_id
        self.pad_id = int(pad_id if pad_id is not None else (self.ends or [0])[0])
        # built once for nothing, so that values that do not go together are refused before the first prompt
        built = cast.rules({}, -1)
        self._read: tuple[Sequence[Row], list[tuple[list[int], dict[Place, list[int]]]]] | None = None
        self._peered = [i for i, rule in enumerate(built) if getattr(rule, "peers", ())]

    @property
    def streams(self) -> bool:
        """Whether one row's text is final as it comes: not with beams, nor where a choice is made at the end."""
        return self.settings.num_beams == 1 and self.cast.parts.selector is None

    def encode(self, rows: Sequence[Row]) -> list[tuple[list[int], dict[Place, list[int]]]]:
        """Ids of every row's prompts; whatever is wrong with any of them is said before the first is decoded."""
        if self._read is not None and self._read[0] is rows:
            return self._read[1]
        room, places = self.settings.max_new_tokens, self.cast.places()
        read = [(ids_of(row.asked, self.lm, row.where, room), own_ids(row, places, self.lm, room)) for row in rows]
        for i in self._peered:
            mine = [place for place in places if place[0] == i]
            same = all(places[place] is self.lm and not any(place in own for _, own in read) for place in mine)
            if mine and same:  # then the rule compares the main model with itself
                role = mine[0][1]
                raise refuse(self.cast.parts.rules[i].card.name, role, "another model, or one with a prompt of its own",
                             "the main model under the main prompt",
                             f'give the rows a field "{role}", or pass --peer-prompt {role}=TEXT')  # fmt: skip
        self._read = (rows, read)
        return read

    def run(self, rows: Sequence[Row], *, compare: bool = False, write: Write | None = None) -> Iterator[Done]:
        """Batches in the order of the rows. ``write`` gets the text of a batch of one row as it comes."""
        read = self.encode(rows)
        size = 1 if self.cast.parts.selector else self.settings.batch_size
        self._warm_up(read[0][0][:1])
        for start in range(0, len(rows), size):
            some, inputs = rows[start : start + size], read[start : start + size]
            ids = [main for main, _ in inputs]
            if self.cast.parts.selector:
                done = self._select(some[0], *inputs[0])
            else:
                stream = write if len(some) == 1 and self.streams else None
                done = self._decode(some, ids, [own for _, own in inputs], stream)
            if compare:
                plain = self._decode(some, ids, None, None)
                done.plain = plain.spent
                for answer, other in zip(done.answers, plain.answers, strict=True):
                    answer.plain = other
            yield done

    @torch.no_grad()
    def _warm_up(self, ids: list[int]) -> None:
        """The first pass of a model is slower than all others, and would be charged to whatever comes first."""
        for lm in {id(lm): lm for lm in self.cast.others.values()}.values():
            with lm.use() as model:
                model(torch.tensor([ids], device=lm.device))
        if self.cast.parts.sampler:
            with suppress(PlumblineError), self.lm.use() as model:  # a loop that cannot do without trees will say so
                TreeLM(model, "decode")

    def _rules(self, ids: Sequence[list[int]], own: Sequence[dict[Place, list[int]]]) -> list[Any]:
        """The rules for this batch, their models told which prompts are theirs and what is padding."""
        lengths = {len(row) for row in ids}
        # without a mask, padding is told by its token: not possible where a prompt begins with that token
        clear = len(lengths) == 1 or all(row[0] != self.pad_id for row in ids)
        prompts: dict[Place, tuple[Tensor, Tensor]] = {}
        for place, lm in self.cast.places().items():
            found = spread(ids, own, place) or (None if clear else list(ids))
            if found is not None:
                fill = lm.tokenizer.pad_token_id
                prompts[place] = pad(found, 0 if fill is None else fill, device=lm.device)
        return self.cast.rules(prompts, self.pad_id if clear and len(lengths) > 1 else -1)

    def _decode(
        self, rows: Sequence[Row], ids: Sequence[list[int]], own: Sequence[dict[Place, list[int]]] | None,
        write: Write | None,
    ) -> Done:  # fmt: skip
        """One batch, with the composed methods, or plainly where ``own`` is None."""
        plain = own is None
        rules = [] if own is None else self._rules(ids, own)
        told = Report()
        loop = {} if plain else self.cast.sampler(told, rules, beams=self.settings.num_beams > 1)
        prompts, mask = pad(ids, self.pad_id, device=self.lm.device)
        ends = self.own_ends if plain else self.ends
        watch = Watch(prompts, ends, len(rules))
        stop = StopAt(self.lm.tokenizer, prompts.shape[1], self.settings.stop)
        stream = None if write is None else Stream(self.lm.tokenizer, prompts.shape[1], write)
        criteria = [c for c in (stop if self.settings.stop else None, stream) if c is not None]
        peers = [lm.model for lm in self.cast.others.values()]
        with ExitStack() as stack:
            model = stack.enter_context(as_told(stack.enter_context(self.lm.use())))
            stack.enter_context(watch.counting(model, peers))
            stack.enter_context(forked(self.settings.seed, "decode", rows[0].id, devices=[self.lm.device]))
            for rule in rules:
                if hasattr(rule, "__enter__"):
                    stack.enter_context(rule)
            began = time.perf_counter()
            out = model.generate(
                prompts, attention_mask=mask.long(), generation_config=self._config(plain, mixed=bool(rules)),
                logits_processor=watch.around(rules), stopping_criteria=criteria, **loop,
            )  # fmt: skip
            spent = Spent(len(rows), 0, time.perf_counter() - began, watch.calls, told.drafted, told.kept)
        if told.calls:  # one pass for main model and peer may run in the peer's module: the sampler knows whose it was
            spent.calls = Counter({MAIN: told.calls, PEERS: watch.calls.total() - told.calls})
        names = [] if plain else [part.card.name for part in self.cast.parts.rules]
        answers = []
        for b, (row, new) in enumerate(zip(rows, out[:, prompts.shape[1] :].tolist(), strict=True)):
            moved = [(watch.overridden[r][b], watch.seen[r][b]) for r in range(len(rules))]
            answers.append(self._answer(row, new, ends, stop, _summed(names, moved)))
        spent.tokens = sum(len(answer.ids) for answer in answers)
        if stream is not None:
            stream.show(answers[0].text, last=True)
        return Done(answers, spent)

    def _config(self, plain: bool, mixed: bool) -> Any:
        """An own configuration: checkpoints ship penalties and temperatures that were not asked for."""
        from transformers import GenerationConfig

        s = self.settings
        # what many samples are compared with is the one answer that a user would take instead
        warm = 0.0 if plain and self.cast.parts.selector and s.temperature is None else self.warm
        how: dict[str, Any] = {"do_sample": warm > 0, "num_beams": s.num_beams}
        if warm > 0:
            how |= {"temperature": warm, "top_p": s.top_p, "top_k": s.top_k}
        if s.num_beams > 1 and mixed:
            how["renormalize_logits"] = True  # rules give scores that need not add up to 1, and beams add them up
        ends = self.own_ends if plain else self.ends
        how |= {"eos_token_id": ends or None, "pad_token_id": self.pad_id}
        return GenerationConfig(max_new_tokens=s.max_new_tokens, **how)

    def _answer(
        self, row: Row, new: list[int], ends: list[int], stop: StopAt, overrode: dict[str, tuple[int, int]]
    ) -> Answer:
        end = next((i + 1 for i, token in enumerate(new) if token in ends), None)
        kept = new[: end or self.settings.max_new_tokens]
        while end is None and kept and kept[-1] == self.pad_id:
            kept = kept[:-1]
        whole = self.lm.tokenizer.decode(kept, skip_special_tokens=True)
        text = stop.cut(whole)
        finish = "stop" if len(text) < len(whole) else "end" if end else "length"
        return Answer(row, kept, text, finish, overrode)

    def _select(self, row: Row, ids: list[int], own: dict[Place, list[int]]) -> Done:
        """Draw samples for one prompt and let the selector choose."""
        part, s = self.cast.parts.selector, self.settings
        rules, lm = self._rules([ids], [own]), self.lm
        watch = Watch(torch.tensor([ids]), self.ends, len(rules))
        with ExitStack() as stack:
            with lm.use() as model:
                stack.enter_context(watch.counting(model, [other.model for other in self.cast.others.values()]))
            for rule in rules:
                if hasattr(rule, "__enter__"):
                    stack.enter_context(rule)
            began = time.perf_counter()
            drawn = draw(
                lm, [ids], s.samples, temperature=self.warm, top_p=s.top_p, top_k=s.top_k,
                max_new_tokens=s.max_new_tokens, seed=derive(s.seed, row.id), logits_processor=watch.around(rules),
            )[0]  # fmt: skip
            chosen = part.card.fn(drawn, **part.values) if part else Selection(0, None, {})
            seconds = time.perf_counter() - began
        at = chosen.index
        names = [p.card.name for p in self.cast.parts.rules]
        moved = [(watch.overridden[r][0], watch.seen[r][0]) for r in range(len(rules))]
        answer = Answer(
            row, [] if at is None else list(drawn.ids[at]), "" if at is None else drawn.texts[at],
            "none" if at is None else "chosen", _summed(names, moved), None, chosen, drawn.texts,
        )  # fmt: skip
        tokens = sum(map(len, drawn.ids))
        return Done([answer], Spent(1, tokens, seconds, watch.calls))


def _summed(names: Sequence[str], counts: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """By rule; the second of two rules of one name is called name#2."""
    found: dict[str, tuple[int, int]] = {}
    for i, (name, pair) in enumerate(zip(names, counts, strict=True)):
        again = list(names[:i]).count(name)
        found[name if not again else f"{name}#{again + 1}"] = pair
    return found


class Lines:
    """A JSONL file that grows by whole lines: each is written in one piece, or taken back."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | (0 if resume else os.O_TRUNC), 0o644)
        except OSError as error:
            raise refuse(
                "decode", "-o", "a file that can be written", f"{path}: {error.strerror}", "name another"
            ) from error

    def add(self, row: dict[str, Any]) -> None:
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(28, "no space is left on the device")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise PlumblineError(f"writing {self.path}: {error.strerror}; free room and go on with --resume") from error

    def close(self) -> None:
        os.close(self._file)
