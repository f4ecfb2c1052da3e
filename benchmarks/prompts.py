"""``plumbline diff`` of two zoo models over 1,000 prompts, everything included: at most 180 s on 2 cores.

python benchmarks/prompts.py [--json] [--prompts 1000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from plumbline.worlds.corpus import evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prompts", type=int, default=1000)
    asked = parser.parse_args()
    rows = [row for row in evaluation() if "text" not in row]
    chosen = [{**row, "id": f"{i}", "choices": None} for i, row in enumerate(islice(cycle(rows), asked.prompts))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        began = time.perf_counter()
        command = ["diff", "zoo:base", "zoo:chat", "--prompts", str(file), "-o", f"{folder}/report.html", "-q"]
        subprocess.run([sys.executable, "-m", "plumbline.cli", *command], check=True)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figures = {"seconds": seconds, "prompts per second": asked.prompts / seconds, "peak MB": peak}
    targets = {"seconds": 180 * asked.prompts / 1000}
    if asked.json:
        told = {"name": "prompts", "figures": figures, "targets": targets, "holds": seconds <= targets["seconds"]}
        print(json.dumps(told))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:8.1f}" + (f"  (at most {targets[name]:.0f})" if name in targets else ""))


if __name__ == "__main__":
    main()
