from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from plumbline.core.errors import InputError
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import WINDOW, tiny

PAD = 0


def alone(model: PreTrainedModel, rows: list[list[int]], n: int = 1) -> Tensor:
    """The slow reference: every row by itself, unpadded and without a cache."""
    with torch.no_grad():
        return torch.stack([model(torch.tensor([row]), use_cache=False).logits[0, -n:] for row in rows])


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


def tokens(stream: torch.Generator, n: int) -> list[int]:
    return torch.randint(3, 101, (n,), generator=stream).tolist()


def walk(lm: CachedLM, model: PreTrainedModel, seed: int, steps: int, with_mask: bool) -> float:
    """The largest error over random extensions, rollbacks, reorderings, repeats, batch changes and new prompts."""
    stream, worst, rows = generator(seed, "walk"), 0.0, [tokens(generator(seed), n) for n in (9, 4, 12)]

    def draw(n: int) -> int:
        return int(torch.randint(n, (1,), generator=stream))

    def grow() -> None:
        n = 1 + draw(4)
        rows[:] = [r + tokens(stream, n) for r in rows]

    def cut() -> None:
        n = draw(min(map(len, rows)))
        rows[:] = [r[: len(r) - n] for r in rows]

    def branch() -> None:
        cut()
        grow()

    def reorder() -> None:
        picked = [rows[draw(len(rows))] for _ in rows]
        rows[:] = [r + tokens(stream, 1) for r in picked]

    def resize() -> None:
        rows[:] = [list(rows[draw(len(rows))]) for _ in range(1 + draw(4))]

    def prompt() -> None:
        rows[:] = [tokens(stream, 1 + draw(12)) for _ in range(1 + draw(3))]

    moves = (grow, grow, cut, branch, reorder, resize, prompt, lambda: None)
    for _ in range(steps):
        moves[draw(len(moves))]()
        if max(map(len, rows)) > 40:
            prompt()
        ids, mask = padded(rows)
        before = ids.clone()
        n = 1 + draw(min(map(len, rows))) if draw(3) == 0 else 1
        got = lm.many(ids, n, mask if with_mask else None)
        assert got.dtype == torch.float32 and not got.requires_grad and torch.equal(ids, before)
        worst = max(worst, (got - alone(model, rows, n)).abs().max().item())
    return worst


@pytest.mark.parametrize("history", [0, 3, 256])
def test_equals_the_uncached_forward_over_a_random_walk(tiny_model: PreTrainedModel, history: int) -> None:
    lm = CachedLM(tiny_model, history=history)
    assert walk(lm, tiny_model, seed=history, steps=60, with_mask=history != 3) < 1e-4
    assert lm.calls == 60


def test_feeds_only_what_is_new(tiny_model: PreTrainedModel) -> None:
    lm, ids = CachedLM(tiny_model), torch.tensor([tokens(generator(0), 24)])
    lm(ids[:, :20])
    assert lm.tokens_fed == 20
    lm(ids[:, :20])
    assert lm.tokens_fed == 20  # the same prefix again costs nothing
    lm(ids[:, :21])
    assert lm.tokens_fed == 21
    lm.many(ids[:, :24], 3)
    assert lm.tokens_fed == 24
    lm(ids[:, :15])  # a rollback feeds its last token again
    assert (lm.tokens_fed, lm.rebuilds, lm.calls) == (25, 0, 5)
    lm(ids[:, :16].repeat(3, 1))  # one row's cache serves three
    assert lm.tokens_fed == 28
    lm.reset()
    lm(ids[:, :16])
    assert (lm.tokens_fed, lm.rebuilds) == (44, 0)


@pytest.mark.parametrize(("architecture", "rebuilds"), [("llama", 0), ("mistral", 1), ("gemma3", 1)])
def test_a_full_sliding_window_is_rebuilt_beyond_its_history(architecture: str, rebuilds: int) -> None:
    model, ids = tiny(architecture), torch.tensor([tokens(generator(1), 3 * WINDOW)])
    lm = CachedLM(model, history=4)
    lm(ids)
    lm(ids[:, :-3])
    assert lm.rebuilds == 0
    short = ids[:, : WINDOW + 4]
    assert (lm(short) - alone(model, short.tolist())[:, -1]).abs().max() < 1e-4
    assert lm.rebuilds == rebuilds


def test_only_the_last_positions_meet_the_head(tiny_model: PreTrainedModel) -> None:
    seen: list[int] = []
    handle = tiny_model.get_output_embeddings().register_forward_hook(lambda m, i, o: seen.append(i[0].shape[1]))
    lm = CachedLM(tiny_model)
    lm(torch.tensor([tokens(generator(0), 12)]))
    lm.many(torch.tensor([tokens(generator(1), 12)]), 4)
    handle.remove()
    assert seen == [1, 4]


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 3}])
def test_is_exact_as_a_peer_inside_generate(tiny_model: PreTrainedModel, how: dict) -> None:
    peer = tiny(tiny_model.config.model_type.removesuffix("_text"), seed=1)
    lm, worst, lengths = CachedLM(peer), [0.0], []

    def rule(ids: Tensor, scores: Tensor) -> Tensor:
        got = lm(ids)
        rows = [r[next(i for i, t in enumerate(r) if t != PAD) :] for r in ids.tolist()]
        worst[0] = max(worst[0], (got - alone(peer, rows)[:, -1]).abs().max().item())
        lengths.append(ids.shape[1])
        return scores + got

    ids, mask = padded([tokens(generator(2), n) for n in (11, 5)])
    with torch.random.fork_rng():
        tiny_model.generate(
            ids, attention_mask=mask, max_new_tokens=10, logits_processor=LogitsProcessorList([rule]), **how
        )
    assert worst[0] < 1e-4 and len(lengths) > 2
    rows = 2 * how.get("num_beams", 1)
    assert lm.rebuilds == 0 and lm.tokens_fed == rows * lengths[-1]  # beams that change places feed nothing twice


def test_a_recurrent_state_is_never_rolled_back() -> None:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    from plumbline.kernels.seeds import forked

    config = Qwen3NextConfig(
        vocab_size=101, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8,
        linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2, num_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=16, shared_expert_intermediate_size=16, decoder_sparse_step=1, max_position_embeddings=64,
    )  # fmt: skip
    with forked(0):
        model = Qwen3NextForCausalLM(config).eval()
    ids, lm = torch.tensor([tokens(generator(0), 12)]), CachedLM(model)
    for length, n in ((6, 1), (9, 2), (10, 1), (4, 1), (12, 3)):
        got = lm.many(ids[:, :length], n)
        assert (got - alone(model, ids[:, :length].tolist(), n)).abs().max() < 1e-4
    assert lm.rebuilds == 1 and lm.tokens_fed == 10 + 4 + 8


def test_works_around_an_adapter_and_in_bfloat16() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(r=2, init_lora_weights=False)).eval()
    assert walk(CachedLM(model), model, seed=5, steps=15, with_mask=True) < 1e-4
    half, ids = tiny("llama").to(torch.bfloat16), torch.tensor([tokens(generator(0), 9)])
    lm = CachedLM(half)
    lm(ids[:, :6])
    got, want = lm(ids), alone(half, ids.tolist())[:, -1]
    assert got.dtype == torch.float32 and (got - want).abs().max() < 0.1


def test_a_pass_that_breaks_off_leaves_no_half_filled_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny("llama"), torch.tensor([tokens(generator(0), 9)])
    lm = CachedLM(model)
    lm(ids[:, :6])
    with monkeypatch.context() as broken:
        broken.setattr(model.model.layers[1].mlp, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lm(ids)
    assert (lm(ids) - alone(model, ids.tolist())[:, -1]).abs().max() < 1e-4


def test_what_the_caller_writes_into_does_not_come_back() -> None:
    lm, ids = CachedLM(tiny("llama")), torch.tensor([[5, 6, 7]])
    want = lm(ids).clone()
    lm(ids).zero_()
    assert torch.equal(lm(ids), want)


@pytest.mark.parametrize(
    ("ids", "mask", "says"),
    [
        (torch.full((1, 65), 5), None, "at most 64 tokens, the model's context, got 65"),
        (torch.tensor([[5, 101]]), None, "ids in [0, 101)"),
        (torch.tensor([[5, 6]]), torch.tensor([[1, 0]]), "left padding"),
        (torch.tensor([[PAD, PAD]]), None, "left padding"),
        (torch.tensor([5, 6]), None, "[B, L]"),
    ],
)
def test_refuses_what_it_cannot_score(ids: Tensor, mask: Tensor | None, says: str) -> None:
    with pytest.raises(InputError) as error:
        CachedLM(tiny("llama"))(ids, mask)
    assert says in str(error.value)


def test_padding_that_could_be_a_real_token_is_not_guessed() -> None:
    model, ids = tiny("gpt2", pad_token_id=2), torch.tensor([[2, 5, 6], [7, 8, 9]])
    with pytest.raises(InputError, match="attention_mask"):
        CachedLM(model)(ids)
    inferred = CachedLM(model, pad_token_id=2)(ids)
    assert (inferred - alone(model, [[5, 6], [7, 8, 9]])[:, -1]).abs().max() < 1e-4
    taken = CachedLM(model, pad_token_id=-1)(ids)
    assert (taken - alone(model, ids.tolist())[:, -1]).abs().max() < 1e-4


def test_refuses_a_model_in_training_mode() -> None:
    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        CachedLM(tiny("llama").train())(torch.tensor([[5]]))
