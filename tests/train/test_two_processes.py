"""Two gloo processes on one machine: the same losses and weights as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_two_processes_are_one_process(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    for command in ([sys.executable], launch):
        subprocess.run([*command, str(SCRIPT), str(tmp_path)], env=env, check=True, timeout=300)
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert two["gathered"] == [0, 1, 10, 11, 12] and two["summed"] == 3  # unequal parts, in order of rank
    assert one["losses"] == pytest.approx(two["losses"], abs=1e-5) and one["losses"][0] != one["losses"][2]
    assert one["weights"] == pytest.approx(two["weights"], abs=1e-6)
