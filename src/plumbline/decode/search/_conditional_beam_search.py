"""Conditional beam search: the likeliest outputs among those that have an attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from plumbline.core.declare import Count, Evidence, NonNegative, Paper, claim, sampler
from plumbline.core.errors import refuse
from plumbline.decode.loop import Report, Run
from plumbline.decode.search.beams import Beam, grow
from plumbline.decode.search.toys import Toy, clean_source, contaminated
from plumbline.kernels.cached_lm import CachedLM
from plumbline.lab.tiny import tiny


@dataclass
class _Beams(ModelOutput):
    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    log_probs: Tensor | None = None
    attribute_log_probs: Tensor | None = None


@sampler(
    paper=Paper(
        "Making the Most of your Model: Methods for Finetuning and Applying Pretrained Transformers",
        "Yoshida",
        2024,
        arxiv="2408.16241",
    ),
    says="Beam search for log p(y|x) + log p(a|x,y): likely outputs among those that are not degenerate.",
    differs=(
        "Ended hypotheses keep their place in the beam and compete on; the search ends when all in it have ended.",
        "Hypotheses that cannot have the attribute rank below all others, by log p(y|x), and are not dropped: a beam "
        "is never empty.",
        "Nothing is drawn: do_sample only says whether temperature, top-k and top-p act on the log-probabilities.",
    ),
)
def conditional_beam_search(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    attribute: Callable | None = None, exact: Callable | None = None, weight: NonNegative = 1.0, beams: Count = 5,
    branch: Count | None = None, n_best: Count = 1, report: Report | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""Keep the ``beams`` best of every hypothesis's ``branch`` likeliest continuations.

    .. math:: \log p(y_{1:t} \mid x) + weight \cdot \log \hat p(a \mid x, y_{1:t})

    Args:
        input_ids: [R, L] prompts, left-padded. attribute: ``ids [N, T] -> [N]``, prompt and padding included: log of
            the probability that the COMPLETED output will have the attribute, -inf where it cannot; None: ordinary
            beam search without length penalty.
        exact: the same for outputs that have ended, where it can be known (0 or -inf); default ``attribute``.
        weight: of the attribute; 0 is beam search. beams: B. branch: continuations a hypothesis; default 2 B.
        n_best: outputs to return a prompt, at most B. report: filled with calls and tokens.

    Returns:
        [R n_best, T] ids, right-padded, a prompt's outputs together and the best first (the last repeated if there are
        fewer). With ``return_dict_in_generate`` also ``sequences_scores``, ``log_probs``, ``attribute_log_probs``.

    Raises:
        InputError: what no loop here can honour (num_beams, stop_strings ...), or an attribute that is not [N] logs.
    """
    run = Run("conditional_beam_search", model, input_ids, logits_processor, stopping_criteria, generation_config,
              model_kwargs, report=report)  # fmt: skip
    repeated = int(generation_config.num_return_sequences or 1)
    if repeated > 1 or n_best > beams:
        raise refuse(run.where, "n_best", f"at most beams = {beams}, and num_return_sequences 1",
                     f"{n_best} and {repeated}", "pass n_best and enough beams")  # fmt: skip
    hypotheses = [[Beam((), 0.0, 0.0, done)] for done in run.done]
    lm, judges = CachedLM(model, pad_token_id=-1), (attribute, exact or attribute) if weight else (None, None)
    while growing := [(r, beam) for r, some in enumerate(hypotheses) for beam in some if not beam.ended]:
        grown = grow(run, lm, growing, branch or 2 * beams, judges)
        for r, some in enumerate(hypotheses):
            pool = [beam for beam in some if beam.ended] + grown.get(r, [])
            if not pool:
                raise refuse(run.where, "logits_processor", "rules that leave a token", "none left", "allow one")
            hypotheses[r] = sorted(pool, key=lambda beam: -beam.score(weight))[:beams]
    best = [(r, some[min(i, len(some) - 1)]) for r, some in enumerate(hypotheses) for i in range(n_best)]
    run.rows, run.pads = [[*run.rows[r], *beam.tokens] for r, beam in best], [run.pads[r] for r, _ in best]
    run.report.tokens += sum(len(beam.tokens) for _, beam in best)
    run.report.calls, run.report.fed = run.report.calls + lm.calls, run.report.fed + lm.tokens_fed
    out = run.result()
    if not generation_config.return_dict_in_generate:
        return out
    scores = [[beam.score(weight), beam.logp, beam.attribute] for _, beam in best]
    return _Beams(out.sequences, *torch.tensor(scores, device=input_ids.device).T)


@claim(conditional_beam_search, "A little empty text makes the mode empty; the mode given that it is not is clean.",
       cost="cpu:4s")  # fmt: skip
def empty_modes() -> Evidence:
    model, prompt, wrong = tiny("llama", vocab=7), torch.tensor([[1]]), {"plain": 0, "conditional": 0, "below": 0}
    for seed in range(10):
        clean = clean_source(seed)
        top = max(clean, key=clean.__getitem__)
        edge = clean[top] / (1 + clean[top])  # e > (1 - e) max clean

        def search(share: float, clean: dict[tuple[int, ...], float] = clean, **options: Any) -> tuple[int, ...]:
            ids = model.generate(prompt, custom_generate=conditional_beam_search, max_new_tokens=6, beams=20,
                                 logits_processor=contaminated(clean, share, 1), **options)  # fmt: skip
            return tuple(t for t in ids[0, 1:].tolist() if t != 0)

        def spoken(ids: Tensor) -> Tensor:
            return torch.where(ids[:, 1] == 2, -torch.inf, 0.0)

        wrong["plain"] += search(edge * 1.01) != (2,)
        wrong["below"] += search(edge * 0.99) != top
        wrong["conditional"] += search(edge * 1.01, attribute=spoken) != top
    return Evidence(holds=sum(wrong.values()) == 0, measured={"wrong_of_10": wrong}, control=wrong["plain"] == 0)


@claim(
    conditional_beam_search, "Two conditional beams find likelier outputs than a beam filtered after.", cost="cpu:15s"
)
def better_than_filtering() -> Evidence:
    ours, theirs = [], []
    for toy in map(Toy, range(50)):
        ours.append(toy.best(toy.search(conditional_beam_search, attribute=toy.attribute, beams=2)))
        theirs.append(toy.best(toy.search(conditional_beam_search, beams=2, n_best=2)))
    share = sum(a >= b for a, b in zip(ours, theirs, strict=True)) / 50
    empty = {"conditional": sum(a == -torch.inf for a in ours), "filtered": sum(b == -torch.inf for b in theirs)}
    measured = {"share_at_least_as_likely": share, "no_output_with_the_attribute": empty}
    return Evidence(holds=share >= 0.9, measured=measured, control=empty["filtered"] > empty["conditional"])
