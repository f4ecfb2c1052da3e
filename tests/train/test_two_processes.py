"""Two gloo processes on one machine: the same losses and weights as one; a sharded model the same gradients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def launch(script, folder, processes):
    many = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={free_port()}"]
    command = [sys.executable, *(many if processes > 1 else []), str(HERE / script), str(folder)]
    subprocess.run(command, env=ENV, check=True, timeout=300)


def test_two_processes_are_one_process(tmp_path):
    for processes in (1, 2):
        launch("two_processes.py", tmp_path, processes)
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert two["gathered"] == [0, 1, 10, 11, 12] and two["summed"] == 3  # unequal parts, in order of rank
    assert one["losses"] == pytest.approx(two["losses"], abs=1e-5) and one["losses"][0] != one["losses"][2]
    assert one["weights"] == pytest.approx(two["weights"], abs=1e-6)


def test_a_model_sharded_by_fsdp_has_the_gradients_of_the_whole_one(tmp_path):
    launch("sharded.py", tmp_path, 2)
    for off, size in json.loads((tmp_path / "sharded.json").read_text()).values():
        assert off < 1e-5 * size
