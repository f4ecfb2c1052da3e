"""SALT: a small teacher's soft labels early in pre-training, plain likelihood afterwards."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, Probability, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.markov2 import Loss, Source, network, train
from plumbline.objectives.pretrain.teacher_schedules import Schedule, constant, step

_FIRST_STAGE = step(0.17)


@objective(
    paper=Paper(
        "A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
        "Rawat et al.",
        2024,
        arxiv="2410.18779",
    ),
    says="Distil from a smaller model during the first part of training, then train on the labels alone.",
    differs=(
        "The teacher's part is KL(teacher || student), not the paper's cross-entropy: the gradients are the same, the "
        "value is less by the entropy of the teacher, a constant that would take another pass.",
        "The end of the first stage is a share of the run (0.17, of 36k in 208k steps) in place of a step number.",
    ),
)
def salt(
    x: Scored, x_teacher: Scored, progress: float = 0.0, *, weight: Probability = 0.667,
    teacher_temperature: Positive = 0.25, schedule: Schedule | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-token loss.

    .. math:: \ell_t = -(1 - w)\log\pi(y_t) + w\,\mathrm{KL}\bigl(P_S^{\tau} \,\|\, \pi\bigr),\qquad
              w = \texttt{weight} \cdot \texttt{schedule}(\texttt{progress}),\quad P_S^\tau = \mathrm{softmax}(z_S/\tau)

    Args:
        x: the trained model, logps [B, T], scored so that it can give divergences.
        x_teacher: the smaller, frozen model, with the same tokenizer, on the same tokens. It is not touched where w is
            0, so it need not run, or even be in memory, once its stage is over. It gets no gradient.
        progress: share of the run that is done, [0, 1); the trainer binds it.
        weight: of the teacher while its schedule is 1. teacher_temperature: :math:`\tau`; divides the teacher's logits
            only. The defaults of both and of the stage's length are the paper's from memory, unverified.
        schedule: progress -> what is left of ``weight``, within [0, 1]: ``step(end)``, ``linear(end)`` or ``constant``
            of ``objectives.pretrain.teacher_schedules``, or any function. None is the paper's, ``step(0.17)``.

    Returns:
        [B, T] nats, 0 where masked.

    Raises:
        InputError: the vocabularies differ in size, or the schedule leaves [0, 1].
    """
    left = (schedule or _FIRST_STAGE)(progress)
    if not 0 <= left <= 1:
        raise refuse("salt", "schedule", "a function into [0, 1]", f"{left} at {progress}", "pass step(0.17), say")
    w = weight * left
    note(teacher_weight=w)
    if w == 0:
        return -x.logps
    return -(1 - w) * x.logps + w * x.kl_from(x_teacher, temperature=teacher_temperature)


@claim(
    salt,
    "A student four times as wide as its teacher ends below plain training after a quarter of distillation, and above "
    "it when distilled to the end (cross-entropy of an order-2 Markov source).",
    cost="cpu:40s",
)
def help_early_not_late() -> Evidence:
    taught = partial(salt, weight=0.667, teacher_temperature=1.0)
    arms: dict[str, Loss] = {
        "plain": lambda x, *_: -x.logps, "salt": partial(taught, schedule=step(0.25)),
        "constant": partial(taught, schedule=constant),
    }  # fmt: skip
    found: dict[str, list[float]] = {"teacher": [], **{name: [] for name in arms}}
    for seed in range(3):
        source = Source(seed)
        teacher = train(source, network(32, seed + 100), lambda x, *_: -x.logps, steps=1500)
        found["teacher"].append(source.nll(teacher))
        for name, loss in arms.items():
            student = train(source, network(128, seed), loss, steps=800, teacher=teacher)
            found[name].append(source.nll(student))
    runs = list(zip(found["plain"], found["salt"], found["constant"], strict=True))
    return Evidence(
        all(ours < plain for plain, ours, _ in runs), found, control=all(late > plain for plain, _, late in runs)
    )
