"""Pairs of answers that differ late or early, and what one step of gradient descent on one pair does to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator

Pairs = dict[str, list[dict[str, Any]]]


def random_pairs(n: int, *, vocab: int = 101, prompt: int = 4, length: int = 6, seed: int = 0) -> Pairs:
    """Answers of random ids, the rejected ones two tokens longer: nothing in common but the prompt."""
    g = generator(seed, "random_pairs")
    asked = torch.randint(3, vocab, (n, prompt), generator=g).tolist()
    answers = [torch.randint(3, vocab, (n, length + more), generator=g).tolist() for more in (0, 2)]
    return {name: [_row(q, a) for q, a in zip(asked, said)] for name, said in zip(("chosen", "rejected"), answers)}


def letter_pairs(tokenizer: Any, n: int, *, late: bool, seed: int = 0, length: int = 24) -> Pairs:
    """Answers are stretches of the Markov chain of letters that the zoo was trained on, as uncertain in every token.

    ``late``: the rejected answer is the chosen one but for its last letter; else another stretch of the chain.
    """
    from plumbline.worlds.sources import Markov

    rows = Markov(16, seed=0).sample(2 * n, length, seed)
    instead = rows[:n].copy() if late else rows[n:]
    if late:
        instead[:, -1] = rows[n:, -1] + (rows[n:, -1] == rows[:n, -1])
    said = {"chosen": rows[:n], "rejected": instead % 16}
    return {
        name: [
            _row([tokenizer.bos_token_id], tokenizer(_letters(row), add_special_tokens=False).input_ids) for row in part
        ]
        for name, part in said.items()
    }


def _letters(row: Any) -> str:
    return " ".join("abcdefghijklmnop"[symbol] for symbol in row)


def _row(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def one_step(
    model: nn.Module, pairs: Mapping[str, list[dict[str, Any]]], number: int, loss: Callable[..., Tensor], *, lr: float
) -> tuple[float, float]:
    """Change of both summed log-probabilities, chosen and rejected, by one step of plain gradient descent on a pair.

    Args:
        loss: (chosen, rejected) -> [1]. The model is as before afterwards.
    """
    rows = [pairs[name][number] for name in ("chosen", "rejected")]
    parameters = [p for p in model.parameters() if p.requires_grad]
    kept = [p.detach().clone() for p in parameters]

    def views() -> list[Scored]:
        return [Scored.of(model, torch.tensor([r["input_ids"]]), labels=torch.tensor([r["labels"]])) for r in rows]

    before = views()
    falls = torch.autograd.grad(loss(*before).sum(), parameters)
    with torch.no_grad():
        for p, g in zip(parameters, falls, strict=True):
            p -= lr * g
        after = views()
        for p, old in zip(parameters, kept, strict=True):
            p.copy_(old)
    return tuple(float(a.total() - b.total().detach()) for a, b in zip(after, before, strict=True))  # type: ignore[return-value]


def response_states(
    *, shared: bool, pairs: int = 400, vocab: int = 50, width: int = 64, length: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Hidden states of random pairs under a random linear head, and what a step on the head does to the chosen answer.

    The state that predicts the first token is shared; later ones resemble each other by a degree of the pair's own.
    ``shared``: the answers have all tokens but the first in common; else they are unrelated.

    Returns:
        Chosen and rejected states [B,T,D], and :math:`\langle g_w, g_l\rangle - |g_w|^2` [B]: how far the chosen
        log-probability falls to first order by descent on a function of the margin, g of the head's weights.
    """
    g = generator(seed, "response_states")
    head = torch.randn(vocab, width, generator=g) / width**0.5
    alike = torch.rand(pairs, 1, 1, generator=g)
    won = torch.randn(pairs, length, width, generator=g) * (0.5 + torch.rand(pairs, 1, 1, generator=g))
    lost = alike * won + (1 - alike**2).sqrt() * torch.randn(pairs, length, width, generator=g)
    lost[:, 0] = won[:, 0]
    ids = torch.randint(vocab, (pairs, length), generator=g)
    others = ids.clone() if shared else torch.randint(vocab, (pairs, length), generator=g)
    others[:, 0] = (ids[:, 0] + torch.randint(1, vocab, (pairs,), generator=g)) % vocab

    def gradient(states: Tensor, said: Tensor) -> Tensor:
        off = torch.nn.functional.one_hot(said, vocab) - (states @ head.T).softmax(-1)
        return torch.einsum("btv,btd->bvd", off, states)

    g_w, g_l = gradient(won, ids), gradient(lost, others)
    return won, lost, (g_w * g_l).sum((1, 2)) - (g_w * g_w).sum((1, 2))


WORDS = ("?", "No", "Never", "Yes")  # of the model below, by id


def no_over_never(
    loss: Callable[[Scored, Scored, Scored, Scored], Tensor], *, alike: bool, steps: int = 400, lr: float = 0.1
) -> tuple[nn.Module, nn.Module, Pairs]:
    r"""A small GPT-2 before and after it is tuned to answer "No" rather than "Never", and the pair (twice).

    Its unembeddings stay as they are: No (1, 0.2), Never (1, -0.2), Yes (-0.5, 2) in a plane in which the state at
    the end of the prompt begins as (2, -0.5); with ``alike`` False they are orthogonal, and all words begin equally
    likely. Everything else is trained by gradient descent.
    """
    import copy

    from plumbline.lab.tiny import tiny

    model = tiny("gpt2", vocab=len(WORDS), tie_word_embeddings=False, pad_token_id=None)
    state = Scored.of(model, torch.zeros(1, 2, dtype=torch.long)).hidden()[0, 0].detach()
    axes = torch.linalg.qr(torch.stack([state, *torch.randn(3, len(state), generator=generator(0, "axes"))]).T)[0].T
    q = axes / (axes[0] @ state)  # <q_0, state> = 1, the others are orthogonal to it
    plane = torch.stack([2 * q[0] + 0.5 * q[1], -0.5 * q[0] + 2 * q[1]])
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.2], [1.0, -0.2], [-0.5, 2.0]]) @ plane
    rows = rows if alike else torch.cat([torch.zeros_like(q[:1]), q[1:]])
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.copy_(rows)
    head.weight.requires_grad_(False)
    pairs = Pairs(chosen=[_row([0], [1])] * 2, rejected=[_row([0], [2])] * 2)
    before = copy.deepcopy(model)
    ids = [torch.tensor([row["input_ids"] for row in part]) for part in pairs.values()]
    mask = torch.tensor([[False, True]] * 2)
    views = [Scored.of(before, i, mask=mask).detach() for i in ids]
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(steps):
        value = loss(*(Scored.of(model, i, mask=mask) for i in ids), *views).mean()
        falls = torch.autograd.grad(value, trained)
        with torch.no_grad():
            for p, g in zip(trained, falls, strict=True):
                p -= lr * g
    return before, model, pairs
