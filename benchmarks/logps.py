"""Log-probabilities and full KL from hidden states at V = 131,072, against materialised logits.

``python benchmarks/logps.py [--json] [--tokens 2048 --vocab 131072 --width 512]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from _memory import Cost, measure
from torch import Tensor

from plumbline.kernels.logps import linear_kl, linear_logps

TARGETS = {"ce_memory_ratio": 0.15, "ce_time_ratio": 1.0, "kl_memory_ratio": 0.06, "kl_time_ratio": 0.5}


def _data(tokens: int, vocab: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=g)
    weight = torch.randn(vocab, width, generator=g).mul_(width**-0.5)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(vocab, (tokens,), generator=g)


def ce_dense(*shape: int) -> Callable[[], None]:
    hidden, weight, labels = _data(*shape)

    def run() -> None:
        hidden.grad = weight.grad = None
        F.cross_entropy(F.linear(hidden, weight), labels).backward()

    return run


def ce_tiled(*shape: int) -> Callable[[], None]:
    hidden, weight, labels = _data(*shape)

    def run() -> None:
        hidden.grad = weight.grad = None
        (-linear_logps(hidden, weight, labels).mean()).backward()

    return run


@torch.no_grad()
def _two(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    ha, wa, _ = (x.detach() for x in _data(*shape))
    hb, wb, _ = (x.detach() for x in _data(*shape, seed=1))
    return ha, wa, hb.mul_(0.1).add_(ha), wb.mul_(0.1).add_(wa)


def kl_dense(*shape: int) -> Callable[[], Tensor]:
    ha, wa, hb, wb = _two(*shape)

    @torch.no_grad()
    def run() -> Tensor:
        za, zb = F.linear(ha, wa), F.linear(hb, wb)
        la, lb = za.log_softmax(-1), zb.log_softmax(-1)
        pa, pb = la.exp(), lb.exp()
        return torch.stack([(pa * (la - lb)).sum(-1), pb.sum(-1)])

    return run


def kl_tiled(*shape: int) -> Callable[[], Tensor]:
    ha, wa, hb, wb = _two(*shape)
    a, b = (SimpleNamespace(weight=w, bias=None, scale=1.0, softcap=None) for w in (wa, wb))
    return torch.no_grad()(lambda: linear_kl(hb, b, ha, a))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    for name, value in (("tokens", 2048), ("vocab", 131072), ("width", 512), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    shape = (args.tokens, args.vocab, args.width)
    costs: dict[str, Cost] = {
        run.__name__: measure(run, *shape, repeats=args.repeats) for run in (ce_dense, ce_tiled, kl_dense, kl_tiled)
    }
    figures = {}
    for job in ("ce", "kl"):
        ours, dense = costs[f"{job}_tiled"], costs[f"{job}_dense"]
        figures[f"{job}_memory_ratio"] = round(ours.peak_mb / dense.peak_mb, 4)
        figures[f"{job}_time_ratio"] = round(ours.seconds / dense.seconds, 3)
    holds = all(figures[name] <= limit for name, limit in TARGETS.items())
    if args.json:
        raw = {f"{n}_{k}": round(v, 3) for n, c in costs.items() for k, v in vars(c).items()}
        print(json.dumps({"name": "logps", "figures": {**figures, **raw}, "targets": TARGETS, "holds": holds}))
        return
    print(f"{args.tokens} tokens, V = {args.vocab}, D = {args.width}, float32, 2 threads")
    for name, cost in costs.items():
        print(f"{name:10s} {cost.seconds:8.3f} s  peak +{cost.peak_mb:8.1f} MB")
    for name, limit in TARGETS.items():
        print(f"{name:18s} {figures[name]:.3f}  target <= {limit}")


if __name__ == "__main__":
    main()
