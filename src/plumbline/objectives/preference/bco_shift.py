"""What BCO subtracts from a reward before it judges it, and how much a bad answer's prompt counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.ranks import everywhere
from plumbline.kernels.seeds import generator


def balanced_shift(rewards: Tensor, desirable: Tensor) -> Tensor:
    r""":math:`\delta = \tfrac12(\bar r_{up} + \bar r_{down})` over the batches of all processes: the paper's.

    Args:
        rewards: [B]. desirable: [B] bool.

    Returns:
        A detached scalar; the mean of the one class there is, where a batch lacks the other.
    """
    r, up = everywhere(rewards), everywhere(desirable)
    means = [side.mean() for side in (r[up], r[~up]) if len(side)]
    return torch.stack(means).mean()


class RunningShift:
    """The mean of all rewards seen in training, this batch's among them, each counted once: what TRL's trainer used.

    Pass one object as ``shift=`` for a whole run, and keep ``state_dict()`` with the checkpoint. A batch scored
    without gradients (an evaluation) is judged by the mean and leaves it as it is.
    """

    def __init__(self) -> None:
        self.mean, self.count = 0.0, 0

    def __call__(self, rewards: Tensor, desirable: Tensor) -> Tensor:
        """rewards [B], desirable [B] bool -> a detached scalar."""
        if torch.is_grad_enabled():
            seen = everywhere(rewards).double()
            self.count += len(seen)
            self.mean += float((seen - self.mean).sum()) / max(1, self.count)
        return torch.tensor(self.mean, dtype=rewards.dtype, device=rewards.device)

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean, self.count = float(state["mean"]), int(state["count"])


def density_weights(
    embeddings: Tensor, desirable: Tensor, *, low: float = 0.5, high: float = 10.0, per_class: int = 1024, seed: int = 0
) -> Tensor:
    r"""How much likelier each prompt is among good answers than among bad ones, for the column ``density_weight``.

    .. math:: w(x) = \mathrm{clamp}\!\Bigl(\frac{P(up \mid x)}{1 - P(up \mid x)},\ 0.5,\ 10\Bigr)

    P is a logistic regression on prompt embeddings that weighs both classes alike, so its odds are the ratio of the
    two densities of prompts whatever the share of good answers.

    Args:
        embeddings: [N, D], one per prompt, from any embedding model. desirable: [N] bool.
        low, high: bounds of the weight (TRL's). per_class: prompts of each class to fit on, drawn by ``seed``.

    Returns:
        [N] float32 on the cpu; 1 where desirable, since only bad answers are reweighted.

    Raises:
        InputError: shapes that do not match, or prompts of one class only.
    """
    from sklearn.linear_model import LogisticRegression

    if embeddings.dim() != 2 or desirable.shape != embeddings.shape[:1]:
        got = [tuple(embeddings.shape), tuple(desirable.shape)]
        raise refuse("density_weights", "embeddings", "[N, D] with desirable [N]", got, "pass one embedding a row")
    points, up = embeddings.detach().double().cpu(), desirable.to("cpu", torch.bool)
    sides = [side.nonzero()[:, 0] for side in (up, ~up)]
    if not all(len(side) for side in sides):
        raise refuse("density_weights", "desirable", "both good and bad rows", f"{int(up.sum())} good of {len(up)}",
                     "leave density_weight out of the data")  # fmt: skip
    g = generator(seed, "density_weights")
    fitted = torch.cat([side[torch.randperm(len(side), generator=g)[:per_class]] for side in sides])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(points[fitted].numpy(), up[fitted].numpy())
    odds = torch.from_numpy(model.decision_function(points.numpy())).clamp(math.log(low), math.log(high)).exp()
    return torch.where(up, 1.0, odds).float()
