"""Why kNN-LM's better perplexity does not make better text: who gains, and what retrieval does on generated text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Positive, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.contrast import rare_facts
from plumbline.decode.contrast._knn_lm import knn_lm
from plumbline.decode.contrast.datastore import Datastore
from plumbline.decode.contrast.knn_scores import by_frequency, by_position, diversity, slopes, token_scores
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.seeds import forked, rng


@function(
    paper=Paper("KNN-LM Does Not Improve Open-ended Text Generation", "Wang et al.", 2023, arxiv="2305.14625"),
    says="Show which tokens retrieval helps, and how sure model and retrieval stay as generated text grows.",
    differs=(
        "Text quality is measured by distinct n-grams; MAUVE and human judgement need more than the two models.",
        "Tokens are binned by how often they stand in the datastore, in bins of equal numbers of tokens.",
    ),
)
def knn_generation_study(
    model: Any, texts: Sequence[Tensor], prompts: Tensor, *, datastore: Datastore | Path | str, k: Count = 1024,
    lam: Probability = 0.25, temperature: Positive = 1.0, probe: Count | None = None, new_tokens: Count = 256,
    top_p: Annotated[float, Bound(gt=0, le=1)] = 0.8, bins: Count = 5, documents: Sequence | None = None, seed: int = 0,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    r"""The paper's study of one model and one datastore.

    .. math::
        \Delta_t = \log[\lambda p_{kNN}(x_t) + (1 - \lambda) p_{LM}(x_t)] - \log p_{LM}(x_t), \qquad
        H_t = -\sum_v p(v \mid x_{<t}) \log p(v \mid x_{<t})

    Args:
        model: the datastore's, see ``knn_lm``. texts: held-out rows of ids [L_i]. prompts: [N, P] ids, unpadded.
        datastore, k, lam, temperature, probe: as for ``knn_lm``.
        new_tokens: length of the continuations, sampled from the nucleus ``top_p`` under ``seed``.
        bins: of token frequency. documents: the datastore's document that each text is, from which nothing is
            retrieved, where held-out text cannot be had; -1 for none.

    Returns:
        Tables: "perplexity" (lm, knn_lm); "tokens" by frequency bin and over all (share improved, nats gained, lost);
        "entropy" by text (gold, lm, knn_lm) and position beyond the prompts; "slopes" of those, nats a token;
        "diversity" of both models' continuations.
    """
    if prompts.dim() != 2 or prompts.shape[1] == 0:
        got = list(prompts.shape)
        raise refuse("knn_generation_study", "prompts", "[N, P] with P >= 1", got, "cut them to one length")
    store = Datastore.of(datastore)
    lm = model if isinstance(model, CachedLM) else CachedLM(model)
    how = {"k": k, "temperature": temperature, "probe": probe}
    rule = knn_lm(lm, datastore=store, lam=lam, **how)
    gold = token_scores(lm, texts, store, lam=lam, documents=documents, **how)
    written = {
        name: _continued(lm, prompts, new_tokens, top_p, seed, used) for name, used in (("lm", None), ("knn_lm", rule))
    }
    start = prompts.shape[1]
    scores = {"gold": gold} | {n: token_scores(lm, list(ids), store, lam=lam, **how) for n, ids in written.items()}
    curves = {name: by_position(table[table["position"] >= start]) for name, table in scores.items()}
    perplexity = {name: [float(np.exp(-gold[column].mean()))] for name, column in (("lm", "lm"), ("knn_lm", "mixed"))}
    return {
        "perplexity": pd.DataFrame(perplexity),
        "tokens": by_frequency(gold, np.bincount(store.values, minlength=store.vocab), bins),
        "entropy": pd.concat([curve.assign(text=name) for name, curve in curves.items()], ignore_index=True),
        "slopes": pd.DataFrame([{"text": name} | slopes(curve) for name, curve in curves.items()]),
        "diversity": pd.DataFrame([{"text": n} | diversity(ids[:, start:]) for n, ids in written.items()]),
    }


def _continued(lm: CachedLM, prompts: Tensor, n: int, top_p: float, seed: int, rule: Any) -> Tensor:
    """Prompts with n sampled tokens behind them, [N, P + n], none of them the end of the text."""
    ends = lm.model.generation_config.eos_token_id is not None
    how = dict(do_sample=True, top_p=top_p, top_k=0, temperature=1.0, max_new_tokens=n)
    how |= {"min_new_tokens": n} if ends else {}
    ids = prompts.to(lm.device)
    with forked(seed, "knn_generation_study", devices=[lm.device]):
        if rule is None:
            return lm.model.generate(ids, attention_mask=torch.ones_like(ids), **how).cpu()
        with rule:
            return lm.model.generate(ids, attention_mask=torch.ones_like(ids), logits_processor=[rule], **how).cpu()


@claim(
    knn_generation_study,
    "Retrieval lowers perplexity though most tokens get less likely, and grows unsure of the model's own text faster.",
    cost="cpu:15s",
)
def few_tokens_gain() -> Evidence:
    world = rare_facts.RareFacts.make()
    told, held_out = world.texts(2000, 64, 1), world.texts(40, 64, 2)
    model = world.trained(told)
    store = Datastore.build(model, list(told[:400]))
    stirred = Datastore(store.keys, rng(0, "stirred").permutation(store.values), store.ends, store.meta)
    measured: dict[str, float] = {}
    for name, used, n in (("stirred", stirred, 8), ("own", store, 64)):
        found = knn_generation_study(model, list(held_out), held_out[:16, :8], datastore=used, k=128, new_tokens=n)
        share, tokens = found["tokens"].iloc[-1][["improved", "tokens"]]
        lm, mixed = found["perplexity"].iloc[0][["lm", "knn_lm"]]
        measured |= {f"{name}_improved": share, f"{name}_perplexity_ratio": mixed / lm}
        measured[f"{name}_standard_error"] = (share * (1 - share) / tokens) ** 0.5
    rise = found["slopes"].set_index("text").eval("entropy_knn - entropy_lm")
    measured |= {f"entropy_rises_faster_on_{text}": rise[text] for text in ("gold", "lm")}
    few = measured["own_improved"] + 3 * measured["own_standard_error"] < 0.5
    holds = few and measured["own_perplexity_ratio"] < 1 and rise["lm"] > 0
    return Evidence(holds, measured, control=measured["stirred_perplexity_ratio"] > 1)
