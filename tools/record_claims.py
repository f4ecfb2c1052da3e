"""Run claims and write their evidence to results/claims/<method>.json: numbers, versions and machine kind.

python tools/record_claims.py [NAME...] [--max-cost 10m]      (make claims)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from plumbline.checks.claims import run, seconds
from plumbline.core.discover import catalogue, get
from plumbline.kernels.files import write_text

FOLDER = Path(__file__).resolve().parent.parent / "results" / "claims"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--max-cost", default="60s")
    asked = parser.parse_args()
    versions = {name: version(name) for name in ("plumbline", "torch", "transformers", "numpy", "scipy")}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, python {platform.python_version()}"
    for card in [get(name) for name in asked.names] or catalogue():
        rows = [r for r in run([card], max_seconds=seconds(asked.max_cost), tell=print) if "skipped" not in r]
        told = {"name": card.name, "claims": rows, "seed": 0, "versions": versions, "machine": machine}
        if rows:
            write_text(FOLDER / f"{card.name}.json", json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
