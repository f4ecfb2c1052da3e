"""Rollout mismatch: how far the engine that sampled is from the model that is trained on its samples."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from plumbline.core.declare import Count, Evidence, Positive, claim, probe
from plumbline.core.finding import Finding
from plumbline.lab.rollouts import engine, engine_rollouts, exact_kl
from plumbline.measure.shift.mismatch.parts import (
    answer_parts,
    heat_maps,
    histogram,
    known_faults,
    reading,
    token_parts,
    worst_tokens,
)
from plumbline.measure.shift.mismatch.rows import read
from plumbline.measure.shift.mismatch.scoring import trainer_logps
from plumbline.measure.shift.mismatch.sums import gather
from plumbline.measure.text import undefined
from plumbline.models.lm import LM

NEEDS = (
    "The engine's own log-probabilities of the very ids it drew, after temperature; with top-p, top-k or min-p also"
    " the kept ids of every token. Batch composition alone moves 5-8% of a bf16 model's tokens outside [0.9, 1.1]."
)
MINIMUM = 20


@probe(
    paper=None,
    says="How far an inference engine's probabilities are from those of the model that is trained on its samples.",
    differs=(
        "Standard diagnostics of rollout correction, as verl and TRL log them; intervals resample prompts here.",
        "Tokens without a finite number of the engine's are left out of every mean, and counted.",
    ),
    needs=("models",),
    gives=("rollout_k1", "rollout_abs", "rollout_largest", "rollout_outside", "rollout_mean_weight", "rollout_chi2",
           "rollout_ess", "rollout_ppl_ratio", "rollout_answer_chi2", "rollout_answer_ess", "rollout_rejected",
           "rollout_length_correlation"),
)  # fmt: skip
def rollout_mismatch(
    lm: LM, path: str | Path, *, batch_tokens: Count = 8192, worst: Count = 20, upper: Positive = 3.0,
    limit: Count | None = None, seed: int = 0, progress: Callable | None = None,
) -> Finding:  # fmt: skip
    r"""Re-score a file of rollouts and compare; the headline is k3, an estimate of the KL that is never negative.

    .. math:: l_t = \log\pi(y_t) - \log\mu(y_t),\quad k_3 = \overline{e^{l} - l - 1} \approx KL(\mu \Vert \pi)

    in nats a token, with :math:`\pi` the trainer's model and :math:`\mu` the engine; unbiased where the mean weight is
    1, which it is not for an engine that keeps a set of tokens (there k1 is the KL). Beside it: k1, the perplexity
    ratio, chi-square and effective sample size of tokens and of whole answers, the share of tokens outside
    [0.9, 1.1], the mean weight (1 unless the engine's numbers are of another distribution than it drew from), what a
    band on whole answers would reject and whether those are the long ones.

    Args:
        lm: the model that is trained. path: JSONL, see ``measure.shift.mismatch.rows.read``.
        batch_tokens: padded tokens a batch. worst: tokens shown. upper: answers outside [1/upper, upper] count as
            rejected. limit: only the first rows. seed: of the intervals.
        progress: called with the number of rows that were just scored.

    Returns:
        A Finding over tokens [N], clustered by prompt.

    Raises:
        InputError: a line that cannot be read, in one line with file and row.
    """
    rollouts, notes = read(path, lm, limit=limit)
    trainer = trainer_logps(lm, rollouts, batch_tokens=batch_tokens, progress=progress)
    found = gather(rollouts, trainer, worst=worst)
    if found.broken:
        notes.append(f"{found.broken} tokens have no finite log-probability under {lm.name} and are left out")
    if found.unknown:
        notes.append(f"the engine gave no number for {found.unknown} tokens; they are left out")
    if found.n < MINIMUM:
        return undefined("rollout_mismatch", "too few scored tokens", have=found.n, need=MINIMUM, what="tokens",
                         needs=NEEDS, warnings=tuple(notes))  # fmt: skip
    parts = (*token_parts(found, seed), *answer_parts(found, upper, seed))
    k3 = found.tokens.mean("k3", seed=seed)
    return Finding.of(
        "rollout_mismatch", k3, title="KL of engine to trainer (k3)", unit="nats per token", direction=-1,
        sentence=reading(Finding.of("k3", k3, sentence=""), parts, lm.name), needs=NEEDS, parts=parts,
        table=tuple(worst_tokens(found, rollouts, trainer, lm)), figure=histogram(found),
        texts=heat_maps(found, rollouts, trainer, lm), warnings=(*notes, *known_faults(found, parts)),
    )  # fmt: skip


@cache
def _example(items: int) -> tuple[LM, Path]:
    file = Path(tempfile.mkdtemp(prefix="plumbline-checks-")) / "rollouts.jsonl"
    engine_rollouts(lm := engine(), file, prompts=items, samples=1, temperature=0.8, told=1.0)
    return lm, file


@claim(
    rollout_mismatch,
    "k3 is the KL of engine to trainer, seen from the samples alone; an engine that keeps 8 tokens and does not say so"
    " is told by a mean weight below 1, and replaying its kept sets brings it to 0.",
    cost="cpu:8s",
)
def kl_and_support_are_seen() -> Evidence:
    lm = engine()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rollouts.jsonl"
        # drawn at temperature 0.8, said to be at 1: another distribution than the trainer scores
        ids = engine_rollouts(lm, file, temperature=0.8, told=1.0)
        warm = rollout_mismatch(lm, file)
        truth = exact_kl(lm, ids, 0.8)
        engine_rollouts(lm, file, top_k=8)
        cut = rollout_mismatch(lm, file).flat()
        engine_rollouts(lm, file, top_k=8, support=True)
        replayed = rollout_mismatch(lm, file).flat()
        engine_rollouts(lm, file)
        same = rollout_mismatch(lm, file)
    low, high = warm.interval or (0.0, 0.0)
    weight = cut["rollout_mean_weight"]
    measured = {
        "k3": warm.value,
        "interval": [low, high],
        "exact KL": truth,
        "k3 of itself": same.value,
        "mean weight, 8 tokens kept": weight.value,
        "sets replayed": replayed["rollout_mismatch"].value,
    }
    seen = low < truth < high and weight.interval is not None and weight.interval[1] < 0.98
    seen = seen and any("kept set" in w for w in cut["rollout_mismatch"].warnings)
    control = max(same.value or 0.0, replayed["rollout_mismatch"].value or 0.0) < 1e-6  # no mismatch, nothing found
    return Evidence(seen, measured, control)
