"""What ``plumbline train`` does: methods named in text bound to data, models loaded, one call of ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from plumbline.core.declare import Card, function, objective
from plumbline.core.discover import catalogue, get
from plumbline.core.errors import refuse
from plumbline.models import LM, load
from plumbline.options import pairs, read_value, settable, unknown
from plumbline.train.engines import Engine
from plumbline.train.fitting import Trained, fit
from plumbline.train.roles import Term, term
from plumbline.train.rollouts import Rollouts
from plumbline.train.rows import Rows, read
from plumbline.train.stored import precompute


@dataclass
class Job:
    """One training as it was asked for; every text is read and refused before a model is loaded."""

    model: str
    losses: Sequence[str]
    data: Sequence[str]
    output: Path
    held_out: Path | None = None
    ref: str | None = None
    store_ref: bool = False
    teacher: str | None = None
    lora: str | None = None
    how: Mapping[str, Any] = field(default_factory=dict)  # of load: dtype, device, allow_pickle, trust_remote_code
    reading: Mapping[str, Any] = field(default_factory=dict)  # of read: max_length, form, ...
    sampling: Sampling | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # TrainingArguments
    padding_free: bool = False
    watched: Sequence[str] = ()
    watch_every: int = 10
    resume: bool = False

    def run(self) -> tuple[Trained, Rows]:
        """Load, read, train; the rows are returned for what is to be told of them."""
        terms = [spoken_loss(text) for text in self.losses]
        lora = None if self.lora is None else settings_in("--lora", self.lora)
        probes = [get(name) for name in self.watched]
        lm = load(self.model, **self.how)
        asked = {role for text in self.losses for role in get(text.partition(":")[0].strip()).roles}
        reading = {"max_length": lm.context, **{k: v for k, v in self.reading.items() if v is not None}}
        rows = gather(self.data, lm, reading | {"mismatched": "mismatched" in asked})
        others = {n: load(s, **self.how) for n, s in (("ref", self.ref), ("teacher", self.teacher)) if s is not None}
        streams: Mapping[str, Sequence[Mapping[str, Any]]] = rows
        if self.store_ref:
            self.output.mkdir(parents=True, exist_ok=True)
            source = others.pop("ref", lm)
            streams = precompute(source, rows, path=self.output / "ref_logps.parquet")
        extra: dict[str, Any] = {} if self.sampling is None else self.sampling.of(lm, self.settings.get("seed", 0))
        if probes:
            from plumbline.train.watching import watch

            extra["callbacks"] = [watch(*(card.fn for card in probes), rows=rows, every=self.watch_every)]
        held = None if self.held_out is None else gather([str(self.held_out)], lm, reading)
        done = fit(
            lm, streams, loss=terms, output=self.output, lora=lora, resume=self.resume, held_out=held,
            padding_free=self.padding_free, **others, **extra, **self.settings,
        )  # fmt: skip
        return done, rows


@dataclass
class Sampling:
    """How rollouts are made: the verifier, the engine's settings, the advantages, the correction."""

    reward: str
    group_size: int = 8
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    advantages: str = "group_advantages"
    correct: str | None = None
    reuse: int = 1

    def of(self, lm: LM, seed: int) -> dict[str, Any]:
        """Arguments of ``fit``."""
        engine = Engine(
            lm.ends, pad_id=lm.tokenizer.pad_token_id, max_new_tokens=self.max_new_tokens,
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k,
        )  # fmt: skip
        rollouts = Rollouts(
            lm.tokenizer, engine, spoken("--reward", self.reward), group_size=self.group_size, reuse=self.reuse,
            advantages=spoken("--advantages", self.advantages), seed=seed,
        )  # fmt: skip
        weights = {} if self.correct is None else {"weights": spoken("--correct", self.correct)}
        return {"prepare": rollouts, "temperature": self.temperature, "derive": weights}


def asked(options: Mapping[str, Any]) -> Job:
    """A Job from the options of ``plumbline train``, by their names there."""
    o = SimpleNamespace(**options)
    if o.output.exists() and not o.output.is_dir():
        raise refuse("train", "-o", "a folder", f"the file {o.output}", "name another folder")
    settings: dict[str, Any] = dict(
        learning_rate=o.lr, num_train_epochs=o.epochs, max_steps=o.steps, per_device_train_batch_size=o.batch_size,
        gradient_accumulation_steps=o.accumulate, logging_steps=o.log_every, seed=o.seed, bf16=o.bf16,
        report_to=o.logging, save_strategy="steps" if o.save_every else "no", save_steps=o.save_every or 500,
        disable_tqdm=o.quiet or o.json_,
    )  # fmt: skip
    settings |= {"eval_strategy": "steps", "eval_steps": o.log_every} if o.held_out else {}
    for text in o.set_ or []:
        settings |= settings_in("--set", text)
    names = ("group_size", "max_new_tokens", "temperature", "top_p", "top_k", "advantages", "correct", "reuse")
    sampling = None if o.reward is None else Sampling(o.reward, **{name: options[name] for name in names})
    how = {name: options[name] for name in ("device", "allow_pickle", "trust_remote_code")}
    return Job(
        o.model, [o.loss, *(o.plus or [])], o.data, o.output, o.held_out, o.ref, o.store_ref, o.teacher, o.lora,
        how=how | {"dtype": o.dtype or "float32"}, reading={"max_length": o.max_length, "last_turn": o.last_turn},
        sampling=sampling, settings=settings, padding_free=o.padding_free, watched=o.watch or [],
        watch_every=o.watch_every, resume=o.resume,
    )  # fmt: skip


def spoken(option: str, text: str, kind: str = function.name) -> Callable[..., Any]:
    """``name:key=value`` as the method with those settings; or any function, as ``module.name``."""
    name, _, rest = text.partition(":")
    card = get(name.strip()) if "." not in name else None
    if card is None:
        return imported(option, name, pairs(option, rest, "give its settings in code"))
    if card.kind.name != kind:
        raise refuse(option, "method", f"of the kind {kind}", f"{card.name}, a {card.kind.name}", "see plumbline list")
    values, _ = _settings(option, card, rest, ())
    return partial(card.fn, **values) if values else card.fn


def imported(option: str, name: str, rest: Mapping[str, str]) -> Callable[..., Any]:
    """A function of the user's own, by its dotted name."""
    import importlib

    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise refuse(option, "function", "module.name that can be imported", name, str(error)) from error
    if rest or not callable(found):
        raise refuse(option, name, "a function, given as it is", type(found).__name__, "wrap it in a function")
    return found  # type: ignore[no-any-return]


def spoken_loss(text: str) -> Term:
    """``dpo:beta=0.2``, ``nll:weight=0.1,x=retain``: a method, its settings, its weight, its streams by other names."""
    name = text.partition(":")[0].strip()
    card = get(name)
    if card.kind is not objective:
        known = ", ".join(c.name for c in catalogue(kind=objective.name))
        raise refuse("train", "--loss", f"an objective ({known})", f"{card.name}, a {card.kind.name}",
                     "see plumbline list --room objectives")  # fmt: skip
    values, others = _settings("--loss", card, text.partition(":")[2], ("weight", *card.roles))
    weight = others.pop("weight", "1")
    try:
        number = float(weight)
    except ValueError as error:
        raise refuse(f"--loss {name}", "weight", "a number", repr(weight), "write weight=0.1") from error
    return term(partial(card.fn, **values), number, others)


def _settings(option: str, card: Card, rest: str, also: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The method's own hyper-parameters, read and checked; and the other keys that ``also`` allows, as text."""
    where, see, can_set = f"{option} {card.name}", f"see plumbline show {card.name}", settable(card.params)
    values: dict[str, Any] = {}
    others: dict[str, str] = {}
    for key, value in pairs(where, rest, see).items():
        if key in can_set:
            values[key] = read_value(card.name, can_set[key], value)
        elif key in also:
            others[key] = value
        else:
            raise unknown(where, key, [*can_set, *also], see)
    missing = [p.name for p in card.params.values() if p.required and p.name not in values]
    if missing:
        told = card.params[missing[0]].describe()
        raise refuse(where, missing[0], told, "none", f"write {card.name}:{missing[0]}=...")
    return values, others


def settings_in(option: str, text: str) -> dict[str, Any]:
    """``key=value,...`` with numbers and yes or no read as such: ``r=16,use_dora=true``."""
    return {key: _plain(value) for key, value in pairs(option, text, "write r=16,lora_alpha=32").items()}


def _plain(text: str) -> Any:
    for read_as in (int, float):
        try:
            return read_as(text)
        except ValueError:
            continue
    return {"true": True, "yes": True, "false": False, "no": False, "none": None}.get(text.lower(), text)


def gather(sources: Sequence[str], lm: LM, reading: Mapping[str, Any]) -> Rows:
    """Rows of one file, or of several named streams (``forget=f.jsonl``, ``retain=r.jsonl``)."""
    named = [(stream, path) if mark else ("", stream) for stream, mark, path in (s.partition("=") for s in sources)]
    if len({stream for stream, _ in named}) < len(named):
        raise refuse("train", "--data", "one file, or a stream's name for each (retain=r.jsonl)", ", ".join(sources),
                     "name the streams after the loss's roles")  # fmt: skip
    whole: Rows | None = None
    for stream, path in named:
        rows = read(path, lm.tokenizer, **reading)
        if stream and set(rows) != {"x"}:
            got = f"{rows.form} rows with {', '.join(rows)}"
            raise refuse("train", f"--data {stream}=", "one stream of texts", got, "pass such a file without a name")
        if stream:
            rows[stream] = rows.pop("x")
        if whole is None:
            whole = rows
        else:
            whole.update(rows)
            whole.count, whole.truncated = whole.count + rows.count, whole.truncated + rows.truncated
            whole.dropped, whole.notes = whole.dropped + rows.dropped, (*whole.notes, *rows.notes)
    if whole is None:
        raise refuse("train", "--data", "a file", "none", "pass --data rows.jsonl")
    return whole
