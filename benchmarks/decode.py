"""Decoding against the bare forward passes and against transformers, as ratios within one run.

A Llama of 15M parameters without its embeddings (8 layers, width 384, vocabulary 32k) whose next token is known:
its text copies the prompt, or a prompt whose transitions are wrong misleads every draft. Zoo models for real text.

python benchmarks/decode.py [--json] [--repeats 5] [--only rules|drafts|zoo|batch|overhead|catalogue_table]
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList
from transformers.utils import logging

from plumbline.core.declare import logit_rule, sampler
from plumbline.core.discover import catalogue
from plumbline.decode import classifier_free_guidance, contrastive_decoding
from plumbline.decode.backoff import Backoff
from plumbline.decode.drafts import Candidates
from plumbline.decode.loop import NOTHING, Report, Run, speculate
from plumbline.decode.speculate import lookahead, prompt_lookup, speculative_jacobi, token_recycling
from plumbline.decode.together import together
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import generator
from plumbline.lab.transitions import following

SIZE = dict(hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6)
VOCAB, CYCLE = 32_000, 160
GREEDY: dict[str, Any] = dict(do_sample=False, pad_token_id=0, eos_token_id=None)


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns so that a slow minute falls on all of them."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in taken.items()}


@torch.no_grad()
def bare(models: list[Any], ids: torch.Tensor, new: int, cached: bool = True) -> None:
    """The limit: ``new`` greedy tokens with one forward pass a model a step, and nothing else."""
    caches = [DynamicCache(config=m.config) for m in models]
    fed = ids
    for _ in range(new):
        for i, model in enumerate(models):
            if cached or i == 0:
                out = model(fed, past_key_values=caches[i], use_cache=True, logits_to_keep=1)
            else:  # the loop that people write: the second model reads everything again
                out = model(ids, use_cache=False)
        fed = out.logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, fed], 1)


def rules(repeats: int, new: int = 48) -> dict[str, float]:
    """Cost of a second distribution, over the bare cached passes."""
    main, _ = following(VOCAB, CYCLE, 0, **SIZE)
    peer, _ = following(VOCAB, CYCLE, 1, **SIZE)
    figures = {}
    for length in (64, 512):
        ids = torch.randint(3, VOCAB, (1, length), generator=generator(length, "prompt"))
        apart = contrastive_decoding(peer, alpha=0.1)
        own_prompt = Peer(main, prompt=ids[:, length // 2 :])
        guided = LogitsProcessorList([classifier_free_guidance(own_prompt, gamma=1.5)])
        how = dict(max_new_tokens=new, **GREEDY)
        took = medians(
            {
                "two": lambda: bare([main, peer], ids, new),
                "naive": lambda: bare([main, peer], ids, new, cached=False),
                "rule": lambda: main.generate(ids, logits_processor=LogitsProcessorList([apart]), **how),
                "one": lambda: bare([main], ids, new),
                "batched": lambda: main.generate(ids, logits_processor=guided, custom_generate=together, **how),
            },
            repeats,
        )
        figures[f"two models / two cached passes, {length}"] = took["rule"] / took["two"]
        figures[f"no cache for the second / two cached passes, {length}"] = took["naive"] / took["two"]
        figures[f"one set of weights / one cached pass, {length}"] = took["batched"] / took["one"]
    return figures


def misled(text: list[int], share: float, seed: int) -> list[int]:
    """The text's tokens in their order, each followed by the wrong token with probability ``share``."""
    g, out = generator(seed, "misled"), []
    wrong = torch.rand(len(text), generator=g) < share
    strangers = torch.randint(3, VOCAB, (len(text),), generator=g)
    for token, bad, stranger in zip(text, wrong.tolist(), strangers.tolist(), strict=True):
        out += [token, stranger] if bad else [token]
    return [*out, text[0]]


class Nothing:
    """A drafter that never drafts: the loop by itself."""

    def propose(self, text: list[int], width: int) -> Any:
        return NOTHING

    def learn(self, *_: Any) -> None:
        pass


def undrafted(
    model: Any, input_ids: Any, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **kw: Any
) -> Any:
    run = Run("undrafted", model, input_ids, logits_processor, stopping_criteria, generation_config, kw)
    return speculate(run, [Nothing() for _ in run.rows], Backoff.fixed(1))


def spent(model: Any, ids: torch.Tensor, **how: Any) -> Report:
    told = Report()
    model.generate(ids, report=told, **how)
    return told


def drafts(repeats: int, new: int = 128) -> dict[str, float]:
    """Drafts on a text that copies its prompt, and on prompts that mislead them."""
    model, text = following(VOCAB, CYCLE, 0, **SIZE)
    methods = {f.card.name: f for f in (prompt_lookup, lookahead, token_recycling, speculative_jacobi)}
    figures, own = {}, []
    how = dict(max_new_tokens=new, **GREEDY)
    for share in (0.0, 0.25, 1.0):
        ids = torch.tensor([misled(text[:-1], share, 7)])
        calls = {"greedy": lambda: model.generate(ids, **how)}
        calls["transformers"] = lambda: model.generate(ids, prompt_lookup_num_tokens=10, **how)
        for name, method in methods.items():
            calls[name] = lambda method=method: model.generate(ids, custom_generate=method, **how)
        calls["undrafted"] = lambda: model.generate(ids, custom_generate=undrafted, **how)
        took = medians(calls, repeats)
        for name in [*methods, "transformers", "undrafted"]:
            figures[f"{name} / greedy, {share:.0%} of the prompt's transitions wrong"] = took["greedy"] / took[name]
        own.append(took["undrafted"] / max(took[name] for name in methods))
    copied = "{} / greedy, 0% of the prompt's transitions wrong"
    figures["lookahead / transformers prompt lookup"] = (
        figures[copied.format("lookahead")] / figures[copied.format("transformers")]
    )
    drafted = [v for k, v in figures.items() if "wrong" in k and not k.startswith(("transformers", "undrafted"))]
    figures |= {"worst draft / greedy": min(drafted), "worst draft / the same loop without drafts": min(own)}
    return figures


LOSSLESS = {
    "prompt_lookup": "yes", "lookahead": "yes", "token_recycling": "yes", "speculative_jacobi": "yes",
    "gumbel_watermark": "over keys",
}  # fmt: skip
ONE_MODEL = {"classifier_free_guidance", "ck_plug", "debias_sampling"}  # the same model under another prompt


@contextmanager
def counted(models: list[Any]) -> Iterator[list[int]]:
    """Forward passes of all models inside the block."""
    calls = [0]

    def one(*_: Any) -> None:
        calls[0] += 1

    handles = [m.register_forward_pre_hook(one) for m in models]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def catalogue_table(repeats: int, new: int = 48) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Every rule and sampler of the catalogue: forward passes a token, and speed over plain greedy decoding's."""
    model, text = following(VOCAB, CYCLE, 0, **SIZE)
    other, _ = following(VOCAB, CYCLE, 1, **SIZE)
    ids, how = torch.tensor([text]), dict(max_new_tokens=new, **GREEDY)
    rows = []
    for card in catalogue("decode"):
        if card.kind not in (logit_rule, sampler):
            continue
        call, extra = runner(card, model, other, ids)
        took = medians({"greedy": lambda: model.generate(ids, **how), "method": lambda: call(**how)}, repeats)
        with counted([model, other]) as calls:
            call(**how)
        told = {"method": card.name, "extra models": extra, "calls a token": calls[0] / new}
        told |= {"speed over greedy": took["greedy"] / took["method"], "lossless": LOSSLESS.get(card.name, "no")}
        rows.append(told)
    return {}, sorted(rows, key=lambda row: -row["speed over greedy"])


def runner(card: Any, model: Any, other: Any, ids: torch.Tensor) -> tuple[Callable[..., Any], str]:
    """How ``generate`` is called with a method, and what it needs beside the model."""
    example = getattr(import_module(card.module), "_example", None)
    settings = example(model) if example else {}
    if card.kind is sampler:
        needed = {p.name: other for p in card.params.values() if p.required}
        return partial(model.generate, ids, custom_generate=card.fn, **needed), "1" if needed else "none"
    one = card.name in ONE_MODEL
    taken = inspect.signature(card.fn).parameters
    roles = [r for r in card.roles if taken[r].default is inspect.Parameter.empty or card.name == "dexperts"]

    def call(**how: Any) -> Any:
        peers = [Peer(model, prompt=ids[:, -8:]) if one else model if r == "model" else other for r in roles]
        rule = card.fn(*peers, **settings)
        more = {"custom_generate": together} if one else {}
        with rule if hasattr(rule, "__enter__") else nullcontext():
            return model.generate(ids, logits_processor=LogitsProcessorList([rule]), **more, **how)

    return call, "none, one more prompt" if one else str(sum(r != "model" for r in roles) or "none")


def zoo(repeats: int, new: int = 96) -> dict[str, float]:
    """Ordinary text of the zoo's world, greedy, one prompt after another with the table kept."""
    from plumbline.models import load
    from plumbline.worlds.corpus import documents

    lm = load("zoo:base")
    kinds = {"people", "note", "prose", "recipe"}
    texts = [d.text for d in islice((d for d in documents(seed=1) if d.kind in kinds), 200)]
    ids = [x[:, :24] for x in (lm.tokenizer(t, return_tensors="pt").input_ids for t in texts) if x.shape[1] >= 24][:8]
    how = dict(max_new_tokens=new, do_sample=False, pad_token_id=lm.tokenizer.pad_token_id, eos_token_id=None)
    table = Candidates(lm.model.config.vocab_size)
    calls = {
        "greedy": lambda: [lm.model.generate(x, **how) for x in ids],
        "transformers prompt lookup": lambda: [lm.model.generate(x, prompt_lookup_num_tokens=10, **how) for x in ids],
        "token recycling": lambda: [
            lm.model.generate(x, custom_generate=token_recycling, candidates=table, **how) for x in ids
        ],
        "lookahead": lambda: [lm.model.generate(x, custom_generate=lookahead, **how) for x in ids],
        "undrafted": lambda: [lm.model.generate(x, custom_generate=undrafted, **how) for x in ids],
    }
    took = medians(calls, repeats)
    return {f"{name} / greedy, zoo text": took["greedy"] / took[name] for name in list(calls)[1:]}


def batch(repeats: int, rows: int = 8, new: int = 96) -> dict[str, float]:
    """Eight rows of different lengths that copy their prompts: drafted together, over batched greedy."""
    model, text = following(VOCAB, CYCLE, 0, **SIZE)
    ring = text[:-1]
    prompts = [[*ring[k:], *ring[: k + 1]][k % 5 :] for k in range(0, 5 * rows, 5)]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    how = dict(attention_mask=(ids != 0).long(), max_new_tokens=new, **GREEDY)
    calls = {"greedy": lambda: model.generate(ids, **how)}
    for method in (lookahead, prompt_lookup):
        calls[method.card.name] = lambda method=method: model.generate(ids, custom_generate=method, **how)
    took = medians(calls, repeats)
    same = torch.equal(model.generate(ids, **how), model.generate(ids, custom_generate=lookahead, **how))
    figures = {f"{n} / greedy, batch of {rows}": took["greedy"] / took[n] for n in ("lookahead", "prompt_lookup")}
    return figures | {f"same tokens, batch of {rows}": float(same)}


def overhead(repeats: int) -> dict[str, float]:
    """Seconds spent on drafting (proposing and learning) over those of one single-token pass."""
    from plumbline.decode import drafts as held

    model, text = following(VOCAB, CYCLE, 0, **SIZE)
    ids, how = torch.tensor([text]), dict(max_new_tokens=96, **GREEDY)
    began = time.perf_counter()
    bare([model], ids, 96)
    one_pass = (time.perf_counter() - began) / 96
    figures = {}
    for method, kind in ((prompt_lookup, held.Copies), (lookahead, held.Looks), (token_recycling, held.Recycles)):
        spent_on: list[float] = []
        with timed(kind, spent_on):
            told = spent(model, ids, custom_generate=method, **how)
        figures[f"{method.card.name}: drafting / forward pass"] = sum(spent_on) / told.calls / one_pass
    return figures


class timed:
    """Inside the block the seconds of a drafter's two methods are noted."""

    def __init__(self, kind: Any, seconds: list[float]) -> None:
        self.kind, self.seconds = kind, seconds

    def __enter__(self) -> None:
        self.before = {n: getattr(self.kind, n) for n in ("propose", "learn")}
        for name, method in self.before.items():
            setattr(self.kind, name, self._noting(method))

    def _noting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args)
            finally:
                self.seconds.append(time.perf_counter() - began)

        return call

    def __exit__(self, *error: object) -> None:
        for name, method in self.before.items():
            setattr(self.kind, name, method)


TARGETS: dict[str, tuple[str, float]] = {
    "two models / two cached passes, 64": ("<=", 1.08),
    "two models / two cached passes, 512": ("<=", 1.08),
    "one set of weights / one cached pass, 64": ("<=", 1.5),
    "one set of weights / one cached pass, 512": ("<=", 1.5),
    "lookahead / transformers prompt lookup": (">=", 0.97),
    "worst draft / greedy": (">=", 0.95),
    "token recycling / greedy, zoo text": (">=", 1.5),
    "lookahead / greedy, batch of 8": (">=", 2.0),
    "same tokens, batch of 8": (">=", 1.0),
    "prompt_lookup: drafting / forward pass": ("<=", 0.03),
    "lookahead: drafting / forward pass": ("<=", 0.03),
    "token_recycling: drafting / forward pass": ("<=", 0.03),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["rules", "drafts", "zoo", "batch", "overhead", "catalogue_table"])
    asked = parser.parse_args()
    logging.set_verbosity_error()
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for part in (rules, drafts, zoo, batch, overhead, catalogue_table):
        if asked.only in (None, part.__name__):
            found = part(asked.repeats)
            if isinstance(found, tuple):
                found, table = found
                for line in table if not asked.json else ():
                    print("  ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in line.values()), flush=True)
            figures |= found
            if not asked.json:
                for name, value in found.items():
                    sign, target = TARGETS.get(name, ("", 0.0))
                    print(f"{name:68} {value:7.3f}" + (f"  ({sign} {target})" if sign else ""), flush=True)
    held = {n: (figures[n] <= t if s == "<=" else figures[n] >= t) for n, (s, t) in TARGETS.items() if n in figures}
    if asked.json:
        targets = {n: f"{s} {t}" for n, (s, t) in TARGETS.items() if n in figures}
        told = {"name": "decode", "figures": figures, "targets": targets, "holds": all(held.values()), "table": table}
        print(json.dumps(told))
    elif not all(held.values()):
        print("missed: " + ", ".join(n for n, ok in held.items() if not ok))


if __name__ == "__main__":
    main()
