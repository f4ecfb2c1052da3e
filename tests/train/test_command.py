"""Text into methods, settings, streams and a Job: what the command line of training reads before it loads a model."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import TrainingArguments

from plumbline.core.declare import probe
from plumbline.core.errors import PlumblineError
from plumbline.core.scored import Scored
from plumbline.models import load
from plumbline.objectives.diagnose import ches
from plumbline.objectives.preference import dpo
from plumbline.objectives.rl import group_advantages, simplerl_zoo
from plumbline.objectives.sft import nll
from plumbline.train.command import Sampling, asked, gather, settings_in, spoken, spoken_loss
from plumbline.train.roles import Roles


@pytest.fixture(scope="module")
def small():
    return load("zoo:small", device="cpu")


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def options(**changed):
    """What typer hands over, its defaults where left out."""
    told = dict(
        model="zoo:small", loss="nll", data=["d.jsonl"], output=Path("out"), plus=None, held_out=None, lora=None,
        ref=None, store_ref=False, teacher=None, reward=None, advantages="group_advantages", correct=None, group_size=8,
        max_new_tokens=256, temperature=1.0, top_p=1.0, top_k=0, reuse=1, lr=1e-5, epochs=1.0, steps=None,
        batch_size=8, accumulate=1, max_length=None, last_turn=False, padding_free=False, watch=None, watch_every=10,
        log_every=10, save_every=500, logging="none", bf16=False, set_=None, seed=0, resume=False, device=None,
        dtype=None, allow_pickle=False, trust_remote_code=False, json_=False, quiet=False,
    )  # fmt: skip
    assert changed.keys() <= told.keys()
    return told | changed


def test_the_options_above_are_those_of_the_verb():
    from inspect import signature

    from plumbline.train.verb import train

    found = {name: p for name, p in signature(train).parameters.items() if name != "context"}
    assert found.keys() == options().keys()
    assert {name: p.default for name, p in found.items() if p.default is not p.empty}.items() <= options().items()


def roles(logps, ref):
    """Two streams of one row each, scored from tables."""
    views = {("chosen", ""): logps, ("rejected", ""): ref, ("chosen", "ref"): ref, ("rejected", "ref"): ref}
    ids = torch.tensor([[3, 4, 5]])
    batch = {
        s: {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)} for s in ("chosen", "rejected")
    }
    counts = {"chosen": (1.0, 2.0), "rejected": (1.0, 2.0)}
    return Roles(batch, lambda stream, view, _: Scored(torch.tensor([views[stream, view]])), counts)


def test_a_loss_is_read_with_its_settings_weight_and_streams():
    s = roles([-1.0, -2.0], [-2.0, -2.0])
    term = spoken_loss("dpo: beta=0.5 , weight=2e-1")
    assert (term.name, term.weight) == ("dpo", 0.2)
    views = [s.role(n) for n in ("chosen", "rejected", "chosen_ref", "rejected_ref")]
    assert term.run(s).item() == pytest.approx(dpo(*views, beta=0.5).item())
    assert term.run(s).item() == pytest.approx(-torch.nn.functional.logsigmoid(torch.tensor(0.5)).item())
    first, other = (spoken_loss(text).run(s).item() for text in ("nll", "nll:x=rejected"))
    assert (first, other) == (pytest.approx(1.5), pytest.approx(2.0))
    assert nll(views[1]).mean().item() == pytest.approx(other)


def test_functions_are_methods_or_ones_own(monkeypatch):
    assert spoken("--reward", "simplerl_zoo") is simplerl_zoo
    read = spoken("--reward", "simplerl_zoo:unboxed=0.5")
    assert isinstance(read, partial) and read.func is simplerl_zoo and read.keywords == {"unboxed": 0.5}
    assert spoken("--advantages", "group_advantages:spread=none").keywords == {"spread": None}
    assert spoken("--watch", "ches", probe.name) is ches
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    assert spoken("--reward", "mine.write") is write
    for text, told in (("mine.FOUR", "module.name"), ("mine.sys", "a function"), ("mine.write:a=1", "as it is")):
        with pytest.raises(PlumblineError, match=told):
            spoken("--reward", text)


def test_settings_are_read_as_their_fields_are_annotated():
    lora = settings_in(
        "--lora", "r=8, use_dora=yes,target_modules=q_proj+v_proj,bias=none,lora_dropout=0.1", LoraConfig
    )
    assert lora == {
        "r": 8,
        "use_dora": True,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "lora_dropout": 0.1,
    }
    assert settings_in("--lora", "target_modules=all-linear", LoraConfig) == {"target_modules": "all-linear"}
    assert settings_in("--lora", "layers_to_transform=0+1", LoraConfig) == {"layers_to_transform": [0, 1]}
    told = settings_in("--set", "warmup_steps=100,weight_decay=1e-2,tf32=none,optim=adamw_torch", TrainingArguments)
    assert told == {"warmup_steps": 100, "weight_decay": 0.01, "tf32": None, "optim": "adamw_torch"}
    assert settings_in("--set", "no_such=x", TrainingArguments) == {"no_such": "x"}  # fit refuses it, with the nearest
    for text, wanted in (("r=x", "a number"), ("use_dora=maybe", "yes or no")):
        with pytest.raises(PlumblineError, match=f"--lora: .* must be {wanted}"):
            settings_in("--lora", text, LoraConfig)


def test_a_job_is_read_without_a_model():
    job = asked(options(
        loss="kto", plus=["nll:weight=0.1"], lora="r=4", steps=7, max_length=32, ref="zoo:base", held_out=["h.jsonl"],
        set_=["warmup_steps=3", "optim=sgd"], watch=["ches:batch_tokens=64"],
    ))  # fmt: skip
    assert [(t.name, t.weight) for t in job.terms] == [("kto", 1.0), ("nll", 0.1)] and job.others == {"ref": "zoo:base"}
    assert job.reading == {"last_turn": False, "mismatched": True, "max_length": 32} and job.sampling is None
    wanted = {"max_steps": 7, "warmup_steps": 3, "optim": "sgd", "lora": {"r": 4}, "eval_steps": 10, "seed": 0}
    assert wanted.items() <= job.fitting.items() and job.how["dtype"] == "float32"
    watching = job.watching(rows={"chosen": [], "rejected": []})
    assert watching.every == 10 and watching.probes["ches"].keywords == {"batch_tokens": 64}
    plain = asked(options())
    assert plain.fitting["max_steps"] == -1 and "eval_strategy" not in plain.fitting and plain.watching is None
    assert "max_length" not in plain.reading and not plain.reading["mismatched"]


def test_rollouts_are_set_up_as_told(small):
    job = asked(options(loss="grpo", reward="simplerl_zoo", correct="token_truncate:upper=3", temperature=0.7, top_k=5,
                        group_size=3, max_new_tokens=9, reuse=2, seed=4))  # fmt: skip
    told = job.sampling.of(small, job.fitting)
    rollouts, engine = told["prepare"], told["prepare"].engine
    assert (rollouts.group_size, rollouts.reuse, rollouts.seed, rollouts.temperature) == (3, 2, 4, 0.7)
    assert (engine.max_new_tokens, engine.temperature, engine.top_k, engine.ends) == (9, 0.7, 5, small.ends)
    assert rollouts.reward is simplerl_zoo and rollouts.advantages is group_advantages
    assert told["derive"]["weights"].keywords == {"upper": 3.0}
    assert Sampling(simplerl_zoo, group_advantages).of(small, job.fitting)["derive"] == {}


def test_files_become_streams(small, tmp_path):
    text, other = (write(tmp_path / f"{n}.jsonl", *[{"text": f"{n} {i}"} for i in range(3)]) for n in ("a", "b"))
    assert set(gather("--data", [text], small, {})) == {"x"}
    rows = gather("--data", [f"forget={text}", f"retain={other}"], small, {"max_length": 3})
    assert {name: len(part) for name, part in rows.items()} == {"forget": 3, "retain": 3}
    assert rows.count == 6 and rows.truncated == 6 and len(rows.notes) == 2
    assert rows["retain"][0]["input_ids"] == small.tokenizer("b 0").input_ids[:3]
    pairs = write(tmp_path / "p.jsonl", {"prompt": "a", "chosen": " b", "rejected": " c"})
    both = gather("--data", [pairs, f"retain={text}"], small, {})
    assert set(both) == {"chosen", "rejected", "retain"}
    for sources, message in (([], "--data must be a file"), ([text, other], "a stream's name for each"),
                             ([f"x={pairs}"], "one stream of texts")):  # fmt: skip
        with pytest.raises(PlumblineError, match=message):
            gather("--data", sources, small, {})
