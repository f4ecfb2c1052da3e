"""Binary Classifier Optimization: thumbs up or down as a classifier's labels, its logit the implicit reward."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator
from plumbline.lab.preferences import judged_optimum
from plumbline.objectives.preference.bco_shift import balanced_shift, density_weights
from plumbline.objectives.preference.judgement import per_row


@objective(
    paper=Paper(
        "Binary Classifier Optimization for Large Language Model Alignment", "Jung et al.", 2024, arxiv="2404.04656"
    ),
    says="Binary cross-entropy of thumbs up or down on the implicit reward less a shift, an upper bound on DPO's loss.",
    differs=(
        "The shift is a function: the paper's balanced_shift, or a RunningShift over the run, as TRL's trainer had it.",
        "Prompts are matched by a column density_weight (see density_weights), made before training, once.",
    ),
    needs=("batch",),
)
def bco(
    x: Scored, x_ref: Scored, desirable: Tensor, density_weight: Tensor | None = None, *, beta: Positive = 0.1,
    shift: Callable[[Tensor, Tensor], Tensor] = balanced_shift,
) -> Tensor:  # fmt: skip
    r"""Per-row BCO loss.

    .. math:: \ell = \begin{cases} -\log\sigma(r - \delta) & \text{desirable}\\
              -w(x)\log\sigma(\delta - r) & \text{undesirable}\end{cases}\qquad
              r = \beta\log\frac{\pi_\theta(y|x)}{\pi_{ref}(y|x)}

    Args:
        x, x_ref: the trained model and the frozen reference on judged answers, logps [B, T].
        desirable: [B] bool, the judgement.
        density_weight: [B], :math:`w(x)`, how much likelier the prompt is among good answers than among bad ones; read
            on undesirable rows only, 1 when left out.
        beta: scale of the reward.
        shift: (rewards [B], desirable [B]) -> :math:`\delta`, a scalar; the rewards it is given are detached.

    Returns:
        [B] nats.

    Raises:
        InputError: ``desirable`` or ``density_weight`` is not of shape [B].
    """
    good = per_row("bco", "desirable", desirable, x).to(torch.bool)
    reward = beta * x.log_ratio(x_ref)
    delta = shift(reward.detach(), good)
    note(shift=delta)
    above = reward - delta
    loss = -F.logsigmoid(torch.where(good, above, -above))
    if density_weight is None:
        return loss
    weight = per_row("bco", "density_weight", density_weight, x).to(loss.dtype).detach()
    return torch.where(good, loss, weight * loss)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"desirable": torch.arange(len(mask)) % 2 == 0}


@claim(
    bco,
    "Whatever the shift, the classifier's loss is above DPO's on the same answers, and least so at the mean reward.",
    cost="cpu:2s",
)
def bounds_dpo() -> Evidence:
    g = generator(0, "bco")
    rewards, up = 3 * torch.randn(200, 2, 1, generator=g), torch.tensor([True, False])
    other = torch.randn(200, generator=g)

    def excess(i: int, shift: Callable[[Tensor, Tensor], Tensor]) -> float:
        """How far the two rows of pair i lie above DPO's loss on it."""
        both = bco(Scored(rewards[i]), Scored(torch.zeros(2, 1)), up, beta=1.0, shift=shift).sum()
        return float(both + F.logsigmoid(rewards[i, 0, 0] - rewards[i, 1, 0]))

    best = torch.tensor([excess(i, balanced_shift) for i in range(200)])
    shifted = torch.tensor([excess(i, lambda r, d, i=i: r.mean() + other[i]) for i in range(200)])  # type: ignore[misc]
    none = torch.tensor([excess(i, lambda r, d: r.new_zeros(())) for i in range(200)])
    told = {"least excess": best.min(), "mean excess": best.mean(), "shifted away": shifted.mean(), "none": none.mean()}
    return Evidence(
        bool((best > 0).all() and (best <= shifted).all()), told, control=bool(none.mean() > 2 * best.mean())
    )


@claim(
    bco,
    "Prompts that mostly drew thumbs down make good answers to them look bad; density weights take that bias away.",
    cost="cpu:10s",
)
def density_weights_remove_prompt_bias() -> Evidence:
    def bias(seed: int) -> tuple[float, float]:
        """Reward of the same 20 answers to prompt 1 less that to prompt 0: without weights, with them; 0 is right."""
        g = generator(seed, "bco prompts")
        taste, up = torch.randn(20, generator=g), torch.arange(2000) < 1000
        prompts = (torch.rand(2000, generator=g) < torch.where(up, 1 / 3, 2 / 3)).long()  # 1 draws thumbs down
        odds = (torch.where(up, 1.0, -1.0)[:, None] * taste).softmax(-1)
        found, ref = torch.multinomial(odds, 1, generator=g)[:, 0], torch.zeros(2, 20)

        def gap(weight: Tensor | None) -> float:
            tuned = judged_optimum(
                lambda x, x_ref, good: bco(x, x_ref, good, weight, beta=1.0), prompts, found, up, ref, steps=200
            )
            return float((tuned[1] - tuned[0]).mean())

        return gap(None), gap(density_weights(torch.eye(2)[prompts], up))

    plain, weighted = torch.tensor([bias(seed) for seed in range(5)]).unbind(-1)
    fewer = int((weighted.abs() < 0.5 * plain.abs()).sum())
    told = {"seeds of 5 with the bias halved": fewer, "bias, weighted": weighted.mean(), "bias": plain.mean()}
    return Evidence(fewer >= 4, told, control=bool((plain < -1).all()))
