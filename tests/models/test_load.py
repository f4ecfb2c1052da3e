from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from plumbline.core.errors import LoadError
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from plumbline.models import LM, load, load_pair

VOCAB = 320


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def llama(seed: int = 0, vocab: int = VOCAB, **changes) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, **shape | changes)).eval()


def save(model, folder: Path, tokenizer=True, **options) -> Path:
    model.save_pretrained(folder, **options)
    if tokenizer:
        (tiny_tokenizer(VOCAB) if tokenizer is True else tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save(llama(), tmp_path_factory.mktemp("saved") / "llama")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def lora(base_folder: Path, folder: Path, *, named: str | None = None, seed: int = 1, **options) -> Path:
    from peft import LoraConfig, get_peft_model

    model = LlamaForCausalLM.from_pretrained(base_folder)
    model = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options)
    )
    noise = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(generator=noise)
    model.save_pretrained(folder)
    if named is not None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
    return folder


def logits(lm: LM) -> torch.Tensor:
    with lm.use() as model, torch.no_grad():
        return model(torch.arange(8)[None]).logits


def error(*args, **kwargs) -> str:
    with pytest.raises(LoadError) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what loads


def test_a_folder_gives_the_saved_model(saved):
    lm = load(saved)
    assert torch.equal(logits(lm), llama()(torch.arange(8)[None]).logits)
    assert (lm.name, lm.folder, lm.context, lm.architecture) == ("llama", saved.resolve(), 64, "LlamaForCausalLM")
    assert (lm.dtype, lm.device.type, lm.has_chat_template) == (torch.float32, lm.device.type, False)
    assert not lm.model.training


def test_tied_weights(tmp_path):
    save(GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2, n_positions=48)), tmp_path)
    lm = load(str(tmp_path))
    assert lm.model.lm_head.weight.data_ptr() == lm.model.transformer.wte.weight.data_ptr()
    assert lm.context == 48


def test_shards_load_like_one_file(saved, tmp_path):
    save(llama(), tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(load(tmp_path)), logits(load(saved)))


def test_dtype_is_float32_on_the_cpu_and_what_was_asked_otherwise(tmp_path):
    save(llama().bfloat16(), tmp_path)
    assert load(tmp_path, device="cpu").dtype == torch.float32
    assert load(tmp_path, device="cpu", dtype="bf16").dtype == torch.bfloat16
    assert load(tmp_path, device="cpu", dtype=torch.float16).dtype == torch.float16


def test_pad_token_is_eos_when_missing_and_the_rest_is_untouched(tmp_path):
    tokenizer = tiny_tokenizer(VOCAB, pad=False, chat_template=CHAT_TEMPLATE)
    save(llama(), tmp_path, tokenizer)
    lm = load(tmp_path)
    assert lm.tokenizer.pad_token == "</s>" and len(lm.tokenizer) == len(tokenizer)
    assert lm.tokenizer.padding_side == tokenizer.padding_side and lm.has_chat_template


def test_pickled_weights_load_only_when_allowed(folder):
    want = logits(load(folder))
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "--allow-pickle" in error(folder)
    assert torch.equal(logits(load(folder, allow_pickle=True)), want)


def test_unexpected_weights_only_warn(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors") | {"extra.weight": torch.zeros(2)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"extra\.weight"):
        load(folder)


def test_a_built_model_passes_through_unmoved(saved):
    lm = load(saved)
    assert load(lm) is lm
    tokenizer = tiny_tokenizer(VOCAB, pad=False)
    again = load((lm.model, tokenizer))
    assert again.model is lm.model and again.folder == saved.resolve()
    assert again.tokenizer.pad_token == "</s>" and tokenizer.pad_token is None
    with pytest.raises(LoadError, match=r"dtype must be torch\.float32"):
        load(lm, dtype="bf16")
    assert load(lm, dtype="float32", device=lm.device) is lm


def test_use_restores_training_mode(saved):
    lm = load(saved)
    lm.model.train()
    with lm.use() as model:
        assert not model.training
    assert lm.model.training


# ---- adapters


def test_adapter_base_is_found_beside_it(saved, tmp_path):
    base = Path(shutil.copytree(saved, tmp_path / "base"))
    adapter = lora(base, tmp_path / "adapter", named="../base")
    lm = load(adapter)
    assert lm.architecture == "LlamaForCausalLM" and lm.adapter is not None and lm.folder == adapter.resolve()
    merged = load(adapter).adapter.merge_and_unload()(torch.arange(8)[None]).logits
    assert torch.allclose(logits(lm), merged, atol=1e-5)
    assert (logits(lm) - logits(load(base))).abs().max() > 1e-2


def _q(model):
    layer = model.model.layers[0].self_attn.q_proj
    return getattr(layer, "base_layer", layer).weight


@pytest.mark.parametrize("init", [True, "pissa", "olora"])
def test_a_pair_shares_one_set_of_weights(saved, tmp_path, init):
    adapter = lora(saved, tmp_path / "adapter", named=str(saved), init_lora_weights=init)
    base, tuned = load_pair(saved, adapter)
    assert torch.equal(logits(base), logits(load(saved)))
    assert torch.equal(base.model(torch.arange(8)[None]).logits, logits(base))  # outside use() as well
    assert torch.allclose(logits(tuned), logits(load(adapter)), atol=1e-5)
    assert (logits(tuned) - logits(base)).abs().max() > 1e-2
    # adapters that rewrite their base as they are put on cannot share it
    assert (_q(base.model).data_ptr() == _q(tuned.model).data_ptr()) == (init is True)


def test_a_pair_shares_from_a_loaded_base_and_between_two_adapters(saved, tmp_path):
    first, second = (lora(saved, tmp_path / str(n), named=str(saved), seed=n) for n in (1, 2))
    loaded = load(saved)
    base, tuned = load_pair(loaded, first)
    assert base is loaded and _q(base.model).data_ptr() == _q(tuned.model).data_ptr()
    a, b = load_pair(first, second)
    assert _q(a.model).data_ptr() == _q(b.model).data_ptr()
    assert torch.allclose(logits(a), logits(load(first)), atol=1e-6)
    assert torch.allclose(logits(b), logits(load(second)), atol=1e-6)


def test_a_model_that_peft_was_put_into_is_still_the_base_inside_use(saved, tmp_path):
    from peft import PeftModel

    adapter = lora(saved, tmp_path / "adapter")
    model, tokenizer = LlamaForCausalLM.from_pretrained(saved), tiny_tokenizer(VOCAB)
    base, tuned = load_pair((model, tokenizer), (PeftModel.from_pretrained(model, adapter), tokenizer))
    assert torch.allclose(logits(base), logits(load(saved)), atol=1e-6)
    assert (logits(tuned) - logits(base)).abs().max() > 1e-2


def test_an_adapter_with_added_tokens(saved, tmp_path):
    from peft import LoraConfig, get_peft_model

    tokenizer = tiny_tokenizer(VOCAB)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    model = LlamaForCausalLM.from_pretrained(saved)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    kept = ["embed_tokens", "lm_head"]
    model = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=kept, task_type="CAUSAL_LM")
    )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base, tuned = load_pair(saved, tmp_path)
    assert base.model.get_input_embeddings().weight.shape[0] == VOCAB
    assert logits(tuned).shape[-1] == len(tuned.tokenizer) == VOCAB + 2
    assert torch.allclose(logits(tuned), model.eval()(torch.arange(8)[None]).logits, atol=1e-6)


def test_adapter_faults(saved, tmp_path):
    other = save(llama(hidden_size=16), tmp_path / "other")
    assert "size mismatch" in error(lora(saved, tmp_path / "a", named=str(other)))
    gone = error(lora(saved, tmp_path / "b", named="/no/such/base"))
    assert "adapter_config.json" in gone and "/no/such/base" in gone
    from safetensors.torch import load_file, save_file

    path = lora(saved, tmp_path / "c") / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(dict(list(tensors.items())[1:]), path, metadata={"format": "pt"})
    assert "every weight its config names" in error(path.parent)
    path.write_bytes(path.read_bytes()[:-8])
    assert "adapter_model.safetensors" in error(path.parent)
    path.unlink()
    assert "no weights" in error(path.parent)


def test_prompt_tuning_is_refused(saved, tmp_path):
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(saved), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=4)
    )
    model.save_pretrained(tmp_path)
    assert "virtual tokens" in error(tmp_path)


# ---- what is refused


def test_paths_and_names(tmp_path):
    assert "a folder that exists" in error("/no/such/place")
    assert "a folder that exists" in error("./nothing")
    assert "a folder that exists" in error(tmp_path / "nothing")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "model.gguf" in error(tmp_path / "model.gguf")
    assert "no-such-model-at-all" in error("nobody/no-such-model-at-all")
    assert "zoo:NAME" in error(3)
    assert "zoo:NAME" in error("")


def test_missing_files(folder, tmp_path):
    assert "config.json" in error(tmp_path)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "a folder with a tokenizer, got none" in error(folder)
    save(GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2)), tmp_path / "g", tokenizer=False)
    assert "a folder with a tokenizer" in error(tmp_path / "g")  # GPT-2's class would come up empty


def test_damaged_json(folder):
    (folder / "tokenizer.json").write_text("{")
    assert "a folder with a tokenizer" in error(folder)
    (folder / "config.json").write_text("{nonsense")
    assert "config.json" in error(folder)
    (folder / "config.json").write_text("[]")
    assert "a JSON object" in error(folder)
    (folder / "config.json").write_text('{"model_type": "no_such_type"}')
    assert "no_such_type" in error(folder)


def test_vocabulary_larger_than_the_embedding(tmp_path):
    save(llama(vocab=300), tmp_path)
    text = error(tmp_path)
    assert "300 rows" in text and "20 tokens" in text and "319" in text


def test_a_special_token_past_the_embedding_that_no_text_reaches_only_warns(tmp_path):
    tokenizer = tiny_tokenizer(VOCAB)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    save(llama(), tmp_path, tokenizer)
    with pytest.warns(UserWarning, match="<image>"):
        load(tmp_path)
    tokenizer.chat_template = "<image>" + CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    assert "320 rows" in error(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -2000])
def test_a_truncated_shard_is_named(tmp_path, keep):
    save(llama(), tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:keep])
    assert shard.name in error(tmp_path)


def test_damaged_headers(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for bad in (b"version https://git-lfs.github.com/spec/v1\n", data + b"more", data[:8] + b"\xff" + data[9:]):
        path.write_bytes(bad)
        assert "model.safetensors" in error(folder)
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    assert "damaged header" in error(folder)


def test_an_index_that_names_a_missing_shard(tmp_path):
    save(llama(), tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in error(tmp_path)


def test_missing_weights_are_not_initialised_in_silence(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in error(folder)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "up_proj.weight: [3, 3] for [48, 32]" in error(folder)
    (folder / "model.safetensors").unlink()
    assert "no weights" in error(folder)


def test_models_that_are_not_causal(tmp_path):
    bert = BertConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    save(BertForMaskedLM(bert), tmp_path / "bert")
    assert "BertForMaskedLM" in error(tmp_path / "bert")
    save(LlamaModel(llama().config), tmp_path / "headless")
    assert "a causal language model" in error(tmp_path / "headless")
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    save(t5, tmp_path / "t5")
    assert "T5ForConditionalGeneration" in error(tmp_path / "t5")


def test_remote_code_needs_leave(folder):
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own_kind"}
    config["auto_map"] = {"AutoConfig": "conf.Own", "AutoModelForCausalLM": "model.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "--trust-remote-code" in error(folder)


def test_arguments(saved):
    assert "dtype" in error(saved, dtype="int8") and "dtype" in error(saved, dtype="floaty")
    assert "device" in error(saved, device="tpu9")
    assert "attn" in error(saved, attn_implementation="nonsense")
    if not torch.cuda.is_available():
        assert "device" in error(saved, device="cuda")


def test_sides_with_one_name_are_told_apart(saved, tmp_path):
    twin = shutil.copytree(saved, tmp_path / "llama")
    base, tuned = load_pair(str(saved), str(twin))
    assert (base.name, tuned.name) == (str(saved), str(twin))


def test_loading_says_nothing_for_a_sound_model(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(saved)
