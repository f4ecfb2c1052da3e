"""Per-step advantages: every reasoning step is credited with the change of the chance of success that it made."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.lab.bandits import three_steps


@function(
    paper=Paper(
        "RL on Incorrect Synthetic Data Scales the Efficiency of LLM Math Reasoning by Eight-Fold",
        "Setlur et al.",
        2024,
        arxiv="2406.14532",
    ),
    says="Credit each step of a solution with how much it changed the chance of success.",
    differs=(
        "With rollouts= given, an advantage below one standard error of its estimate counts as 0; the paper does not "
        "say what to do about noise.",
        "The paper's code is not public: written from its equations. Step-wise DPO pairs are made by "
        "objectives.rl.steps.step_pairs.",
    ),
)
def step_advantages(steps: Tensor, values: Tensor, *, rollouts: Count | None = None) -> Tensor:
    r"""An advantage for every token: that of its step.

    .. math:: A_i = V_i - V_{i-1},\qquad V_i = P(\text{success} \mid s_1 \ldots s_i),\qquad
              A_i \leftarrow 0 \ \text{if}\ |A_i| < \sqrt{\tfrac{V_i(1-V_i) + V_{i-1}(1-V_{i-1})}{K}}

    The sum over steps is the outcome minus V_0. A solution of one step has its outcome's advantage.

    Args:
        steps: [B, T] whole numbers, the step of each token from 1; 0 belongs to none
            (``objectives.rl.steps.numbered`` makes them).
        values: [B, S + 1], V_0 of the prompt to V_S; the last is the outcome. Entries after a row's last step are not
            read (NaN is fine). Estimate them with the policy that training starts from, not the trained one.
        rollouts: K, how many estimated each value (the paper takes 5 to 16, from memory); None for exact values.

    Returns:
        [B, T] float32 (float64 for float64 values), 0 where no step is.

    Raises:
        InputError: shapes do not fit, a step has no value, or a value is no probability though ``rollouts`` is given.
    """
    if steps.dim() != 2 or values.dim() != 2 or len(steps) != len(values) or values.shape[1] < 2:
        got = (tuple(steps.shape), tuple(values.shape))
        raise refuse("step_advantages", "steps and values", "[B, T] and [B, S + 1]", got, "give V_0 and one per step")
    v = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    most = v.shape[1] - 1
    if bool(((steps < 0) | (steps > most)).any()):
        span = f"{int(steps.min())} to {int(steps.max())}"
        raise refuse("step_advantages", "steps", f"within 0 to {most}", span, "give a value for every step, V_0 first")
    read = torch.arange(most + 1, device=v.device) <= steps.amax(-1, keepdim=True)
    fine = v.isfinite() if rollouts is None else (v >= 0) & (v <= 1)
    bad = (read & ~fine).any(-1).nonzero()[:, 0].tolist()
    if bad:
        expected = "a number for every step" if rollouts is None else "a probability for every step"
        raise refuse("step_advantages", "values", expected, f"another in row {bad[0]}", "value each prefix of the row")
    gain = v[:, 1:] - v[:, :-1]
    if rollouts is not None:
        noise = v * (1 - v)
        gain = torch.where(gain.abs() < ((noise[:, 1:] + noise[:, :-1]) / rollouts).sqrt(), 0.0, gain)
    return torch.where(steps > 0, gain.gather(1, (steps - 1).clamp(min=0)), 0.0)


@claim(
    step_advantages,
    "A step that only happens to go with right answers gets no credit and no blame, and the steps' credits sum to the "
    "outcome; the outcome's own advantage credits every step.",
    cost="cpu:1s",
)
def spurious_steps_get_no_credit() -> Evidence:
    _, values, right = three_steps()
    found = step_advantages(torch.arange(1, 4).expand(200, 3), values)
    outcome = (right.float() - 0.5)[:, None].expand(200, 3)
    measured = {
        "largest credit of a spurious step": float(found[:, [0, 2]].abs().max()),
        "credit of the decisive step": found[[0, 100], 1],
        "largest error of the sum": float((found.sum(-1) - (values[:, -1] - values[:, 0])).abs().max()),
        "outcome's credit of a spurious step": float(outcome[:, 0].abs().max()),
    }
    none = measured["largest credit of a spurious step"] == 0 and measured["largest error of the sum"] == 0
    return Evidence(none, measured, control=measured["outcome's credit of a spurious step"] == 0.5)
