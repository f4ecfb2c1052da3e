"""The command line as a user meets it: one line per error, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from plumbline import cli


def plumbline(monkeypatch, capsys, *arguments):
    """(exit code, stdout, stderr) of one command in this process."""
    monkeypatch.setattr(sys, "argv", ["plumbline", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *arguments: plumbline(monkeypatch, capsys, *arguments)


def test_list_show_cite_find(run):
    code, out, _ = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and rows["npo"]["paper"]["arxiv"] == "2404.05868" and rows["npo"]["claims"][0]["cost"] == "cpu:2s"
    assert set(rows["npo"]) >= {"name", "room", "kind", "paper", "says", "differs", "claims"}
    code, out, _ = run("list", "--room", "measure")
    assert code == 0 and "token_shift" in out and "npo" not in out
    code, out, _ = run("show", "npo")
    assert code == 0 and "beta: a number > 0, default 0.1" in out and "Negative Preference" in out
    code, out, _ = run("cite", "npo", "npo", "divergence")
    assert code == 0 and out.count("@article{zhang2024negative") == 1
    code, out, _ = run("find", "make", "a", "model", "forget", "some", "training", "data", "--json")
    assert code == 0 and json.loads(out)[0]["name"] == "npo"
    code, out, _ = run("find", "how", "calibrated", "is", "it")
    assert code == 0 and "calibration" in out.splitlines()[1]


def test_claim(run):
    code, out, _ = run("claim", "npo", "--json")
    (row,) = json.loads(out)
    assert code == 0 and row["holds"] and row["control"] and row["measured"]["ascent"] > 3 and row["seconds"] > 0
    code, _, err = run("claim")
    assert code == 2 and "one of NAME, --room or --all" in err


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["show", "nqo"], "no method 'nqo'; nearest: npo"),
        (["list", "--room", "nowhere"], "no room 'nowhere'"),
        (["diff", "/nowhere/a", "/nowhere/b"], "/nowhere/a"),
        (["diff", "zoo:base", "zoo:none"], "zoo"),
        (["diff", "zoo:base", "zoo:chat", "--fail-on", "negative_flip > 1"], "did you mean negative_flips"),
        (["diff", "zoo:base", "zoo:chat", "--template", "x"], "template must be tuned, base or plain"),
        (["diff", "zoo:base", "zoo:chat", "-o", "/nowhere/report.html"], "output"),
        (["diff", "zoo:base", "zoo:chat", "--probes", "npo"], "probes"),
    ],
)
def test_errors_are_one_line_and_exit_2(run, arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and told in err and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize(
    "content, told",
    [
        (b'{"prompt": "a"}\n{"prompt": \n', "p.jsonl:2"),
        (b"", "empty file"),
        (b'{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', "unique"),
        (b'{"prompt": "\xff"}\n', "UTF-8"),
    ],
)
def test_bad_prompt_files(run, tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_bytes(content)
    code, _, err = run("diff", "zoo:base", "zoo:chat", "--prompts", tmp_path / "p.jsonl")
    assert code == 2 and told in err and err.count("\n") == 1 and len(list(tmp_path.iterdir())) == 1


def test_diff_writes_report_json_records_and_gates(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ['{"prompt": "Two and two make", "answer": "four"}\n', '{"prompt": "Copy: a b ->", "answer": "a b"}\n']
    (tmp_path / "p.jsonl").write_text("".join(lines * 6))
    common = ["diff", "zoo:base", "zoo:chat", "--prompts", "p.jsonl", "--max-new-tokens", "8", "-q"]
    code, _, err = run(*common, "--json", "out.json", "--fail-on", "negative_flips > 1")
    assert code == 0, err
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.run" / "tokens.parquet").exists()
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["meta"]["command"].startswith("plumbline diff zoo:base") and told["findings"]
    code, _, err = run(*common, "--resume", "--fail-on", "divergence >= 0")
    assert code == 3 and "failed on divergence >= 0" in err


def test_help_is_fast_and_every_verb_has_one(run):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "plumbline.cli", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - began < 1.5 * 4, "four times the promise: test machines are loaded"
    for verb in ("list", "show", "claim", "cite", "find", "diff"):
        assert run(verb, "--help")[0] == 0


@pytest.mark.parametrize(
    "arguments", [["diff", "a", "b", "--nope"], ["diff", "a"], ["diff", "a", "b", "--seed", "x"], ["no"]]
)
def test_usage_errors_exit_2_in_the_parsers_own_words(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2 and "unexpected" not in err and "Traceback" not in err and err


def test_unexpected_errors_are_one_line_too(run, monkeypatch):
    from plumbline.core import discover

    def broken(*_, **__):
        raise RuntimeError("boom\nboom")

    monkeypatch.setattr(discover, "catalogue", broken)
    code, _, err = run("list")
    assert code == 1 and "unexpected RuntimeError: boom boom" in err and err.count("\n") == 1
