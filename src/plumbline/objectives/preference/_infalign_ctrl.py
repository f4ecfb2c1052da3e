"""InfAlign-CTRL: rewards calibrated to the base policy's quantiles, then shaped for the decoding that will be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.lab.tilts import tilted_to
from plumbline.objectives.preference.win_rates import bon, bon_win_rate, identity, won, won_win_rate


class _Calibrated(NamedTuple):
    quantiles: Tensor  # [B], in [0, 1]
    rewards: Tensor  # [B], shaped; what training maximises


@function(
    paper=Paper("InfAlign: Inference-aware language model alignment", "Balashankar et al.", 2024, arxiv="2412.19792"),
    says="Replace a reward by its quantile among the base policy's samples, shaped for best-of-N or worst-of-N.",
    differs=(
        "bon and won are divided by their largest size, so that one KL weight serves every t.",
        "A tie with a base sample counts half, so that a coarse reward is not called better than itself.",
    ),
)
def infalign_ctrl(
    base_rewards: Tensor, rewards: Tensor, prompts: Tensor | None = None, *,
    transform: Callable[[Tensor], Tensor] = bon,
) -> _Calibrated:  # fmt: skip
    r"""Calibrate and transform; KL-regularised training on the result is the third step.

    .. math:: C(x, y) = \frac1K \sum_{k=1}^K \left(1[r(x, z_k) < r(x, y)] + \tfrac12\,1[r(x, z_k) = r(x, y)]\right),
              \quad z_k \sim \pi_{ref}(\cdot|x), \qquad \tilde r = \Phi(C)

    C does not change under any increasing map of r, so rewards of different prompts become comparable. The samples
    must come from the reference policy of the KL term. Measure with ``win_rates.bon_win_rate``.

    Args:
        base_rewards: [P, K], rewards of K samples of the base policy for each of P prompts; the paper's K is 100.
        rewards: [B], of the answers that are trained on.
        prompts: [B] int64, the row of ``base_rewards`` that answer b belongs to; left out where P = 1.
        transform: :math:`\Phi` on quantiles, from ``win_rates``: ``bon`` (t = 10, a judgement for N = 4), ``won``,
            ``identity`` for the standard win rate, ``partial(bon, t=5)``, or any increasing function.

    Returns:
        ``quantiles`` [B] in [0, 1] and ``rewards`` [B] float32 or wider, both without a gradient.

    Raises:
        InputError: shapes disagree, prompts are left out where P > 1, or one names no row.
    """
    if base_rewards.dim() != 2 or base_rewards.shape[1] == 0:
        shape = tuple(base_rewards.shape)
        raise refuse("infalign_ctrl", "base_rewards", "of shape [P,K], K >= 1", shape, "sample the base policy")
    if prompts is None and len(base_rewards) > 1:
        raise refuse("infalign_ctrl", "prompts", "given where P > 1", None, "say which prompt each answer belongs to")
    rows = torch.zeros(len(rewards), dtype=torch.long, device=rewards.device) if prompts is None else prompts
    if rewards.dim() != 1 or rows.shape != rewards.shape:
        shapes = [tuple(rewards.shape), tuple(rows.shape)]
        raise refuse("infalign_ctrl", "rewards and prompts", "of one shape [B]", shapes, "one prompt per answer")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(base_rewards):
        got = [int(rows.min()), int(rows.max())]
        raise refuse("infalign_ctrl", "prompts", f"rows of base_rewards, 0 to {len(base_rewards) - 1}", got, "check P")
    wide = torch.promote_types(rewards.dtype, torch.float32)
    own, answer = base_rewards.detach()[rows], rewards.detach()[:, None]
    quantiles = (own < answer).to(wide).mean(-1) + (own == answer).to(wide).mean(-1) / 2
    return _Calibrated(quantiles, transform(quantiles))


@claim(
    infalign_ctrl,
    "At one KL budget the shape made for the decoding wins most: exponential for best-of-4, its mirror for worst-of-4.",
    cost="cpu:3s",
)
def the_shape_must_fit_the_decoding() -> Evidence:
    scores = torch.linspace(-3, 3, 2000, dtype=torch.float64)
    answers = scores.exp()  # any reward in this order: calibration makes them uniform

    def win_rates(transform: Callable[[Tensor], Tensor], kl: float) -> dict[str, float]:
        shaped = infalign_ctrl(answers[None], answers, transform=transform).rewards
        policy = tilted_to(shaped, kl)
        best, worst = (f(answers, answers, 4, policy) for f in (bon_win_rate, won_win_rate))
        return {"best of 4": best, "worst of 4": worst, "one": bon_win_rate(answers, answers, 1, policy)}

    shapes: dict[str, Callable[[Tensor], Tensor]] = {
        "exp(10 u)": bon,
        "u": identity,
        "-exp(-10 u)": won,
        "log u": lambda u: u.log(),
    }
    holds, standard, measured = True, True, dict[str, float]()
    for kl in (0.1, 0.3, 0.7):
        found = {name: win_rates(shape, kl) for name, shape in shapes.items()}
        best = {how: max(found, key=lambda name: found[name][how]) for how in ("best of 4", "worst of 4", "one")}
        holds &= best["best of 4"] == "exp(10 u)" and best["worst of 4"] == "-exp(-10 u)"
        holds &= found["u"]["best of 4"] > found["log u"]["best of 4"]
        standard &= best["one"] == "u"  # with a single draw the same shapes lose to none at all
        if kl == 0.3:
            measured = {f"{how}, {name}": rate[how] for name, rate in found.items() for how in rate}
    return Evidence(holds, measured, control=standard)
