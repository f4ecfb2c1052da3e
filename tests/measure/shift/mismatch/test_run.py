"""From a model's name and a file to findings, JSON, a console and an HTML page."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from plumbline.core.errors import InputError, LoadError
from plumbline.core.finding import Finding
from plumbline.diff.report import render
from plumbline.lab.rollouts import engine, engine_rollouts
from plumbline.measure.shift.mismatch.run import mismatch, show, write_json


@pytest.fixture(scope="module")
def lm():
    return engine()


@pytest.fixture(scope="module")
def found(lm, tmp_path_factory):
    file = tmp_path_factory.mktemp("mismatch") / "r.jsonl"
    engine_rollouts(lm, file, temperature=0.8, told=1.0)
    done = []
    findings = mismatch(lm, file, batch_tokens=300, progress=done.append)
    assert sum(done) == 60
    return findings


def test_a_saved_model_gives_the_same(lm, found, tmp_path):
    lm.model.save_pretrained(tmp_path / "m")
    lm.tokenizer.save_pretrained(tmp_path / "m")
    engine_rollouts(lm, tmp_path / "r.jsonl", temperature=0.8, told=1.0)
    (again,) = mismatch(str(tmp_path / "m"), tmp_path / "r.jsonl", device="cpu")
    assert again.value == pytest.approx(found[0].value, rel=1e-4)


def test_json_holds_every_number(found, tmp_path):
    write_json(found, tmp_path / "f.json")
    told = json.loads((tmp_path / "f.json").read_text())["findings"]
    again = Finding.from_json(told[0]).flat()
    assert again["rollout_k1"].value == found[0].flat()["rollout_k1"].value and len(again) == len(found[0].flat())


def test_the_console_says_numbers_warnings_and_worst_tokens(lm, found, tmp_path):
    console = Console(record=True, width=140)
    show(found, console=console)
    text = console.export_text()
    assert "nats a token" in text and "Effective sample, answers" in text and "worst tokens" in text and "⟦" in text
    engine_rollouts(lm, tmp_path / "r.jsonl", top_k=8)
    show(mismatch(lm, tmp_path / "r.jsonl"), console=console)
    assert "warning: almost no ratio is above 1" in console.export_text()


def test_the_page_of_diff_renders_it(found, tmp_path):
    render(found, {"base": "engine", "tuned": "tiny"}, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "KL of engine to trainer (k3)" in page and "log ratio" in page


def test_user_errors_are_one_line(lm, tmp_path):
    with pytest.raises(InputError, match="a readable JSONL file"):
        mismatch(lm, tmp_path / "none.jsonl")
    with pytest.raises(LoadError):
        mismatch(str(tmp_path / "no-model"), tmp_path / "none.jsonl")
