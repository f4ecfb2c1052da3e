"""What a loss costs at V = 131,072: straight from hidden states, against the same loss on materialised logits.

``python benchmarks/losses.py [--json] [--tokens 1024 --vocab 131072 --width 512 --repeats 2] [--only dpo,nll]``

Two rows of ``--tokens`` tokens, float32, forward and backward with the head's gradient; a process for each variant.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from _memory import Cost, measure
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.views import HeadView

MEMORY, TIME, KL_MEMORY = 0.15, 1.0, 0.10


def _data(tokens: int, vocab: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, tokens, width, generator=g)
    weight = torch.randn(vocab, width, generator=g).mul_(width**-0.5)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(vocab, (2, tokens), generator=g)


def dense(hidden: Tensor, weight: Tensor, labels: Tensor) -> Scored:
    """Label log-probabilities the plain way: full logits, log-softmax, gather."""
    logps = F.linear(hidden, weight).log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    return Scored(logps, labels=labels)


def tiled(hidden: Tensor, weight: Tensor, labels: Tensor) -> Scored:
    """The same as ``Scored.of`` makes it."""
    head = SimpleNamespace(weight=weight, bias=None, scale=1.0, softcap=None)
    view = HeadView(hidden.flatten(0, 1), head, labels.flatten())
    return Scored(view.logps().view(labels.shape), labels=labels, view=view)


def row(x: Scored, i: int) -> Scored:
    return Scored(x.logps[i : i + 1], x.mask[i : i + 1], labels=x.labels[i : i + 1])


def losses() -> dict[str, Callable[[Scored, Scored], Tensor]]:
    """Name -> (the two rows under the model, the same under a frozen other) -> scalar."""
    from plumbline.objectives import preference, rl, sft

    signs = torch.tensor([1.0, -1.0])

    def pair(loss: Callable[..., Tensor]) -> Callable[[Scored, Scored], Tensor]:
        return lambda x, other: loss(row(x, 0), row(x, 1), row(other, 0), row(other, 1)).mean()

    def alone(loss: Callable[..., Tensor]) -> Callable[[Scored, Scored], Tensor]:
        return lambda x, other: loss(row(x, 0), row(x, 1)).mean()

    return {
        "nll": lambda x, _: sft.nll(x).mean(),
        "focal": lambda x, _: sft.focal(x).mean(),
        "direct_coverage_optimization": lambda x, _: sft.direct_coverage_optimization(x).mean(),
        "dpo": pair(preference.dpo), "ipo": pair(preference.ipo), "simpo": alone(preference.simpo),
        "orpo": alone(preference.orpo),
        "kto": lambda x, other: preference.kto(x, other, signs > 0, x.detach(), other).mean(),
        "bco": lambda x, other: preference.bco(x, other, signs > 0).mean(),
        "cca": lambda x, other: preference.cca(x, other, x, other).mean(),
        "grpo": lambda x, other: rl.grpo(x, signs, other).mean(),
        "dapo": lambda x, other: rl.dapo(x, signs, other).mean(),
        "gspo": lambda x, other: rl.gspo(x, signs, other, low=0.9, high=9.0).mean(),  # wide: a clipped one has no slope
        "topr": lambda x, other: rl.topr(x, other, signs).mean(),
        "reference_kl": lambda x, other: rl.reference_kl(x, other).mean(),
    }  # fmt: skip


def loss_job(name: str, how: Callable[..., Scored], *shape: int) -> Callable[[], None]:
    hidden, weight, labels = _data(*shape)
    frozen = Scored(-torch.rand(labels.shape) * 12, labels=labels)
    loss = losses()[name]

    def run() -> None:
        hidden.grad = weight.grad = None
        loss(how(hidden, weight, labels), frozen).backward()

    return run


def trl_job(*shape: int) -> Callable[[], None]:
    """TRL's own path for label log-probabilities, as it runs on this machine."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    hidden, weight, labels = _data(*shape)

    def run() -> None:
        hidden.grad = weight.grad = None
        told = (hidden.flatten(0, 1), weight, None, labels.flatten(), 1.0, 32768, None, 1.0, ())
        (-ChunkedLogProbFunction.apply(*told)[0].mean()).backward()

    return run


def _dense_js(log_q: Tensor, log_p: Tensor) -> Tensor:
    log_m = torch.logaddexp(log_q, log_p) - torch.tensor(2.0).log()
    told: dict[str, Any] = {"reduction": "batchmean", "log_target": True}
    return 0.5 * (F.kl_div(log_m, log_p, **told) + F.kl_div(log_m, log_q, **told))


DENSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl_from": lambda log_q, log_p: F.kl_div(log_q, log_p, reduction="batchmean", log_target=True),
    "kl_to": lambda log_q, log_p: F.kl_div(log_p, log_q, reduction="batchmean", log_target=True),
    "js": _dense_js,
}


def divergence_job(name: str, plain: bool, *shape: int) -> Callable[[], None]:
    """A divergence to a teacher over the whole vocabulary, with gradients to the trained model's states and head."""
    hidden, weight, labels = _data(*shape)
    with torch.no_grad():
        other = [x.detach() for x in _data(*shape, seed=1)[:2]]
        other[0].mul_(0.1).add_(hidden)
        other[1].mul_(0.1).add_(weight)

    def run() -> None:
        hidden.grad = weight.grad = None
        if plain:
            log_q = F.linear(hidden, weight).flatten(0, 1).log_softmax(-1)
            log_p = F.linear(*other).flatten(0, 1).log_softmax(-1)
            DENSE[name](log_q, log_p).backward()
        else:
            getattr(tiled(hidden, weight, labels), name)(tiled(*other, labels)).mean().backward()

    return run


def gradients_agree(shape: tuple[int, ...]) -> float:
    """Largest relative difference of any loss's gradients between the two paths, on a smaller vocabulary."""
    worst = 0.0
    for name, loss in losses().items():
        found = []
        for how in (dense, tiled):
            hidden, weight, labels = _data(*shape)
            frozen = Scored(how(hidden.detach() + 0.1, weight.detach(), labels).logps.detach(), labels=labels)
            loss(how(hidden, weight, labels), frozen).backward()
            found.append((hidden.grad, weight.grad))
        for a, b in zip(*found, strict=True):
            if a is None or b is None:
                raise RuntimeError(f"{name} has no gradient")
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="")
    for name, value in (("tokens", 1024), ("vocab", 131072), ("width", 512), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    shape, only = (args.tokens, args.vocab, args.width), set(filter(None, args.only.split(",")))
    chosen = [name for name in losses() if not only or name in only]
    plain = measure(partial(loss_job, "nll", dense), *shape, repeats=args.repeats)
    costs: dict[str, tuple[Cost, Cost]] = {
        name: (measure(partial(loss_job, name, tiled), *shape, repeats=args.repeats), plain) for name in chosen
    }
    with contextlib.suppress(ImportError, RuntimeError):
        costs["TRL's label log-probs"] = (measure(trl_job, *shape, repeats=args.repeats), plain)
    for name in (n for n in DENSE if not only or n in only):
        ours, theirs = (measure(partial(divergence_job, name, p), *shape, repeats=args.repeats) for p in (False, True))
        costs[name] = (ours, theirs)
    table = [
        {"loss": name, "memory, MB": ours.peak_mb, "of full logits": ours.peak_mb / theirs.peak_mb,
         "seconds": ours.seconds, "time ratio": ours.seconds / theirs.seconds}
        for name, (ours, theirs) in costs.items()
    ]  # fmt: skip
    labels = [r for r in table if r["loss"] in chosen]
    whole = [r for r in table if r["loss"] in DENSE]
    figures: dict[str, float] = {"full_logits_mb": round(plain.peak_mb), "full_logits_seconds": round(plain.seconds, 2)}
    targets: dict[str, float] = {}
    for told, rows, memory in (("label losses", labels, MEMORY), ("divergences", whole, KL_MEMORY)):
        if rows:
            figures[f"{told}: memory ratio"] = round(max(float(r["of full logits"]) for r in rows), 3)
            figures[f"{told}: time ratio"] = round(max(float(r["time ratio"]) for r in rows), 3)
            targets |= {f"{told}: memory ratio": memory, f"{told}: time ratio": TIME}
    figures["gradients: relative difference"] = gradients_agree((64, 4099, 64))
    targets["gradients: relative difference"] = 1e-5
    holds = all(figures[name] <= limit for name, limit in targets.items())
    if args.json:
        print(json.dumps({"name": "losses", "figures": figures, "targets": targets, "holds": holds, "table": table}))
        return
    print(f"2 x {args.tokens} tokens, V = {args.vocab}, D = {args.width}, float32, forward and backward, 2 threads")
    for r in table:
        print("{:30s} {:8.0f} MB  {:5.3f} of full   {:7.2f} s  x{:.3f}".format(*r.values()))
    for name, limit in targets.items():
        print(f"{name:34s} {figures[name]:.3g}  target <= {limit:g}")


if __name__ == "__main__":
    main()
