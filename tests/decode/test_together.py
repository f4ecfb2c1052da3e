from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.decode.loop import Report
from plumbline.decode.together import together
from plumbline.kernels.peer import Peer, Rule
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny

IDS = torch.tensor([[0, 0, 5, 9, 11], [4, 5, 6, 7, 5], [0, 8, 9, 8, 9]])
HOW = dict(attention_mask=(IDS != 0).long(), max_new_tokens=12, do_sample=False, pad_token_id=0)
PROMPTS = (torch.tensor([[7, 8]]), torch.tensor([[7, 8, 3, 4, 5, 6, 7]]), torch.tensor([[3], [4], [5]]), None)


def guided(*peers) -> LogitsProcessorList:
    return LogitsProcessorList([Rule("guided", lambda a, b: b + 1.5 * (a - b), peer) for peer in peers])


@pytest.mark.parametrize("prompt", PROMPTS, ids=["short", "long", "one a row", "same"])
def test_gives_what_two_passes_give_in_one(architecture: str, prompt) -> None:
    model, told = tiny(architecture), Report()
    want = model.generate(IDS, logits_processor=guided(Peer(model, prompt)), **HOW)
    got = model.generate(
        IDS, logits_processor=guided(Peer(model, prompt)), custom_generate=together, report=told, **HOW
    )
    assert torch.equal(got, want) and told.calls == want.shape[1] - IDS.shape[1]


def adapted():
    """A base model, and the same weights in another module tree with a LoRA adapter."""
    from peft import LoraConfig, get_peft_model

    base, twin = tiny("llama"), tiny("llama")
    for own, others in zip(base.parameters(), twin.parameters(), strict=True):
        others.data = own.data
    with forked(0):
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        return base, get_peft_model(twin, config).eval()


@pytest.mark.parametrize("tuned_is_main", [True, False])
def test_an_adapter_on_and_off_is_one_batch_of_the_base_weights(tuned_is_main: bool) -> None:
    base, tuned = adapted()
    main, peer = (tuned, base) if tuned_is_main else (base, tuned)
    told = Report()
    want = main.generate(input_ids=IDS, logits_processor=guided(peer), **HOW)
    got = main.generate(input_ids=IDS, logits_processor=guided(peer), custom_generate=together, report=told, **HOW)
    assert torch.equal(got, want) and told.calls == want.shape[1] - IDS.shape[1]
    alone = main.generate(input_ids=IDS, **HOW)
    assert not torch.equal(got, alone)  # the adapter makes a difference


def test_another_model_is_asked_as_always() -> None:
    model, other = tiny("llama"), tiny("llama", seed=1)
    peers = [Peer(other, PROMPTS[0]), Peer(model, PROMPTS[1])]
    again = [Peer(other, PROMPTS[0]), Peer(model, PROMPTS[1])]
    got = model.generate(IDS, logits_processor=guided(*peers), custom_generate=together, **HOW)
    assert torch.equal(got, model.generate(IDS, logits_processor=guided(*again), **HOW))
    assert peers[0].lm.calls > 0 and peers[1].lm.calls == 0


def test_samples_by_seed_and_ends_rows_by_themselves() -> None:
    model, how = tiny("gpt2", vocab=13), {**HOW, "do_sample": True, "eos_token_id": 3}
    texts = []
    for _ in range(2):
        with forked(1):
            texts.append(
                model.generate(
                    IDS % 13, logits_processor=guided(Peer(model, PROMPTS[0])), custom_generate=together, **how
                )
            )
    assert torch.equal(*texts)
    for row in texts[0][:, 5:].tolist():
        assert 3 not in row or set(row[row.index(3) + 1 :]) <= {0}


def test_beams_are_refused() -> None:
    model = tiny("llama")
    with pytest.raises(InputError, match="together: num_beams must be 1"):
        model.generate(IDS, logits_processor=guided(Peer(model)), custom_generate=together, num_beams=2, **HOW)
