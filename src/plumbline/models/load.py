"""Loading: one record per model, from the zoo, a folder, an adapter or the hub; what is wrong is said in one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.core.errors import LoadError
from plumbline.models.adapters import check_kind, twin, wear
from plumbline.models.files import ADAPTER_CONFIG, CONFIG, attempt, check_weights, fault, is_causal, read_json
from plumbline.models.lm import LM

if TYPE_CHECKING:
    import torch

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


@dataclass(frozen=True)
class _How:
    device: torch.device
    dtype: torch.dtype | None  # None: the checkpoint's own
    allow_pickle: bool
    trust_remote_code: bool
    attn_implementation: str | None


@dataclass(frozen=True)
class _Place:
    source: str  # what the user wrote
    where: str  # what from_pretrained is given
    folder: Path | None  # None: a hub id

    @property
    def key(self) -> str:
        """Equal for two ways of naming the same weights."""
        return str(self.folder or self.where)


def load(
    source: Any,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> LM:
    """Load a causal language model and its tokenizer.

    Args:
        source: ``zoo:NAME``, a folder in the Hugging Face format (one file or shards), a PEFT adapter folder (its base
            comes from ``base_model_name_or_path``, a relative path being tried from here and from the adapter's
            folder), a hub id, a ``(model, tokenizer)`` pair or an ``LM``. Only a hub id uses the network.
        device: None or "auto" takes cuda, then mps, then cpu.
        dtype: None or "auto" is the checkpoint's own on an accelerator and float32 on the CPU, where half precision is
            slow and less exact; name one ("bfloat16") to override.
        allow_pickle: also read ``pytorch_model.bin``, which can run code while it is read.
        trust_remote_code: run model code that the checkpoint brings along.
        attn_implementation: handed to transformers ("eager", "sdpa", ...).

    Returns:
        The model in evaluation mode with its tokenizer; the tokenizer's padding side is as it was, and a missing pad
        token is set to the end-of-sequence token without a change to the vocabulary.

    Raises:
        LoadError: in one line, whatever is wrong with the files or the arguments.
    """
    if isinstance(source, LM) or _is_pair(source):
        return _given(source, device, dtype)
    how = _how(device, dtype, allow_pickle, trust_remote_code, attn_implementation)
    place = _locate(source)
    root = _root(place)
    config = _config(root, how)
    tokenizer = _tokenizer(place, root, how)
    return _finish(place, root, _weights(root, config, how), tokenizer, how)


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> tuple[Any, int]:
    """The tokenizer of a model and the width of its logits, without its weights; ``source`` as for ``load``."""
    how, place = _how("cpu", trust_remote_code=trust_remote_code), _locate(source)
    root = _root(place)
    return _tokenizer(place, root, how), int(_config(root, how).get_text_config().vocab_size)


def load_pair(base: Any, tuned: Any, **same: Any) -> tuple[LM, LM]:
    """Load the two sides of a comparison; keyword arguments as for ``load``, the same for both.

    Where one side is an adapter of the other, or both are adapters of one base, the weights are in memory once: each
    side is its own module tree over the same storage, so neither sees the other's adapter.
    """
    places = [_locate(side) if isinstance(side, str | Path) else None for side in (base, tuned)]
    roots = [place and _root(place) for place in places]
    (a, b), (root_a, root_b) = places, roots
    if a and b and root_a and root_b and (a != root_a or b != root_b) and root_a.key == root_b.key:
        how = _how(**same)
        config = _config(root_a, how)
        tokenizers = _tokenizer(a, root_a, how), _tokenizer(b, root_b, how)
        body = _weights(root_a, config, how)
        twin_body = twin(body, a.where, b.where)  # before any adapter goes into it
        first = _finish(a, root_a, body, tokenizers[0], how)
        second = _finish(b, root_b, twin_body, tokenizers[1], how)
    elif (
        isinstance(base, LM) and b and root_b and b != root_b and base.adapter is None and base.folder == root_b.folder
    ):
        first = load(base, **same)
        how = replace(_how(**same), device=base.device, dtype=base.dtype)
        second = _finish(b, root_b, twin(base.model, b.where), _tokenizer(b, root_b, how), how)
    else:
        first, second = load(base, **same), load(tuned, **same)
    if second.adapter is not None and second.model is first.model:
        first = replace(first, _worn_by=second.adapter)
    if first.name == second.name and first.source != second.source:
        first, second = replace(first, name=first.source), replace(second, name=second.source)
    return first, second


def _how(
    device: Any = None,
    dtype: Any = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> _How:
    import torch

    if device is None or device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    found = attempt("device", "a torch device", "pass cpu, cuda, cuda:1 or mps", lambda: torch.device(device))
    attempt("device", "one this machine has", "pass device='cpu'", lambda: torch.empty(0, device=found))
    if dtype is None or dtype == "auto":
        kind = torch.float32 if found.type == "cpu" else None
    else:
        named = str(dtype).removeprefix("torch.")
        named = _SHORT_DTYPES.get(named, named)
        kind = getattr(torch, named) if named in _DTYPES else None
        if kind is None:
            raise fault("dtype", "a floating type", dtype, f"pass auto or one of {', '.join(_DTYPES)}")
    return _How(found, kind, allow_pickle, trust_remote_code, attn_implementation)


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple | list) and len(source) == 2 and hasattr(source[0], "parameters")


def _given(source: Any, device: Any, dtype: Any) -> LM:
    """A model that exists already: taken as it is, never moved or cast."""
    if isinstance(source, LM):
        lm = source
    else:
        model, tokenizer = source
        adapter = model if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else None
        if adapter is not None:
            check_kind(adapter.active_peft_config, type(adapter).__name__)
            model = adapter.get_base_model()
        path = str(getattr(model.config, "_name_or_path", "") or "")
        folder = Path(path).resolve() if path and Path(path).is_dir() else None
        name = _short(path) if path else type(model).__name__
        lm = LM(model, _padded(tokenizer, copied=True), name, path or name, None if adapter else folder, adapter)
        _check_vocabulary(lm)
    if device not in (None, "auto") and _how(device).device.type != lm.device.type:
        raise fault("device", f"{lm.device}, where the given model is", device, "move the model with .to() first")
    if dtype not in (None, "auto") and _how("cpu", dtype).dtype != lm.dtype:
        raise fault("dtype", f"{lm.dtype}, as the given model is", dtype, "cast the model with .to() first")
    return lm


def _short(source: str) -> str:
    """The last part of a path, with its parent where the last part alone says nothing (``run7/checkpoint-500``)."""
    parts = [part for part in Path(source).parts if part not in ("/", ".", "..")]
    keep = 2 if parts and parts[-1].startswith(("checkpoint-", "final", "model", "best", "latest")) else 1
    return "/".join(parts[-keep:]) or source


def _locate(source: Any) -> _Place:
    if not isinstance(source, str | Path) or not str(source).strip():
        do = "pass zoo:NAME, a folder, a hub id, a (model, tokenizer) pair or what load() returned"
        raise fault("source", "a model's name or folder", source, do)
    text = str(source)
    if text.startswith("zoo:"):
        from plumbline.models import zoo

        folder = Path(zoo.path(text.removeprefix("zoo:")))
        return _Place(text, str(folder), folder.resolve())
    path = Path(text).expanduser()
    if path.is_dir():
        return _Place(text, str(path), path.resolve())
    if path.exists():
        raise fault("source", "a folder in the Hugging Face format", f"the file {text}", "name the folder it lies in")
    parts = text.split("/")
    looks_like_path = isinstance(source, Path) or len(parts) > 2 or "\\" in text or text[0] in "./~" or not parts[-1]
    if looks_like_path or (len(parts) == 2 and Path(parts[0]).is_dir()):
        raise fault("source", "a folder that exists", text, "check the path")
    return _Place(text, text, None)


def _root(place: _Place) -> _Place:
    """Where the full weights lie: the place itself, or the base of the adapter that it holds."""
    if place.folder is not None:
        if not (place.folder / ADAPTER_CONFIG).exists():
            return place
        named = read_json(place.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    else:
        from transformers.utils.peft_utils import find_adapter_config_file

        found = attempt(
            place.source, "a folder here or a model on the hub", _HUB, lambda: find_adapter_config_file(place.where)
        )
        if found is None:
            return place
        named = read_json(Path(found)).get("base_model_name_or_path")
    argument, do = (
        f"{place.source}/{ADAPTER_CONFIG}",
        "set base_model_name_or_path in that file to the folder of the base",
    )
    if not isinstance(named, str) or not named:
        raise fault(argument, "the config of an adapter that names its base", named, do)
    beside = place.folder / named if place.folder is not None else None
    try:
        root = _locate(str(beside)) if beside and beside.is_dir() and not Path(named).is_dir() else _locate(named)
    except LoadError as raised:
        raise fault(argument, "the config of an adapter whose base exists", named, do) from raised
    if root.folder is not None and (root.folder / ADAPTER_CONFIG).exists():
        raise fault(
            argument, "an adapter on full weights", f"a base that is an adapter, {named}", "merge that one first"
        )
    return root


def _tokenizer(place: _Place, root: _Place, how: _How) -> Any:
    """The adapter's own tokenizer where it has one, otherwise its base's."""
    from transformers import AutoTokenizer

    holder = place if place.folder is None or _has_tokenizer(place.folder) else root
    where, expected = holder.where, "a folder with a tokenizer"
    do = "save one there with tokenizer.save_pretrained(folder)"
    if holder.folder is not None and not _has_tokenizer(holder.folder):
        raise fault(where, expected, "none", do)
    tokenizer = attempt(
        where, expected, do, lambda: AutoTokenizer.from_pretrained(where, trust_remote_code=how.trust_remote_code)
    )
    # without files some classes come up empty, with nothing but their special tokens
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise fault(where, expected, "none", do)
    return _padded(tokenizer)


def _has_tokenizer(folder: Path) -> bool:
    patterns = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json", "tokenization*.py")
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _padded(tokenizer: Any, *, copied: bool = False) -> Any:
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer = copy.deepcopy(tokenizer) if copied else tokenizer
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' table of loaded keys says at length what our errors and warnings say in a line."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _config(root: _Place, how: _How) -> Any:
    """The config, after refusing what is no left-to-right language model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if root.folder is not None:
        if not (root.folder / CONFIG).exists():
            raise fault(root.source, f"a folder with {CONFIG}", "none", "name the folder of a saved model")
        read_json(root.folder / CONFIG)
    do = _HUB if root.folder is None else "check the folder, or update transformers"
    with _quiet():
        config = attempt(
            root.source,
            "a model that transformers knows",
            do,
            lambda: AutoConfig.from_pretrained(root.where, trust_remote_code=how.trust_remote_code),
        )
    if not is_causal(config, dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)):
        got = ", ".join(config.architectures or [config.model_type])
        raise fault(root.source, "a causal language model", got, "pass a model saved from a ...ForCausalLM class")
    return config


def _weights(root: _Place, config: Any, how: _How) -> Any:
    """The causal LM with every weight from the checkpoint, on its device, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    if root.folder is not None:
        check_weights(root.folder, how.allow_pickle)
    quantised = getattr(config, "quantization_config", None) is not None
    options: dict[str, Any] = {"dtype": "auto" if how.dtype is None or quantised else how.dtype}
    options["ignore_mismatched_sizes"] = True  # refused below, by name
    options["trust_remote_code"] = how.trust_remote_code
    if how.device.type != "cpu":
        options["device_map"] = {"": how.device}
    if how.attn_implementation is not None:
        options["attn_implementation"] = how.attn_implementation
    if not how.allow_pickle:
        options["use_safetensors"] = True
    with _quiet():
        loaded: Any = attempt(
            root.source,
            "a checkpoint that transformers can load",
            "check its config and the options (dtype, attn_implementation)",
            lambda: AutoModelForCausalLM.from_pretrained(root.where, output_loading_info=True, **options),
        )
    model, info = loaded
    if info["mismatched_keys"]:
        shapes = sorted(f"{name}: {list(there)} for {list(wanted)}" for name, there, wanted in info["mismatched_keys"])
        raise fault(
            root.source, "weights of the shapes its config says", shapes[0], "use the config they were saved with"
        )
    if info["missing_keys"]:
        got = f"without {_some(info['missing_keys'])}"
        raise fault(root.source, "a checkpoint with every weight", got, "save the whole model anew")
    if info["unexpected_keys"]:
        warnings.warn(
            f"load: {root.source} has weights its model does not use: {_some(info['unexpected_keys'])}", stacklevel=4
        )
    return model.eval()


def _some(keys: Any) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _finish(place: _Place, root: _Place, model: Any, tokenizer: Any, how: _How) -> LM:
    adapter = None if place == root else wear(model, place.where, place.folder, how.allow_pickle)
    body = model if adapter is None else adapter.get_base_model()
    folder = place.folder or _snapshot(place.where)
    name = place.source if place.folder is None or place.source.startswith("zoo:") else _short(str(place.folder))
    lm = LM(body, tokenizer, name, place.source, folder, adapter)
    _check_vocabulary(lm)
    return lm


def _snapshot(hub_id: str) -> Path | None:
    """The folder of the local cache that a hub model was put in."""
    from transformers.utils import cached_file

    for name in (CONFIG, ADAPTER_CONFIG):
        found = cached_file(hub_id, name, _raise_exceptions_for_missing_entries=False, local_files_only=True)
        if found is not None:
            return Path(found).parent
    return None


def _check_vocabulary(lm: LM) -> None:
    """Refuse ids that the embedding has no row for, unless no text or template can lead to them."""
    size = lm.model.get_input_embeddings().weight.shape[0]
    beyond = {token: i for token, i in lm.tokenizer.get_vocab().items() if i >= size}
    if not beyond:
        return
    kinds = lm.tokenizer.added_tokens_decoder
    used = {getattr(lm.tokenizer, f"{role}_token", None) for role in ("bos", "eos", "unk", "pad")}
    template = str(getattr(lm.tokenizer, "chat_template", None) or "")
    # Gemma 3's text models carry an image token past their embedding; it never occurs in text
    idle = [t for t, i in beyond.items() if i in kinds and kinds[i].special and t not in used and t not in template]
    if len(idle) == len(beyond):
        warnings.warn(f"load: {lm.source}: no embedding for the special tokens {_some(idle)}", stacklevel=4)
        return
    got = f"{len(beyond)} tokens with ids up to {max(beyond.values())} ({_some(beyond)})"
    do = "use the tokenizer the model was trained with, or model.resize_token_embeddings"
    raise fault(f"{lm.source}'s tokenizer", f"within the {size} rows of the embedding", got, do)


_HUB = "check the name and the connection (a folder would be found without either)"
