"""TARS: preferences learned on inputs whose least grounded tokens were disturbed, so that they cannot be leaned on."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.lab.spurious import accuracy_without_the_cue
from plumbline.objectives.preference._dpo import dpo
from plumbline.objectives.preference.perturb import perturb


@objective(
    paper=Paper(
        "TARS: MinMax Token-Adaptive Preference Strategy for Hallucination Reduction in MLLMs",
        "Zhang et al.",
        2025,
        arxiv="2507.21584",
    ),
    says="DPO on inputs with their least grounded tokens disturbed, with contrast of conditions and of spectra.",
    differs=(
        "The inner maximum is a random draw, as in the official code: perturb.perturbed_pair makes the batch.",
        "The spectral term takes every pair over its own answer; the official code takes the first pair of a batch, "
        "padding included.",
        "States are those that the head reads unless site names others; the official code takes the embeddings.",
        "Any worse condition will do for degraded (the context dropped, for text); the paper blurs the image.",
    ),
)
def tars(
    chosen: Scored, rejected: Scored, chosen_ref: Scored, rejected_ref: Scored, degraded: Scored | None = None,
    degraded_ref: Scored | None = None, clean_chosen_ref: Scored | None = None,
    clean_rejected_ref: Scored | None = None, *, beta: Positive = 0.1, lam: NonNegative = 0.1,
    margin: NonNegative = 0.5, site: object | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-pair TARS loss; each of its last two terms is there where its roles are.

    .. math:: \ell = -\log\sigma(\beta\Delta) - \log\sigma(\beta\Delta_{cond}) + \lambda\,\mathrm{relu}\bigl(
              \|\hat z_{\tilde w} - \hat z_w\|^2 - \|\hat z_{\tilde w} - \hat z_l\|^2 + margin\bigr)

    :math:`\Delta` is DPO's margin on the perturbed pair, :math:`\Delta_{cond}` the perturbed chosen answer's log-ratio
    to the reference less the same under the degraded condition, :math:`\hat z` the magnitudes of the Fourier
    transform of hidden states along the answer, and the norms are means over frequencies and channels. At rate 0
    without the last two terms this is DPO.

    Args:
        chosen, rejected, chosen_ref, rejected_ref: the trained model and the frozen reference on the same perturbed
            answers, perturbed tokens not scored, logps [B, T].
        degraded, degraded_ref: both on the perturbed chosen answers under a worse condition, logps [B, T'].
        clean_chosen_ref, clean_rejected_ref: the reference on the answers as they were; ``hidden(site)`` [B, T, D] of
            them and of ``chosen`` is read. Rows as long as their perturbed ones.
        beta: strength of the tie to the reference. lam: weight of the spectral term, which is not made at 0.
        margin: of the spectral term. site: a place of ``models.sites``, or None for the states that the head reads.

    Returns:
        [B] nats.

    Raises:
        InputError: one of two roles that belong together is missing, or a clean row is not as long as its perturbed.
    """
    pairs = {"degraded and degraded_ref": (degraded, degraded_ref)}
    pairs["clean_chosen_ref and clean_rejected_ref"] = (clean_chosen_ref, clean_rejected_ref)
    for names, roles in pairs.items():
        if (roles[0] is None) != (roles[1] is None):
            raise refuse("tars", names, "both given or both left out", "one of them", "add the other's stream or role")
    loss = dpo(chosen, rejected, chosen_ref, rejected_ref, beta=beta)
    if degraded is not None and degraded_ref is not None:
        gained = chosen.log_ratio(chosen_ref) - degraded.log_ratio(degraded_ref)
        loss = loss - F.logsigmoid(beta * gained)
    if lam > 0 and clean_chosen_ref is not None and clean_rejected_ref is not None:
        loss = loss + lam * _spectral(chosen, clean_chosen_ref, clean_rejected_ref, margin, site)
    return loss


def _spectral(perturbed: Scored, chosen: Scored, rejected: Scored, margin: float, site: object) -> Tensor:
    """The triplet term, [B]: every pair over the shorter of its two answers, from their first scored position."""
    if perturbed.mask.shape != chosen.mask.shape:
        got = [tuple(perturbed.mask.shape), tuple(chosen.mask.shape)]
        raise refuse("tars", "clean_chosen_ref", "as long as chosen", got, "collate the two streams alike")
    states = [perturbed.hidden(site), chosen.hidden(site).detach(), rejected.hidden(site).detach()]
    found = []
    for row in range(len(chosen.mask)):
        # where the perturbed answer lies, its clean copy says: the perturbed one is not scored everywhere
        answers = [s.mask[row].nonzero()[:, 0] for s in (chosen, chosen, rejected)]
        starts = [int(a[0]) if len(a) else 0 for a in answers]
        size = min(int(a[-1]) + 1 - start if len(a) else 0 for a, start in zip(answers, starts, strict=True))
        if size == 0:
            found.append(states[0][row].sum().float() * 0)
            continue
        z, near, far = (_magnitudes(h[row, s : s + size]) for h, s in zip(states, starts, strict=True))
        found.append(F.relu(F.mse_loss(z, near) - F.mse_loss(z, far) + margin))
    return torch.stack(found)


def _magnitudes(states: Tensor) -> Tensor:
    """Of the Fourier transform along positions, [n, D] -> [n, D], in float32 or wider."""
    return torch.fft.fft(states.to(torch.promote_types(states.dtype, torch.float32)), dim=0).abs()


@claim(
    tars,
    "Where chosen answers carry a token that their condition does not explain, disturbing such tokens teaches what "
    "DPO leaves unlearned.",
    cost="cpu:8s",
)
def leans_on_what_is_grounded() -> Evidence:
    settings: dict[str, dict[str, Any]] = {
        "TARS": {"rate": 0.05}, "DPO": {"rate": 0.0}, "perturbed anywhere": {"rate": 0.05, "informed": False},
    }  # fmt: skip
    run = partial(accuracy_without_the_cue, partial(tars, beta=1.0), perturb)
    means = {name: sum(run(seed=seed, **how) for seed in range(5)) / 5 for name, how in settings.items()}
    gained, blind = means["TARS"] - means["DPO"], means["perturbed anywhere"] - means["DPO"]
    return Evidence(gained > 0.03, means, control=blind < gained / 2)
