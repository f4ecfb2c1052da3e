"""Ratios of the trainer's probabilities to the engine's for the tokens of a rollout: levels, bands, what to log.

Two different ratios meet in a policy loss. Staleness, pi / pi_old, is clipped and carries the gradient. Engine
mismatch, w = pi_old / mu with mu the engine that drew the tokens, is a constant that multiplies the policy term alone
(not a KL term). This file is about the second; nothing here carries a gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from scipy.stats import spearmanr
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import everywhere, total

CLAMP = 20.0  # of a log-ratio before exp, as in verl: e^20 = 4.9e8 is finite in every dtype's square
ROWS_TO_WARN, CORRELATION = 32, 0.5  # a rank correlation of fewer rows is noise
Level = Callable[[Tensor, Tensor], Tensor]


def token(log_ratio: Tensor, mask: Tensor) -> Tensor:
    r"""Every token by itself: :math:`l_t`, [B,T] -> [B,T]."""
    return log_ratio


def sequence(log_ratio: Tensor, mask: Tensor) -> Tensor:
    r"""The whole answer: :math:`\sum_t l_t`, [B,T] -> [B,1]. Unbiased, and wider the longer the answer is."""
    return log_ratio.sum(-1, keepdim=True)


def geometric(log_ratio: Tensor, mask: Tensor) -> Tensor:
    r"""The answer's geometric mean: :math:`\frac{1}{|y|}\sum_t l_t`, [B,T] -> [B,1]."""
    return log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def log_ratios(method: str, x_old: Scored, x_sampler: Scored) -> Tensor:
    r""":math:`l_t = \log\pi_{old}(y_t) - \log\mu(y_t)`, [B,T] detached; 0 where masked.

    Where the engine gave no finite number l is 0 (weight 1), and the share of such tokens is noted.

    Raises:
        InputError: no engine log-probabilities, or of another shape.
    """
    if not isinstance(x_sampler, Scored):
        do = "keep the engine's log-probabilities in the column sampler_logps; 1 must not be assumed"
        raise refuse(method, "x_sampler", "the engine's log-probabilities", x_sampler, do)
    if x_old.logps.shape != x_sampler.logps.shape:
        raise refuse(method, "x_sampler", f"of shape {tuple(x_old.logps.shape)}", tuple(x_sampler.logps.shape),
                     "score the same tokens on both sides")  # fmt: skip
    engine = x_sampler.logps.detach()
    known = engine.isfinite()
    note(mismatch_unknown=_share(~known & x_old.mask, x_old.mask))
    return torch.where(x_old.mask & known, x_old.logps.detach() - engine, 0.0)


def band(method: str, lower: float | None, upper: float | None) -> tuple[float, float]:
    """The band with its open sides closed: 0 for no lower bound, infinity for no upper one.

    Raises:
        InputError: both open, or in the wrong order.
    """
    low, high = lower or 0.0, math.inf if upper is None else upper
    if (low == 0.0 and math.isinf(high)) or low >= high:
        do = "pass upper=2.0; without any correction, pass no weights"
        raise refuse(method, "lower, upper", "a band with lower < upper, one of them set", (lower, upper), do)
    return low, high


def weigh(
    method: str, x_old: Scored, x_sampler: Scored, level: Level, change: Callable[[Tensor], Tensor], *,
    veto: float | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    r"""``change`` of the ratios :math:`W = e^{level(l)}`, of the level's shape, detached; 0 where nothing is scored.

    Args:
        change: raw ratios -> weights. What it changes is counted.
        veto: a row with any token of :math:`e^{l_t}` below this weighs 0.
        normalised: divide by the mean weight over the tokens (rows) of all processes, the zeros among them: the
            self-normalised estimate. A mean of this batch: it means less the smaller the batch is.
    """
    log_ratio, mask = log_ratios(method, x_old, x_sampler), x_old.mask
    raw = level(log_ratio, mask).clamp(-CLAMP, CLAMP).exp()
    valid = mask if raw.shape == mask.shape else mask.any(-1, keepdim=True)
    weights = change(raw)
    if veto is not None:
        weights = torch.where((log_ratio < math.log(veto)).any(-1, keepdim=True), 0.0, weights)
    weights = torch.where(valid, weights, 0.0)
    changed = ((weights != raw) & valid).expand_as(mask)
    rows = (changed & mask).any(-1)
    note(mismatch_changed_tokens=_share(changed & mask, mask), mismatch_changed_rows=rows.float().mean())
    note_raw(log_ratio, mask)
    if level is not token:  # by token a long answer is bounded somewhere sooner than a short one, and rightly so
        warn_of_length(method, rows, x_old.lengths())
    if normalised:
        mean = total(weights.double().sum()) / total(valid.sum()).clamp(min=1)
        weights = torch.where(mean > 0, weights / mean, 0.0).to(raw.dtype)
    return weights


def note_raw(log_ratio: Tensor, mask: Tensor) -> None:
    r"""Note what the raw ratios say, before any bound, of this process's tokens and rows.

    .. math:: k_1 = -\bar l,\quad k_3 = \overline{e^l - l - 1},\quad \chi^2 = \overline{W^2} - 1,\quad
              ESS = 1 / \overline{(W / \bar W)^2}

    both KL's of :math:`\mu` to :math:`\pi_{old}` in nats a token, the effective sample size as a share of the sample,
    :math:`e^{k_1}` the ratio of the perplexities, and the share of tokens outside [0.9, 1.1]: numerics alone can put
    5-8% there in bf16. Chi-square and effective size of whole answers come beside those of tokens.
    """
    gap = log_ratio[mask].double()
    if not len(gap):
        return
    w = gap.clamp(-CLAMP, CLAMP).exp()
    rows = sequence(log_ratio, mask)[mask.any(-1), 0].double().clamp(-CLAMP, CLAMP).exp()
    note(
        mismatch_abs=gap.abs().mean(), mismatch_max=gap.abs().max(), mismatch_k1=-gap.mean(),
        mismatch_k3=(torch.expm1(gap.clamp(-CLAMP, CLAMP)) - gap).mean(), mismatch_ppl_ratio=(-gap.mean()).exp(),
        mismatch_chi2=w.square().mean() - 1, mismatch_ess=_effective(w), mismatch_chi2_rows=rows.square().mean() - 1,
        mismatch_ess_rows=_effective(rows), mismatch_outside=((w < 0.9) | (w > 1.1)).double().mean(),
    )  # fmt: skip


def warn_of_length(method: str, changed: Tensor, lengths: Tensor) -> None:
    """Warn where the rows that were changed are the long (or the short) ones: ``changed`` [B] bool, ``lengths`` [B].

    A fixed band on a sum of log-ratios turns away long answers first, which trains brevity.
    """
    hit, length = everywhere(changed).cpu().numpy(), everywhere(lengths).cpu().numpy()
    if len(hit) < ROWS_TO_WARN or hit.all() or not hit.any() or (length == length[0]).all():
        return
    rho = float(spearmanr(hit, length).statistic)
    note(mismatch_length_correlation=rho)
    if abs(rho) > CORRELATION:
        told = "long" if rho > 0 else "short"
        warnings.warn(f"{method}: the {told} answers are the ones it changes (Spearman {rho:.2f} with length); "
                      "use a token or geometric level, or a wider band", stacklevel=3)  # fmt: skip


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.sum() / whole.sum().clamp(min=1)


def _effective(w: Tensor) -> Tensor:
    return 1 / (w / w.mean()).square().mean()
