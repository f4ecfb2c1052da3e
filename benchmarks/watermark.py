"""Watermark detection beside transformers' ``WatermarkDetector``, and what a mark costs while text is written.

python benchmarks/watermark.py [--json] [--texts 2000]

Own hash must read at least 1,000 times, transformers-compatible lists (left hash, its default) at least 10 times the
tokens per second of transformers' detector, which is timed on a few of the same texts in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, WatermarkDetector, WatermarkingConfig

from plumbline.decode.watermark import detect_gumbel_watermark, detect_kgw, gumbel_watermark, kgw
from plumbline.decode.watermark.streams import TransformersGreens
from plumbline.kernels.seeds import forked, generator

VOCAB, LENGTH, PEER_TEXTS = 32_000, 200, 10
TARGETS = {"kgw, own hash": 1000, "kgw, transformers lists": 10}


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def peer(ids: torch.Tensor, **settings: Any) -> Callable[[], Any]:
    config = WatermarkingConfig(**settings)
    detector = WatermarkDetector(LlamaConfig(vocab_size=VOCAB), "cpu", config)
    return lambda: detector(ids[:PEER_TEXTS])


def detection(texts: int, rounds: int) -> dict[str, float]:
    """Tokens per second of the peer, and ours as multiples of it: medians over rounds of ratios within a round."""
    ids = torch.randint(3, VOCAB, (texts, LENGTH), generator=generator(0, "texts"))
    theirs = partial(detect_kgw, scheme=TransformersGreens, vocab=VOCAB, distinct=False)
    left, own = peer(ids), peer(ids, seeding_scheme="selfhash", context_width=4)
    few = ids[: max(texts // 20, PEER_TEXTS)]  # nearly every seed of a self-hash is another: fewer texts tell the same
    ours: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "kgw, own hash": (lambda: detect_kgw(ids), left, rounds),
        "kgw, own hash, lists of ids": (lambda: detect_kgw(rows), left, rounds),
        "kgw, own self-hash of 4": (lambda: detect_kgw(ids, context=4, self_hash=True), own, rounds),
        "gumbel, own hash": (lambda: detect_gumbel_watermark(ids), left, rounds),
        "kgw, transformers lists": (lambda: theirs(ids), left, 3),
    }
    rows = ids.tolist()
    found: dict[str, float] = {
        "transformers, tokens per second": PEER_TEXTS * LENGTH / median(map(seconds, [left] * 3))
    }
    for name, (call, other, times) in ours.items():
        call()
        ratios = [seconds(other) / PEER_TEXTS / (seconds(call) / texts) for _ in range(times)]
        found[name] = median(ratios)
    again = lambda: theirs(few, context=4, self_hash=True)  # noqa: E731
    ratios = [seconds(own) / PEER_TEXTS / (seconds(again) / len(few)) for _ in range(3)]
    return found | {"kgw, transformers self-hash of 4": median(ratios)}


def writing(rounds: int, tokens: int = 32) -> dict[str, float]:
    """Time of generate with a rule over generate without one; a Llama of 15 million parameters, one row."""
    with forked(0):
        config = LlamaConfig(
            vocab_size=VOCAB, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
            tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config).eval()
    prompt = torch.randint(3, VOCAB, (1, 64), generator=generator(0, "prompt"))

    def generate(*rules: Any) -> float:
        settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True)
        return seconds(lambda: model.generate(prompt, **settings, logits_processor=LogitsProcessorList(rules)))

    generate()
    rules = {"kgw": kgw(), "kgw, self-hash of 4": kgw(context=4, self_hash=True), "gumbel": gumbel_watermark()}
    rules["kgw, transformers lists"] = kgw(scheme=TransformersGreens)
    return {
        f"writing time with {name}": median(generate(rule) / generate() for _ in range(rounds))
        for name, rule in rules.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    figures = detection(asked.texts, asked.rounds) | writing(asked.rounds)
    if asked.json:
        holds = all(figures[name] >= target for name, target in TARGETS.items())
        print(json.dumps({"name": "watermark", "figures": figures, "targets": TARGETS, "holds": holds}))
        return
    for name, value in figures.items():
        print(f"{name:45} {value:10.2f}" + (f"  (at least {TARGETS[name]})" if name in TARGETS else ""))


if __name__ == "__main__":
    main()
