from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import generator
from plumbline.lab.backcopy import Backcopy, OneHead, relu
from plumbline.lab.tiny import tiny
from plumbline.measure.shift._attention_sink import attention_sink
from plumbline.measure.shift.sinks import importance, same_texts, sinks


class Letters:
    """A tokenizer: one token a letter, after a BOS unless the text brings one."""

    bos_token = "^"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        text = "^" + text if add_special_tokens else text
        return {"input_ids": [1 if c == "^" else 3 + ord(c) % 90 for c in text]}


def lm(name: str, model: Any) -> Any:
    @contextmanager
    def use() -> Any:
        yield model

    return SimpleNamespace(model=model, tokenizer=Letters(), name=name, use=use, device=torch.device("cpu"))


def run(folder: Path, base: Any, tuned: Any, texts: list[str], answers: list[str] | None = None) -> Records:
    items = pd.DataFrame({"item": range(len(texts)), "kind": "prompt", "prompt": texts})
    tables: dict[str, Any] = {"items": items}
    if answers is not None:
        arms = [pd.DataFrame({"item": range(len(texts)), "arm": a, "text": t}) for a, t in (("a", "?"), ("b", answers))]
        tables["outputs"] = pd.concat(arms)
    return Records.of(folder, base=base, tuned=tuned, **tables)


def test_importance_of_the_exact_cases() -> None:
    t = 64
    first = torch.zeros(1, 1, t, t)
    first[..., 0] = 1
    assert importance(first)[0, 0, 0] == 1 and importance(first)[0, 0, 1:].eq(0).all()
    uniform = torch.ones(t, t).tril() / torch.arange(1, t + 1)[:, None]
    harmonic = sum(1 / i for i in range(1, t + 1))
    assert importance(uniform)[0].item() == pytest.approx(harmonic / t) == pytest.approx(0.0741, abs=5e-5)
    assert importance(uniform)[-1].item() == pytest.approx(1 / t)


def test_counts_equal_a_slow_loop(tiny_model: Any) -> None:
    ids = torch.randint(3, 101, (10, 16), generator=generator(0)).tolist()
    got = sinks(lm("m", tiny_model), ids, eps=0.2)
    assert tiny_model.config._attn_implementation == "sdpa" and got.row_sum == pytest.approx(1, abs=1e-5)
    tiny_model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = [tiny_model(torch.tensor([row]), output_attentions=True).attentions for row in ids]
    first, rates = np.zeros((10, 2, 4), bool), np.zeros((2, 16))
    for n, layer, head in np.ndindex(10, 2, 4):
        a = maps[n][layer][0, head]
        for k in range(16):
            sink = sum(a[i, k].item() for i in range(k, 16)) / (16 - k) > 0.2
            rates[layer, k] += sink / 40
            first[n, layer, head] |= sink and k == 0
    assert np.array_equal(got.first, first) and first.any() and not first.all()
    assert np.allclose(got.rates, rates)


def test_fewer_sinks_at_a_higher_threshold() -> None:
    ids = torch.randint(3, 101, (6, 16), generator=generator(1)).tolist()
    shares = [sinks(lm("m", tiny("llama")), ids, eps=eps).first.mean() for eps in (0.0, 0.1, 0.2, 0.4, 1.0)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[-1] == 0


def blind(model: Any) -> Any:
    """Queries of zero: every head attends uniformly, alpha_1 = H_T / T = 0.211 at T = 16: at 0.2 all are sinks."""
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    return model


TEXTS = ["".join(chr(97 + (i * j) % 26) for j in range(20)) for i in range(1, 9)]


def test_headline_is_tuned_minus_base(tmp_path: Path) -> None:
    base, tuned = tiny("llama"), blind(tiny("llama"))
    found = attention_sink(run(tmp_path / "a", lm("B", base), lm("T", tuned), TEXTS), length=16, eps=0.2)
    before = sinks(lm("B", base), [Letters()(t, True)["input_ids"][:16] for t in TEXTS], eps=0.2).first.mean()
    assert 0 < before < 1 and found.value == pytest.approx(1 - before)
    parts = found.flat()
    assert parts["attention_sink_base"].value == pytest.approx(before) and parts["attention_sink_tuned"].value == 1
    assert found.interval is not None and found.interval[0] <= found.value <= found.interval[1]
    assert found.n_clusters == 8 and not any("left out" in w or "sum to" in w for w in found.warnings)
    assert [row["layer"] for row in found.table] == [0, 1] and found.table[0]["tuned"] == 1
    assert np.shape(found.figure["data"][1]["z"]) == (2, 4) and np.mean(found.figure["data"][0]["z"]) == before
    swapped = attention_sink(run(tmp_path / "b", lm("B", tuned), lm("T", base), TEXTS), length=16, eps=0.2)
    assert swapped.value == pytest.approx(before - 1)


def test_texts_are_prompts_with_the_tuned_answers(tmp_path: Path) -> None:
    model = lm("m", None)
    comparison = run(tmp_path, model, model, ["abc", "^abc", "a"], ["defg", "defg", "b"])
    ids, rejected = same_texts(comparison, 6, 10)
    want = Letters()("^abcdefg", False)["input_ids"][:6]
    assert ids == {"base": [want, want], "tuned": [want, want]} and rejected == 1  # a second BOS would be a bug
    assert len(same_texts(comparison, 6, 1)[0]["base"]) == 1


def test_says_why_it_cannot_measure(tmp_path: Path) -> None:
    model = lm("m", tiny("llama"))
    short = attention_sink(run(tmp_path / "a", model, model, [*TEXTS[:4], "abc"]), length=16)
    assert short.value is None and "at least 5 texts; there are 4" in short.sentence
    assert short.warnings == ("1 texts shorter than 16 tokens were left out",)
    alone = attention_sink(run(tmp_path / "b", None, model, TEXTS), length=16)
    assert alone.value is None and "without its models" in alone.sentence
    odd = lm("odd", torch.nn.Linear(2, 2))
    unknown = attention_sink(run(tmp_path / "c", odd, odd, TEXTS), length=16)
    assert unknown.value is None and "Linear" in unknown.sentence


def test_a_threshold_outside_0_to_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="eps"):
        attention_sink(run(tmp_path, None, None, TEXTS), eps=1.5)


def test_every_token_after_a_trigger_is_the_one_before_it() -> None:
    task = Backcopy.make()
    ids = task.sample(16, 48, generator(0))
    assert torch.equal(ids, task.sample(16, 48, generator(0))) and ids[:, 0].eq(0).all() and ids[:, 1:].ne(0).all()
    for row in ids.tolist():
        for t in range(2, 48):
            if 1 <= row[t - 1] <= 3:
                assert row[t] == row[t - 2]
    assert task.is_trigger(ids).float().mean() > 0.05


def test_relu_attention_by_hand() -> None:
    scores = torch.tensor([[2.0, -torch.inf], [-1.0, 3.0]])
    assert relu(scores).tolist() == [[2.0, 0.0], [0.0, 1.5]]
    logits, attention = OneHead(normalise=relu)(torch.zeros(2, 5, dtype=torch.long))
    assert logits.shape == (2, 5, 25) and attention.shape == (2, 1, 5, 5)
