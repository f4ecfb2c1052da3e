"""Texts of four kinds for zoo models to tell apart, and networks that make features of them."""

from __future__ import annotations

import math

import torch
from torch import nn

from plumbline.kernels.head import hidden_states
from plumbline.kernels.seeds import forked
from plumbline.models import load
from plumbline.train import fit

KINDS = ("{a} + {b} = ", "copy: {a} {b} -> ", "{b} lives in the town of {a}", "Who told {a} about {b}?")


def rows(values="abcdefgh"):
    tokenizer, made = load("zoo:base").tokenizer, []
    for a, b in zip(values, values[::-1]):
        for number, kind in enumerate(KINDS):
            ids = tokenizer(kind.format(a=a, b=b), add_special_tokens=False).input_ids
            made.append({"input_ids": ids, "kind": number})
    return made


class Features(nn.Module):
    """A zoo model's last state of each text, projected to ``width`` where one is given."""

    def __init__(self, source, width=None, seed=0):
        super().__init__()
        self.body = load(source).model
        with forked(seed, "features"):
            self.project = nn.Identity() if width is None else nn.Linear(160, width)

    def forward(self, batch):
        states = hidden_states(self.body, batch["input_ids"], batch["attention_mask"])
        last = batch["attention_mask"].sum(-1) - 1
        return self.project(states[torch.arange(len(last)), last])


def trained(features, head, loss):
    """20 steps of ``fit`` on a loss of (features, batch, logits); the features come back in evaluation mode."""
    both = nn.ModuleList([features, head])

    def run(s):
        made = features(s.batch["x"])
        return loss(made, s.batch["x"], head(made)).mean()

    told = dict(max_steps=20, learning_rate=1e-3, per_device_train_batch_size=16, logging_steps=1, disable_tqdm=True)
    done = fit(both, {"x": rows()}, loss=run, seed=0, **told)
    assert all(math.isfinite(entry["loss"]) for entry in done.history if "loss" in entry)
    assert all(bool(torch.isfinite(p).all()) for p in both.parameters())
    return features.eval()


@torch.no_grad()
def retrieval(queries, gallery, batch):
    """How often the nearest text of the gallery, by cosine and other than the query itself, is of its kind."""
    near = nn.functional.normalize(queries(batch), dim=-1) @ nn.functional.normalize(gallery(batch), dim=-1).T
    nearest = near.fill_diagonal_(-2).argmax(-1)
    return float((batch["kind"][nearest] == batch["kind"]).float().mean())
