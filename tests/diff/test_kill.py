"""Killed without warning at random moments and resumed, a run ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.diff.cases import PROMPTS, QA, TEXTS

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def _command(pair, folder, *more):
    files = {}
    for name, rows in (("prompts", PROMPTS * 6), ("qa", QA * 6), ("text", TEXTS * 12)):
        files[name] = folder.parent / f"{name}.jsonl"
        rows = [{**row, "id": f"{row['id']}-{i}"} for i, row in enumerate(rows)]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    sizes = ["--max-new-tokens", "24", "--batch-tokens", "100", "--samples", "4"]
    out = ["--records", str(folder / "run"), "-o", str(folder / "report.html"), "--json", str(folder / "out.json")]
    pair_ = [str(pair / "base"), str(pair / "tuned")]
    return [sys.executable, "-m", "plumbline.cli", "diff", *pair_, *given, *sizes, *out, "-q", *more]


def _results(folder):
    told = json.loads((folder / "out.json").read_text())
    for key in ("times", "command"):
        del told["meta"][key]
    return told, {f.name: f.read_bytes() for f in sorted((folder / "run").glob("*.parquet"))}


def _killed(pair, tmp_path, kills):
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    began = time.monotonic()
    subprocess.run(_command(pair, whole), check=True, env=ENVIRONMENT)
    seconds = time.monotonic() - began
    moments, landed = random.Random(0), 0
    while landed < kills:
        process = subprocess.Popen(_command(pair, part, "--resume"), env=ENVIRONMENT)
        try:
            process.wait(timeout=moments.uniform(0.3, 1.0) * seconds)
            (part / "out.json").unlink()  # it finished first: begin anew, so that every kill meets a running one
            (part / "run" / "run.json").unlink()
            for file in (part / "run").iterdir():
                file.unlink()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            landed += 1
    subprocess.run(_command(pair, part, "--resume"), check=True, env=ENVIRONMENT)
    assert _results(part) == _results(whole)
    assert not [f for f in part.rglob("*") if f.name.endswith(".tmp")]


def test_two_kills(pair, tmp_path):
    _killed(pair, tmp_path, 2)


@pytest.mark.slow
def test_twenty_kills(pair, tmp_path):
    _killed(pair, tmp_path, 20)
