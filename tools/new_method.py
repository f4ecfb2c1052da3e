"""Start a method: write its file and its test, neither of which passes until the method, claim and test are written.

python tools/new_method.py name=npo room=objectives/unlearn [kind=objective]      (make new name=npo room=...)
"""

from __future__ import annotations

import keyword
import re
import sys
import tomllib
from pathlib import Path
from string import Template

# kind -> what its file imports, its signature, what comes back, the rooms that mean it when kind= is left out
KINDS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "objective": (
        "from torch import Tensor\n\nfrom plumbline.core.declare import Evidence, Paper, Positive, claim, objective\n"
        "from plumbline.core.errors import refuse\nfrom plumbline.core.scored import Scored",
        "x: Scored, x_ref: Scored, *, beta: Positive = 0.1) -> Tensor",
        "[B] losses in nats",
        ("objectives",),
    ),
    "probe": (
        "from plumbline.core.declare import Count, Evidence, Paper, claim, probe\n"
        "from plumbline.core.errors import refuse\nfrom plumbline.core.finding import Finding\n"
        "from plumbline.kernels.records import Records",
        "comparison: Records, *, resamples: Count = 2000, seed: int = 0) -> Finding",
        "one number with its interval, unit and a sentence a person can act on",
        ("measure",),
    ),
    "logit_rule": (
        "from collections.abc import Callable\n\nfrom torch import Tensor\n\n"
        "from plumbline.core.declare import Evidence, NonNegative, Paper, claim, logit_rule\n"
        "from plumbline.core.errors import refuse",
        "*, strength: NonNegative = 1.0) -> Callable[[Tensor, Tensor], Tensor]",
        "a rule (tokens [B, T], logits [B, V]) -> logits [B, V]",
        ("decode",),
    ),
    "sampler": (
        "from typing import Any\n\nfrom torch import Tensor\n\n"
        "from plumbline.core.declare import Evidence, Paper, claim, sampler\nfrom plumbline.core.errors import refuse",
        "model: Any, input_ids: Tensor, **kwargs: Any) -> Tensor",
        "token ids [B, L + new]",
        (),
    ),
    "selector": (
        "import numpy as np\n\nfrom plumbline.core.declare import Evidence, Paper, claim, selector\n"
        "from plumbline.core.errors import refuse\nfrom plumbline.decode.samples import Samples, Selection\n"
        "from plumbline.decode.search.votes import elect",
        "samples: Samples) -> Selection",
        "the chosen sample with its answer, and each answer's share [a] of the votes",
        (),
    ),
    "edit": (
        "from collections.abc import Callable\n\nfrom torch import Tensor\n\n"
        "from plumbline.core.declare import Evidence, Paper, claim, edit\nfrom plumbline.core.errors import refuse",
        "*, scale: float = 1.0) -> Callable[[Tensor], Tensor]",
        "an edit x [B, T, D] -> [B, T, D]",
        ("steer",),
    ),
    "weight_rule": (
        "from torch import Tensor\n\nfrom plumbline.core.declare import Evidence, Paper, claim, weight_rule\n"
        "from plumbline.core.errors import refuse",
        "base: Tensor, tuned: list[Tensor], *, scale: float = 1.0) -> Tensor",
        "the merged tensor, shaped [S] as base",
        ("weights",),
    ),
    "function": (
        "from torch import Tensor\n\nfrom plumbline.core.declare import Evidence, Paper, claim, function\n"
        "from plumbline.core.errors import refuse",
        "values: Tensor) -> Tensor",
        "the result with its shape",
        (),
    ),
}

METHOD = Template('''"""$name: one line on what it is."""

from __future__ import annotations

$imports


@$kind(
    paper=Paper("The exact title of the paper", "Surname et al.", 2000, arxiv=""),
    says="One sentence that says what $name does.",
    differs=("Each departure from the paper, and why.",),$needs
)
def $name($signature:
    r"""What it computes.

    .. math:: the equation, in the variable names of the code

    Args:
        each argument: its meaning, shape and unit.

    Returns:
        $returns.
    """
    raise refuse("$name", "method", "written", "a draft", "write it here")


@claim($name, "The paper's finding in one sentence.", cost="cpu:2s")
def the_finding() -> Evidence:
    # holds: the finding is seen; control: the baseline, the ablated method or the wrong sign FAILED as it must
    measured = {"$name": float("nan"), "control": float("nan")}
    return Evidence(holds=False, measured=measured, control=False)
''')

TEST = Template('''"""$name: a value from an independent source, the limits, one refusal."""

from __future__ import annotations

import pytest

from plumbline.$package import $name


def test_value_by_hand() -> None:
    wanted = "one value by hand, or from a slow loop written from the equation"
    pytest.fail(f"{$name.__name__}: {wanted}")


def test_limits() -> None:
    pytest.fail("say what happens as each hyper-parameter reaches its bound")


def test_refuses_a_wrong_shape() -> None:
    pytest.fail("give it what it cannot take; the error names method, argument, expectation, value and remedy")
''')

ROOM = '''"""$says"""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
'''


class Refused(Exception):
    """Something the caller can mend, in one line."""


def rooms(root: Path) -> list[str]:
    """The top-level rooms of methods, read from the import contract."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(c for c in contracts if c["id"] == "floors")
    rooms = max(floors["layers"], key=lambda layer: layer.count("|"))  # the one floor with many rooms side by side
    return sorted(re.findall(r"\w+", rooms))


def options(arguments: list[str]) -> dict[str, str]:
    given = {"name": "", "room": "", "kind": "", "root": str(Path(__file__).resolve().parent.parent)}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in given:
            raise Refused(f"cannot read {argument!r}; write name=npo room=objectives/unlearn [kind=objective]")
        given[key] = value.strip().strip("/") if key == "room" else value.strip()
    for key, example in (("name", "npo"), ("room", "objectives/unlearn")):
        if not given[key]:
            raise Refused(
                f"{key}= is missing; for instance: make new name=npo room=objectives/unlearn ({key}={example})"
            )
    return given


def check(name: str, room: str, kind: str, root: Path) -> str:
    """The kind to write, once name, room and kind are known to be good."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Refused(f"name {name!r} must be the paper's own in lower case letters, digits and underscores")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Refused(f"name {name!r} is a Python keyword; take the paper's next best name")
    top = room.split("/")[0]
    if top not in rooms(root) or not re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?", room):
        raise Refused(f"no room {room!r}; rooms: {', '.join(rooms(root))}, each with families such as {top}/family")
    kind = kind or next((k for k, (*_, of) in KINDS.items() if top in of), "function")
    if kind not in KINDS:
        raise Refused(f"no kind {kind!r}; kinds: {', '.join(KINDS)}")
    for taken in sorted((root / "src/plumbline").rglob(f"_{name}.py")):
        raise Refused(f"{name} already exists: {taken.relative_to(root)}; names are unique in the library")
    return kind


def write(root: Path, file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as out:
        out.write(text)
    print(f"wrote {file.relative_to(root)}")


def start(name: str, room: str, kind: str, root: Path) -> None:
    imports, signature, returns, _ = KINDS[kind]
    parts = room.split("/")
    test = root / "tests" / room / f"test_{name}.py"
    if test.exists():
        raise Refused(f"{test.relative_to(root)} already exists; move it away first")
    for depth in range(1, len(parts) + 1):
        init = root / "src/plumbline" / "/".join(parts[:depth]) / "__init__.py"
        if not init.exists():
            write(root, init, ROOM.replace("$says", f"Methods of {'/'.join(parts[:depth])}."))
    values = {"name": name, "kind": kind, "imports": imports, "signature": signature, "returns": returns}
    values["needs"] = '\n    needs=("tokens",),' if kind == "probe" else ""
    write(root, root / "src/plumbline" / room / f"_{name}.py", METHOD.substitute(values))
    write(root, test, TEST.substitute(name=name, package=".".join(parts)))
    print(
        f"Next: paper, says, differs, equation, code, claim; then the test. Both fail until then. plumbline show {name}"
    )


def main(arguments: list[str]) -> int:
    try:
        given = options(arguments)
        root = Path(given["root"])
        start(given["name"], given["room"], check(given["name"], given["room"], given["kind"], root), root)
    except Refused as error:
        print(f"new method: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
