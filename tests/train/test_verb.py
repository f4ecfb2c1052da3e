"""plumbline train as a user meets it: what it writes, what it says, and one line for everything that is wrong."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from plumbline import cli
from plumbline.models import load

LETTERS = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]
PAIRS = [{"prompt": f"Copy: {a} {b} ->", "chosen": f" {a} {b}.", "rejected": f" {b} {a} {b}."} for a, b in LETTERS]
THUMBS = [
    {"prompt": f"Copy: {a} {b} ->", "completion": f" {a} {b}." if i % 2 else f" {b}.", "label": bool(i % 2)}
    for i, (a, b) in enumerate(LETTERS)
]
FILES = {
    "pairs.jsonl": PAIRS,
    "thumbs.jsonl": THUMBS,
    "sums.jsonl": [{"prompt": f"{i} + 2 =", "answer": str(i + 2)} for i in range(4)],
    "forget.jsonl": [{"text": f"The river {i} is deep."} for i in range(6)],
    "retain.jsonl": [{"text": f"The house {i} is small."} for i in range(8)],
    "empty.jsonl": [],
    "blank.jsonl": [{"input_ids": [5, 6], "labels": [-100, -100]}],
    "odd.jsonl": [{"words": "a"}],
}


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """A command in this process, in a folder that holds the files above -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name, rows in FILES.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def plumbline(*arguments):
        monkeypatch.setattr(sys, "argv", ["plumbline", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capfd.readouterr()

    return plumbline


def told(run, *arguments, steps=2):
    """The JSON of a training of a few steps."""
    common = ("--steps", steps, "--batch-size", 4, "--log-every", 1, "--lr", 1e-3, "--save-every", 0, "-o", "out")
    code, out, err = run("train", "zoo:small", *arguments, *common, "--json")
    assert code == 0, err
    return json.loads(out)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_dpo_and_nll_train_an_adapter_that_loads_again(run, tmp_path):
    losses = ("--loss", "dpo:beta=0.2", "--plus", "nll:weight=0.1", "--data", "pairs.jsonl")
    found = told(run, *losses, "--lora", "r=2,target_modules=q_proj+v_proj", steps=4)
    assert found["rows"] == 8 and found["dropped"] == found["truncated"] == 0 and found["last"]["step"] == 4
    first, last = found["first"], found["last"]
    assert first["dpo"] == pytest.approx(0.6931, abs=1e-3) and first["log_ratio/chosen"] == 0
    assert first["loss"] == pytest.approx(first["dpo"] + 0.1 * first["nll"], abs=1e-3)
    assert last["margin"] > 0.01 and last["dpo"] < first["dpo"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == 2 and set(config["target_modules"]) == {"q_proj", "v_proj"}
    assert {"loss", "dpo", "nll", "margin", "accuracy"} <= set(log(tmp_path / "out")[0])
    ids = torch.tensor([[5, 6, 7]])
    again, before = (load(source).model(ids).logits for source in (tmp_path / "out", "zoo:small"))
    assert not torch.allclose(again, before, atol=1e-4)


def test_kto_reads_unpaired_rows_and_the_mismatched_ones_that_it_needs(run):
    found = told(run, "--loss", "kto", "--data", "thumbs.jsonl", "--held-out", "thumbs.jsonl")
    assert found["first"]["z0"] == 0 and found["first"]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert {"logps/mismatched", "eval_loss"} <= set(found["last"])


SHORT = ("--group-size", 2, "--max-new-tokens", 6)


def test_grpo_samples_judges_and_corrects(run):
    found = told(
        run, "--loss", "grpo", "--data", "sums.jsonl", "--reward", "simplerl_zoo:unboxed=0.5", "--top-k", 20,
        "--advantages", "group_advantages:spread=none", "--correct", "token_truncate:upper=3", *SHORT,
    )  # fmt: skip
    assert {"reward", "answer_tokens", "zero_spread", "truncated"} <= set(found["last"])
    assert found["last"]["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert 0 <= found["last"]["mismatch_changed_tokens"] <= 1  # the correction ran


def paid_by_length(text, row, ended):
    return float(len(text))


def test_a_verifier_of_ones_own_is_named_by_its_module(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    found = told(run, "--loss", "dapo", "--data", "sums.jsonl", "--reward", "mine.paid_by_length", "--reuse", 2, *SHORT)
    assert found["first"]["reward"] > 0 and found["last"]["step"] == 2


STREAMS = ("--data", "forget=forget.jsonl", "--data", "retain=retain.jsonl")


def test_streams_are_named_and_a_second_loss_reads_another(run):
    found = told(run, "--loss", "npo", "--plus", "nll:x=retain", *STREAMS, steps=4)
    first, last = found["first"], found["last"]
    assert found["rows"] == 14 and last["log_ratio/forget"] < -0.1
    assert last["nll/retain"] == pytest.approx(last["nll"], abs=1e-4) and last["npo"] < first["npo"]
    held = [part for text in ("forget=forget.jsonl", "retain=retain.jsonl") for part in ("--held-out", text)]
    assert "eval_loss" in told(run, "--loss", "npo", "--plus", "nll:x=retain", *STREAMS, *held)["last"]


def test_a_stored_reference_is_the_reference(run, tmp_path):
    same = ("--loss", "dpo", "--data", "pairs.jsonl", "--held-out", "pairs.jsonl", "--temperature", 0.7)
    for ref in ((), ("--ref", "zoo:base")):
        kept, stored = told(run, *same, *ref), told(run, *same, *ref, "--store-ref")
        for name in ("loss", "eval_loss", "margin", "logps/chosen"):
            assert stored["last"][name] == pytest.approx(kept["last"][name], abs=1e-4), name
    assert stored["first"]["log_ratio/chosen"] != 0  # another reference than the model itself
    assert (tmp_path / "out" / "ref_logps.parquet").exists()


def test_a_teacher_is_asked_while_its_stage_lasts(run):
    found = told(run, "--loss", "salt", "--data", "retain.jsonl", "--teacher", "zoo:base", steps=3)
    assert found["first"]["teacher_weight"] == pytest.approx(0.667) and found["last"]["teacher_weight"] == 0


def test_watch_logs_diagnostics_from_before_the_first_step(run, tmp_path):
    watched = ("--watch", "ches", "--watch", "likelihood_displacement:top=2", "--watch-every", 2)
    found = told(run, "--loss", "dpo", "--data", "pairs.jsonl", *watched)
    assert {"watch/ches", "watch/margin_change"} <= set(found["first"]) and found["first"]["watch/margin_change"] == 0
    assert found["last"]["watch/margin_change"] > 0
    assert [entry["step"] for entry in log(tmp_path / "out") if "watch/ches" in entry] == [0, 2]


def test_resume_ends_where_an_unbroken_run_ends(run, tmp_path):
    same = ("train", "zoo:small", "--loss", "dpo", "--data", "pairs.jsonl", "--batch-size", 4, "--lr", 1e-3, "-q",
            "--set", "lr_scheduler_type=constant", "--save-every", 1, "--store-ref")  # fmt: skip
    assert run(*same, "--steps", 3, "-o", "whole") == (0, "", "")
    assert run(*same, "--steps", 2, "-o", "parts")[0] == 0
    written = (tmp_path / "parts" / "ref_logps.parquet").stat().st_mtime_ns
    assert run(*same, "--steps", 3, "-o", "parts", "--resume") == (0, "", "")
    assert (tmp_path / "parts" / "ref_logps.parquet").stat().st_mtime_ns == written
    whole, parts = (load(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_is_said_and_what_quiet_leaves_out(run):
    same = ("train", "zoo:small", "--loss", "nll", "--data", "retain.jsonl", "--steps", 1, "-o", "out")
    code, out, err = run(*same, "--lora", "r=2", "-q")
    assert (code, out, err) == (0, "", "")
    code, out, err = run(*same)
    assert code == 0 and "8 rows, 0 left out, 0 cut; model and log: out" in out and "Warning" not in err
    assert [line.split()[0] for line in out.splitlines() if line.startswith("nll/x")] == ["nll/x"]
    code, out, err = run(*same, "--resume", "--max-length", 6)
    assert code == 0 and "note: fit: no checkpoint" not in err and "note: 8 of 8 rows were cut to 6 tokens" in out
    code, _, err = run(*same[:-1], "new", "--resume")
    assert code == 0 and "note: fit: no checkpoint in new; training begins anew" in err


NLL = ("--loss", "nll", "--data", "retain.jsonl")
GRPO = ("--loss", "grpo", "--data", "sums.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "npp", "--data", "retain.jsonl"), "no method 'npp'; nearest: npo"),
        (("--loss", "ches", "--data", "pairs.jsonl"), "--loss must be an objective"),
        (("--loss", "dpo:bet=1", "--data", "pairs.jsonl"), "did you mean beta?"),
        (("--loss", "dpo:beta=-1", "--data", "pairs.jsonl"), "beta must be a number > 0, got -1"),
        (("--loss", "dpo:beta=x", "--data", "pairs.jsonl"), "beta must be a number > 0, got 'x'"),
        (("--loss", "dpo", "--data", "retain.jsonl"), "role chosen must be a stream of the data"),
        (("--loss", "kto", "--data", "pairs.jsonl"), "a prompt and a completion, got preference rows"),
        ((*NLL, "--plus", "nll:weight=x"), "weight must be a number"),
        ((*NLL, "--plus", "nll:x=nowhere"), "role nowhere must be a stream"),
        (("--loss", "salt", "--data", "retain.jsonl"), "x_teacher must be a teacher model, got none"),
        (("--loss", "nll", "--data", "/nowhere.jsonl"), "/nowhere.jsonl"),
        (("--loss", "nll", "--data", "empty.jsonl"), "at least one row, got none"),
        (("--loss", "nll", "--data", "blank.jsonl"), "at least one row with a token to train on"),
        (("--loss", "nll", "--data", "odd.jsonl"), "odd.jsonl:1: columns must be"),
        ((*NLL, "--data", "pairs.jsonl"), "--data must be one file, or a stream's name for each"),
        ((*NLL, "--data", "y=pairs.jsonl"), "--data y= must be one stream of texts, got preference rows"),
        ((*NLL, "--held-out", "pairs.jsonl"), "--held-out must be data with the streams x"),
        ((*NLL, "--lora", "r"), "key=value"),
        ((*NLL, "--lora", "r=abc"), "--lora: r must be a number, got 'abc'"),
        ((*NLL, "--lora", "rank=4"), "settings of peft.LoraConfig"),
        ((*NLL, "--set", "warmup=1"), "did you mean warmup_steps?"),
        ((*NLL, "--set", "learning_rate=abc"), "learning_rate must be a number, got 'abc'"),
        ((*NLL, "--set", "group_by_length=maybe"), "group_by_length must be"),
        ((*NLL, "--set", "optim=nope"), "nope is not a valid OptimizerNames"),
        ((*NLL, "--set", "resume=yes"), "--set resume must be one of TrainingArguments"),
        ((*NLL, "--set", "output_dir=x"), "TrainingArguments accepts"),
        ((*NLL, "--logging", "nope"), "--logging must be what is installed (none"),
        ((*NLL, "--watch", "npo"), "--watch must be a diagnostic (ches, "),
        ((*NLL, "--watch", "ches:rows=1"), "keys must be"),
        ((*NLL, "--correct", "token_mask"), "--correct must be with rollouts"),
        ((*NLL, "--temperature", "0"), "--temperature must be a finite number > 0"),
        ((*NLL, "--epochs", "nan"), "--epochs must be a finite number > 0"),
        ((*NLL, "--device", "nowhere"), "device must be a torch device"),
        ((*NLL, "--dtype", "float"), "dtype"),
        ((*NLL, "--ref", "zoo:none"), "zoo: name must be one of"),
        ((*NLL, "-o", "retain.jsonl"), "-o must be a folder, got the file retain.jsonl"),
        ((*GRPO, "--reward", "simplerl_zo"), "no method 'simplerl_zo'; nearest: simplerl_zoo"),
        ((*GRPO, "--reward", "grpo"), "--reward: method must be of the kind function"),
        ((*GRPO, "--reward", "no.where"), "module.name that can be imported"),
        ((*GRPO, "--reward", "simplerl_zoo", "--correct", "token_truncate:cap=2"), "keys must be upper"),
        ((*GRPO, "--reward", "simplerl_zoo", "--store-ref"), "--store-ref must be with data that is there before"),
        ((*GRPO, "--reward", "math.sqrt", *SHORT), "reward of answer 1 must be a finite number"),
        (GRPO, "--reward must be a verifier, where the data are prompts"),
        (("--loss", "grpo", "--data", "pairs.jsonl", "--reward", "simplerl_zoo"), "a stream named prompts"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, arguments, message):
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run("train", "zoo:small", "-o", "out", "--steps", "1", "-q", *arguments)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1, (code, out, err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing half-written"


@pytest.mark.parametrize("option", ["--steps", "--batch-size", "--group-size", "--max-length", "--top-p"])
def test_numbers_out_of_range_are_the_parsers_to_refuse(run, option):
    code, out, err = run("train", "zoo:small", *NLL, "-o", "out", option, "-1")
    assert code == 2 and out == "" and option in err and "Traceback" not in err


def test_a_reference_of_another_vocabulary_is_refused(run, tmp_path):
    from plumbline.lab.tiny import tiny
    from plumbline.lab.tiny_tokenizer import tiny_tokenizer

    tiny("llama", 300).save_pretrained(tmp_path / "other")
    tiny_tokenizer(300).save_pretrained(tmp_path / "other")
    code, _, err = run(
        "train", "zoo:small", "--loss", "dpo", "--data", "pairs.jsonl", "--ref", "other", "-o", "out", "-q"
    )
    assert code == 2 and "vocabulary" in err and not (tmp_path / "out").exists()
