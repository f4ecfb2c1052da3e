"""Whether an engine's log-probabilities can be compared with the trainer's: refused before a run, not found in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plumbline.core.errors import refuse

# by vLLM's, SGLang's and transformers' names: the values that change nothing
_OFF: dict[str, tuple[Any, ...]] = {"top_p": (None, 1, 1.0), "top_k": (None, 0, -1), "min_p": (None, 0, 0.0),
                                    "typical_p": (None, 1, 1.0), "epsilon_cutoff": (None, 0, 0.0),
                                    "eta_cutoff": (None, 0, 0.0)}  # fmt: skip
_RESHAPED: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1, 1.0), "presence_penalty": (None, 0, 0.0), "frequency_penalty": (None, 0, 0.0),
    "no_repeat_ngram_size": (None, 0), "logit_bias": (None, {}), "logits_processors": (None, []),
    "logits_processor": (None, []), "bad_words": (None, []), "bad_words_ids": (None, []),
    "allowed_token_ids": (None, []), "suppress_tokens": (None, []), "min_tokens": (None, 0),
    "min_new_tokens": (None, 0), "structured_outputs": (None,), "guided_decoding": (None,), "watermark": (None, False),
}  # fmt: skip
_WHERE = "check_sampler"


def check_sampler(
    settings: Mapping[str, Any] | object, *, temperature: float = 1.0, processed: bool = True, support: bool = False,
    allow_support_bias: bool = False,
) -> None:  # fmt: skip
    r"""Refuse sampling settings under which :math:`\pi_{old}/\mu` is not the ratio of the two models.

    An engine that keeps a set S of tokens reports :math:`\mu(y)/\mu(S)`: with identical weights every log-ratio is
    :math:`\log\mu(S) < 0`, a bias that grows with length. Its sets, replayed with ``Scored.of(..., support=)`` for
    every role, remove it. Settings by the names of vLLM's ``SamplingParams`` or transformers' ``GenerationConfig``;
    names that are not there count as off.

    Args:
        settings: a mapping, or an object with such attributes.
        temperature: by which the trainer divides its logits.
        processed: the engine reports log-probabilities after temperature and truncation (vLLM's
            ``logprobs_mode="processed_logprobs"``), not of the raw logits.
        support: the kept sets are recorded and replayed by the trainer.
        allow_support_bias: go on without them.

    Raises:
        InputError: one line that names the setting.
    """
    told = _settings(settings)
    engine = told.get("temperature")
    engine = 1.0 if engine is None else float(engine)
    if engine <= 0:
        raise refuse(_WHERE, "temperature", "> 0 (greedy answers have no ratio)", engine, "sample at temperature 1")
    if abs(engine - temperature) > 1e-6:
        do = f"score with Scored.of(..., temperature={engine:g}), or sample at {temperature:g}"
        raise refuse(_WHERE, "temperature", f"the trainer's, {temperature:g}", engine, do)
    if not processed and engine != 1.0:
        do = 'set logprobs_mode="processed_logprobs", or sample at temperature 1'
        raise refuse(_WHERE, "processed", "True where the temperature is not 1", f"raw log-probabilities at {engine:g}",
                     do)  # fmt: skip
    for name, off in _RESHAPED.items():
        if name in told and not _is_off(told[name], off):
            do = "leave it out of rollouts: the engine then draws from another distribution than the model's"
            raise refuse(_WHERE, name, "off", told[name], do)
    if allow_support_bias:
        return
    for name, off in _OFF.items():
        if name in told and not _is_off(told[name], off):
            _truncated(name, told[name], processed, support)


def _truncated(name: str, value: Any, processed: bool, support: bool) -> None:
    if not support:
        do = "record the kept token ids and pass support=True, sample without it, or pass allow_support_bias=True"
        raise refuse(_WHERE, name, "off where the kept sets are not recorded", value, do)
    if not processed:
        do = 'set logprobs_mode="processed_logprobs"'
        raise refuse(_WHERE, name, "off where raw log-probabilities are reported", value, do)


def _settings(settings: Any) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    names = ("temperature", *_OFF, *_RESHAPED)
    return {name: getattr(settings, name) for name in names if hasattr(settings, name)}


def _is_off(value: Any, off: tuple[Any, ...]) -> bool:
    empty = hasattr(value, "__len__") and len(value) == 0
    return empty or any(type(value) in (int, float, bool, type(None)) and value == one for one in off)
