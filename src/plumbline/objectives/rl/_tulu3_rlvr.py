"""Tulu 3's RLVR: a fixed reward for an answer that a verifier accepts, and a fine for one that never ends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from plumbline.core.declare import Evidence, Paper, Positive, claim, function
from plumbline.core.errors import refuse
from plumbline.lab.answering import Answering, Style
from plumbline.objectives.rl.constraints import ifeval
from plumbline.objectives.rl.verifiers import f1, gsm8k, mathematics, string_match

VERIFIERS = {"gsm8k": gsm8k, "math": mathematics, "ifeval": ifeval, "string_match": string_match, "f1": f1}

# the three stages for 8B parameters, and in _70B what differs there; alpha and ppo_epochs are from memory
RECIPE: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-6, "batch_size": 128, "epochs": 2, "warmup_ratio": 0.03, "schedule": "linear",
            "max_length": 4096, "reduction": "sum over tokens"},
    "dpo": {"beta": 5.0, "length_normalised": True, "learning_rate": 5e-7, "batch_size": 128, "epochs": 1,
            "warmup_ratio": 0.1, "max_length": 2048},
    "rlvr": {"alpha": 10.0, "no_end": -10.0, "learning_rate": 3e-7, "kl": 0.05, "temperature": 1.0, "clip": 0.2,
             "gamma": 1.0, "gae_lambda": 0.95, "ppo_epochs": 4, "max_new_tokens": 2048, "batch_size": 224},
}  # fmt: skip
RECIPE_70B: dict[str, dict[str, Any]] = {"sft": {"learning_rate": 2e-6}, "dpo": {"learning_rate": 2e-7},
                                         "rlvr": {"learning_rate": 1e-7, "kl": 0.07, "batch_size": 640}}  # fmt: skip


@function(
    paper=Paper("TÜLU 3: Pushing Frontiers in Open Language Model Post-Training", "Lambert et al.", 2024,
                arxiv="2411.15124"),
    says="Pay a constant for a verified answer, nothing for a wrong one, and fine the answer that does not end.",
    differs=(
        "gsm8k keeps the minus of whole numbers, which the official pattern drops, and compares exact values.",
        "math compares exact numbers, lists and normalised LaTeX in place of two equivalence tests.",
        "ifeval has 24 of the 25 checks: the one of language needs a detector.",
        "string_match takes a text without answer tags as a whole; the official one scores it 0.",
    ),
)  # fmt: skip
def tulu3_rlvr(
    text: str, row: Mapping[str, Any], ended: bool, *, alpha: Positive = 10.0, no_end: float | None = -10.0,
    verifiers: Mapping = VERIFIERS,
) -> float:  # fmt: skip
    r"""The reward of one answer, a scalar.

    .. math:: R = \alpha\, v(\text{text}, \text{label}) \ \text{ if it ended, else } no\_end,\qquad v \in [0, 1]

    The KL to the reference is the loss's. ``RECIPE`` holds the settings of the three stages, ``RECIPE_70B`` what
    differs for the larger model.

    Args:
        text: the model's. row: ``row["answer"]`` is the label, ``row["dataset"]`` the verifier's name.
        ended: whether the text stopped by itself.
        alpha: 10 (from memory). no_end: -10; None verifies a cut text like any other.
        verifiers: name -> ``(text, label) -> score in [0, 1]``.

    Raises:
        InputError: a row that names no verifier.
    """
    if not ended and no_end is not None:
        return no_end
    name = row.get("dataset")
    if name not in verifiers:
        do = "give every row the name of its verifier, or pass verifiers={name: function}"
        raise refuse("tulu3_rlvr", 'row["dataset"]', f"one of {', '.join(map(str, verifiers))}", name, do)
    return alpha * float(verifiers[name](text, row["answer"]))


@claim(
    tulu3_rlvr,
    "It raises verified accuracy at a KL of a nat or two, teaches the answer to end, and a larger beta buys a smaller"
    " KL with accuracy.",
    cost="cpu:10s",
)
def accuracy_at_a_small_kl() -> Evidence:
    styles = (Style("The answer is {}."), Style("The answer is {}. Or is it", ended=False))
    task = Answering.arithmetic(styles, (0.45, 0.55), (0.35, 0.35), dataset="gsm8k")
    before, found = task.measured(task), {}
    for beta in (0.01, 0.05, 0.5):
        found[beta] = task.reinforced(tulu3_rlvr, steps=200, lr=0.1, kl=beta).path[-1]
    free = task.reinforced(partial(tulu3_rlvr, no_end=None), steps=200, lr=0.1, kl=0.05).path[-1]
    gain, ordered = found[0.05]["accuracy"] - before["accuracy"], list(found.values())
    holds = gain > 0.3 and found[0.05]["kl"] < 2 and found[0.05]["style"] > 0.98
    holds = holds and all(a["kl"] > b["kl"] and a["accuracy"] > b["accuracy"] for a, b in zip(ordered, ordered[1:]))
    measured = {f"{k} at beta {beta}": told[k] for beta, told in found.items() for k in ("accuracy", "kl")}
    measured |= {"accuracy before": before["accuracy"], "ended at 0.05": found[0.05]["style"]}
    measured |= {"ended without the fine": free["style"]}
    return Evidence(holds, measured, control=free["style"] < 0.9)
