"""Guidance against transformers' own, by scores and by generate, and guidance with a language model."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList, UnbatchedClassifierFreeGuidanceLogitsProcessor

from plumbline.core.errors import InputError
from plumbline.decode import classifier_free_guidance
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

TOKENS = torch.zeros(3, 1, dtype=torch.long)
WITH, WITHOUT, LM = 2 * torch.randn(3, 3, 12, generator=generator(0), dtype=torch.float64)
P, Q, LMP = (torch.softmax(z, -1) for z in (WITH, WITHOUT, LM))


def distribution(**hyper: float) -> torch.Tensor:
    return torch.softmax(classifier_free_guidance(lambda _: WITHOUT, **hyper)(TOKENS, WITH), -1)


def normalised(p: torch.Tensor) -> torch.Tensor:
    return p / p.sum(-1, keepdim=True)


def test_is_a_tilt_of_the_unconditional_model() -> None:
    torch.testing.assert_close(distribution(gamma=2.5), normalised(Q * (P / Q) ** 2.5), rtol=0, atol=1e-12)
    torch.testing.assert_close(distribution(gamma=1.0), P, rtol=0, atol=1e-12)
    torch.testing.assert_close(distribution(gamma=0.0), Q, rtol=0, atol=1e-12)


def test_language_model_guidance_and_its_decoupled_exponents() -> None:
    def guided(**hyper: float) -> torch.Tensor:
        rule = classifier_free_guidance(lambda _: WITHOUT, lambda _: LM, **hyper)
        return torch.softmax(rule(TOKENS, WITH), -1)

    torch.testing.assert_close(guided(gamma=1.5), normalised(LMP * (P / Q) ** 1.5), rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(alpha=2.0, beta=0.5), normalised(LMP * P**2 / Q**0.5), rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(gamma=0.0), LMP, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="alpha and beta must be left out where there is no language_model"):
        classifier_free_guidance(lambda _: WITHOUT, alpha=1.0)


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(InputError, match="classifier_free_guidance: gamma must be a number >= 0, got -0.5"):
        classifier_free_guidance(lambda _: WITHOUT, gamma=-0.5)


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(3)
    return torch.randint(3, 101, (3, 6), generator=g), torch.randint(3, 101, (3, 4), generator=g)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox"])
def test_generates_what_guidance_scale_generates(architecture: str) -> None:
    model = tiny(architecture)
    main, negative = prompts()
    how = dict(do_sample=False, max_new_tokens=10, output_scores=True, return_dict_in_generate=True)
    theirs = model.generate(main, guidance_scale=2.5, negative_prompt_ids=negative, **how)
    rule = classifier_free_guidance(Peer(model, prompt=negative), gamma=2.5)
    ours = model.generate(main, logits_processor=LogitsProcessorList([rule]), **how)
    assert torch.equal(ours.sequences, theirs.sequences)
    for a, b in zip(ours.scores, theirs.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    plain = model.generate(main, do_sample=False, max_new_tokens=10)
    assert not torch.equal(plain, ours.sequences)


@pytest.mark.parametrize("sampled", [False, True])
def test_scores_equal_transformers_processor_and_its_convention_for_no_prompt(sampled: bool) -> None:
    """Without a negative prompt transformers starts from the last prompt token; one row, where its cache is right."""
    model, main = tiny("llama"), prompts()[0][:1]
    theirs = UnbatchedClassifierFreeGuidanceLogitsProcessor(1.7, model)
    ours = classifier_free_guidance(Peer(model, prompt=main[:, -1:]), gamma=1.7)
    tokens, g = main, generator(5)
    with torch.no_grad():
        for _ in range(6):
            logits = model(tokens).logits[:, -1]
            found, wanted = ours(tokens, logits), theirs(tokens, logits)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
            p = torch.softmax(found, -1)
            following = torch.multinomial(p, 1, generator=g) if sampled else p.argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, following], 1)
