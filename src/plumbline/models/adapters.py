"""Adapters on a base: putting one on, and a second module tree over the base's own storage."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

from plumbline.models.files import attempt, check_adapter, fault, rows


def check_kind(config: Any, source: str) -> None:
    if config.is_prompt_learning:
        got = f"{getattr(config.peft_type, 'value', config.peft_type)}, which feeds the model virtual tokens"
        raise fault(source, "an adapter of weights (LoRA and its kin)", got, "compare adapters of weights only")


def wear(model: Any, where: str, folder: Path | None, allow_pickle: bool) -> Any:
    """Put the adapter's layers into ``model`` (changed in place); returns the PeftModel around it."""
    from peft import PeftConfig, PeftModel

    do = "check that adapter and base belong together (base_model_name_or_path)"
    expected = "an adapter that fits its base"
    if folder is not None:
        check_adapter(folder, allow_pickle)
    config = attempt(where, expected, do, lambda: PeftConfig.from_pretrained(where))
    check_kind(config, where)
    wanted = None if folder is None else rows(folder)
    if wanted is not None and wanted != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(wanted, mean_resizing=False)  # tokens added in tuning come with their own rows
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapter = attempt(
            where,
            expected,
            do,
            lambda: PeftModel.from_pretrained(model, where, config=config, autocast_adapter_dtype=False),
        )
    missing = [str(w.message) for w in said if "missing adapter keys" in str(w.message)]
    if missing:
        raise fault(where, "an adapter with every weight its config names", missing[0], "save the adapter anew")
    return adapter.eval()


def twin(model: Any, *adapters: str) -> Any:
    """A second module tree over the same storage: layers put into one do not show in the other.

    Some adapters change their base as they are put on (PiSSA, OLoRA, LoftQ...); for those the storage is copied too.
    """
    from torch import nn

    if any(_rewrites_base(where) for where in adapters):
        return copy.deepcopy(model)
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for p in model.parameters():
        # a quantised parameter is a class of its own with more than its data; it is shared as it is
        memo[id(p)] = nn.Parameter(p.data, requires_grad=p.requires_grad) if type(p) is nn.Parameter else p
    return copy.deepcopy(model, memo)


def _rewrites_base(where: str) -> bool:
    from peft import PeftConfig

    try:
        how = getattr(PeftConfig.from_pretrained(where), "init_lora_weights", True)
    except Exception:  # full weights have no adapter config; a damaged one is refused when it is put on
        return False
    return isinstance(how, str) and how not in ("gaussian", "orthogonal", "eva")
