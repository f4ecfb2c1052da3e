"""Every drafting sampler inside ``generate``: greedy's own tokens on real architectures, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from tests.decode.speculate.drafting import HOW, IDS, same_as_greedy
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation.stopping_criteria import StoppingCriteria

from plumbline.core.errors import InputError
from plumbline.decode.loop import Report
from plumbline.decode.speculate import lookahead, prompt_lookup, speculative_jacobi, token_recycling
from plumbline.kernels.peer import Peer, Rule
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny

METHODS = (prompt_lookup, lookahead, token_recycling, speculative_jacobi)
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.card.name)


@methods
def test_greedy_tokens_on_every_architecture(architecture: str, method) -> None:
    """A left-padded batch; the sliding windows of Gemma 3 and Mistral are run past."""
    model = tiny(architecture).double()
    assert same_as_greedy(model, method, adapt=False) and same_as_greedy(model, method)
    # in float64 transformers' own eager attention makes NaN of left padding
    assert same_as_greedy(tiny(architecture, seed=1, attn_implementation="eager"), method, adapt=False)


@methods
def test_greedy_tokens_of_twenty_random_models(method) -> None:
    for seed in range(20):
        assert same_as_greedy(tiny("llama", vocab=13, seed=seed).double(), method, IDS % 13, max_new_tokens=12)


@methods
def test_every_text_ends_where_generate_ends_it(method) -> None:
    model = tiny("qwen3", vocab=13).double()
    plain = model.generate(IDS % 13, **HOW)
    common = plain[:, IDS.shape[1] :].flatten().bincount().argmax()
    assert same_as_greedy(model, method, IDS % 13, eos_token_id=[int(common), 2])
    assert same_as_greedy(model, method, IDS % 13, max_new_tokens=1)
    assert same_as_greedy(model, method, IDS % 13, max_new_tokens=None, max_length=11)


@methods
def test_penalties_see_the_text_that_each_draft_stands_for(method) -> None:
    model = tiny("gpt_neox", vocab=29).double()
    assert same_as_greedy(model, method, IDS % 29, repetition_penalty=1.4, no_repeat_ngram_size=2)


@methods
def test_rules_with_models_of_their_own(method) -> None:
    model, other = tiny("llama", seed=1).double(), tiny("llama", seed=2).double()
    prompts = torch.tensor([[7, 8, 9, 3], [0, 0, 3, 4], [0, 5, 6, 7]])

    def rule() -> LogitsProcessorList:
        return LogitsProcessorList([Rule("mix", lambda a, b: a + b, Peer(other, prompts, (prompts != 0).long()))])

    got = model.generate(IDS, custom_generate=method, logits_processor=rule(), **HOW)
    assert torch.equal(got, model.generate(IDS, logits_processor=rule(), **HOW))


class Stops(StoppingCriteria):
    """Ends a row when its text holds a token three times."""

    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([max(row.bincount()) >= 3 for row in input_ids[:, IDS.shape[1] :]])


@methods
def test_stopping_criteria_are_asked_after_every_token(method) -> None:
    model = tiny("llama", vocab=13).double()
    stop = StoppingCriteriaList([Stops()])
    assert same_as_greedy(model, method, IDS % 13, stopping_criteria=stop)


@methods
def test_samples_returned_sequences_and_dicts(method) -> None:
    model = tiny("mistral").bfloat16()
    how = dict(attention_mask=HOW["attention_mask"], max_new_tokens=9, do_sample=True, top_p=0.9, pad_token_id=0)
    told = Report()
    with forked(0):
        out = model.generate(IDS, custom_generate=method, num_return_sequences=2, return_dict_in_generate=True,
                             report=told, **how)  # fmt: skip
    assert out.sequences.shape[0] == 6 and out.sequences.shape[1] <= 14
    assert torch.equal(out.sequences[:, :5], IDS.repeat_interleave(2, 0))
    assert 0 < told.calls <= told.tokens + 6 and told.kept <= told.drafted


@methods
def test_positions_beyond_the_context_are_never_asked_for(method) -> None:
    model = tiny("gpt2").double()  # 64 learned positions
    out = model.generate(IDS[1:2], custom_generate=method, max_new_tokens=200, do_sample=False, pad_token_id=0,
                         eos_token_id=None)  # fmt: skip
    assert out.shape[1] == 65  # the 64th position still says a token
    with pytest.raises(InputError, match=f"{method.card.name}: input_ids must be at most 64 tokens.*got 70"):
        tiny("gpt2").generate(torch.full((1, 70), 5), custom_generate=method, max_new_tokens=4, pad_token_id=0)


@methods
@pytest.mark.parametrize(
    ("how", "says"),
    [
        (dict(num_beams=3), r"num_beams must be 1"),
        (dict(cache_implementation="static"), r"cache_implementation must be a cache that can be rolled back"),
        (dict(guidance_scale=1.5), r"guidance_scale must be left out.*classifier_free_guidance"),
    ],
)
def test_refuses_in_one_line(method, how: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        tiny("llama").generate(IDS, custom_generate=method, **{**HOW, **how})
    assert method.card.name in str(caught.value) and "\n" not in str(caught.value)


@methods
def test_refuses_rules_that_know_the_last_position_only(method) -> None:
    class Last:
        name, last_position_only = "knn_lm", True

        def __call__(self, tokens, logits):
            return logits

    with pytest.raises(InputError, match=rf"{method.card.name}: .*knn_lm.*without drafts"):
        tiny("llama").generate(IDS, custom_generate=method, logits_processor=LogitsProcessorList([Last()]), **HOW)


@methods
def test_refuses_stop_strings_right_padding_and_nonsense(method) -> None:
    from plumbline.lab.tiny_tokenizer import tiny_tokenizer

    model = tiny("llama", vocab=320)
    with pytest.raises((InputError, ValueError), match="stop_strings|tokenizer"):
        model.generate(IDS, custom_generate=method, stop_strings=["a"], tokenizer=tiny_tokenizer(), **HOW)
    with pytest.raises(InputError, match="left padding"):
        model.generate(IDS.flip(1), custom_generate=method, **{**HOW, "attention_mask": (IDS.flip(1) != 0).long()})
    name = next(n for n in ("tokens", "nodes", "window") if n in method.card.params)
    with pytest.raises(InputError, match=name):
        model.generate(IDS, custom_generate=method, **{name: 0}, **HOW)


@methods
def test_refuses_a_cache_that_is_already_filled(method) -> None:
    model = tiny("llama")
    with torch.no_grad():
        cache = model(IDS[1:2, :3], use_cache=True).past_key_values
    with pytest.raises(InputError, match=f"{method.card.name}: the given cache must be empty, got 3 tokens"):
        model.generate(IDS[1:2], custom_generate=method, past_key_values=cache, max_new_tokens=2, pad_token_id=0)
