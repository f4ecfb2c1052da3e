"""A second model beside the one that generates: what it reads, row by row, and what the rule around it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from plumbline.core.errors import InputError
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.peer import Peer, Rule
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny

INF = math.inf
MAIN = torch.tensor([[0, 0, 11, 12], [21, 22, 23, 24], [0, 31, 32, 33]])
OWN = torch.tensor([[41, 42, 43], [0, 0, 51], [0, 61, 62]])
OWN_MASK = torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]])


def read_rows(peer: Peer, tokens: Tensor) -> list[list[int]]:
    """The unpadded rows that the peer's model would read."""
    ids, mask = peer.reads(tokens)
    mask = torch.ones_like(ids) if mask is None else mask
    return [row[m.bool()].tolist() for row, m in zip(ids, mask, strict=True)]


OWN_ROWS = [[41, 42, 43], [51], [61, 62]]


def silent(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    return torch.zeros(len(tokens), 7)


def grown(tokens: Tensor, *said: int) -> Tensor:
    """Each row followed by these tokens, each plus the row's number."""
    new = torch.tensor([[t + b for t in said] for b in range(len(tokens))], dtype=torch.long).view(len(tokens), -1)
    return torch.cat([tokens, new], 1)


def test_without_a_prompt_it_reads_what_the_main_model_reads() -> None:
    ids, mask = Peer(silent).reads(MAIN)
    assert torch.equal(ids, MAIN) and mask is None


def test_own_prompts_are_followed_by_what_was_said() -> None:
    peer = Peer(silent, OWN, OWN_MASK)
    assert read_rows(peer, MAIN) == OWN_ROWS
    assert read_rows(peer, grown(MAIN, 70, 80)) == [[*own, 70 + b, 80 + b] for b, own in enumerate(OWN_ROWS)]


def test_one_prompt_for_all_rows() -> None:
    peer = Peer(silent, OWN[:1])
    assert read_rows(peer, MAIN) == [OWN_ROWS[0]] * 3
    assert read_rows(peer, grown(MAIN, 70)) == [[*OWN_ROWS[0], 70 + b] for b in range(3)]


@pytest.mark.parametrize("begun", [False, True])
def test_beams_and_several_sequences_a_prompt_keep_their_prompt(begun: bool) -> None:
    """``generate`` repeats each row in place; a loop may have told the prompts before."""
    peer, many = Peer(silent, OWN, OWN_MASK), MAIN.repeat_interleave(2, 0)
    if begun:
        peer.begin(MAIN)
    assert read_rows(peer, many) == [own for own in OWN_ROWS for _ in range(2)]
    swapped = grown(many, 70)[[1, 0, 3, 3, 4, 5]]  # beams change places within a prompt
    assert read_rows(peer, swapped) == [[*OWN_ROWS[b // 2], 70 + b] for b in (1, 0, 3, 3, 4, 5)]


def test_rows_alone_are_recognised_with_their_padding_and_without() -> None:
    peer = Peer(silent, OWN, OWN_MASK)
    peer.begin(MAIN)
    text = grown(MAIN, 70, 80)
    for b, own in enumerate(OWN_ROWS):
        row = text[b : b + 1]
        assert read_rows(peer, row) == [[*own, 70 + b, 80 + b]]
        assert read_rows(peer, row[:, (row[0] != 0).int().argmax() :]) == [[*own, 70 + b, 80 + b]]


def test_a_second_generation_starts_anew() -> None:
    peer = Peer(silent, OWN, OWN_MASK)
    read_rows(peer, MAIN)
    read_rows(peer, grown(MAIN, 70))
    other = torch.tensor([[13, 14], [15, 16], [17, 18]])
    assert read_rows(peer, other) == OWN_ROWS
    assert read_rows(peer, grown(other, 70)) == [[*own, 70 + b] for b, own in enumerate(OWN_ROWS)]
    longer = torch.tensor([[91] * 9, [92] * 9, [93] * 9])
    assert read_rows(peer, longer) == OWN_ROWS


def test_begin_tells_apart_what_the_tokens_cannot() -> None:
    """A new prompt that continues the old text looks like the same generation until ``begin`` says otherwise."""
    peer, follow_up = Peer(silent, OWN, OWN_MASK), grown(MAIN, 70, 80)
    read_rows(peer, MAIN)
    assert read_rows(peer, follow_up) == [[*own, 70 + b, 80 + b] for b, own in enumerate(OWN_ROWS)]
    peer.begin(follow_up)
    assert read_rows(peer, follow_up) == OWN_ROWS
    assert read_rows(peer, grown(follow_up, 90)) == [[*own, 90 + b] for b, own in enumerate(OWN_ROWS)]


def test_a_row_alone_belongs_to_the_prompt_that_it_begins_with_as_it_stands() -> None:
    """One main prompt may begin another: [5] and [5, 6], both left-padded."""
    peer = Peer(silent, OWN[:2], OWN_MASK[:2])
    main = torch.tensor([[0, 0, 0, 5], [0, 0, 5, 6]])
    peer.begin(main)
    assert read_rows(peer, torch.tensor([[0, 0, 5, 6, 70]])) == [[51, 70]]
    assert read_rows(peer, torch.tensor([[0, 0, 0, 5, 6, 70]])) == [[41, 42, 43, 6, 70]]


def test_a_row_alone_that_fits_two_prompts_is_refused() -> None:
    peer = Peer(silent, OWN[:2], OWN_MASK[:2])
    peer.begin(torch.tensor([[7, 8], [7, 8]]))
    with pytest.raises(InputError, match="Peer: tokens must be"):
        peer.reads(torch.tensor([[7, 8, 9]]))
    both = torch.tensor([[7, 8, 9], [7, 8, 10]])
    assert read_rows(peer, both) == [[41, 42, 43, 9], [51, 10]]  # all rows together say which is which
    alike = Peer(silent, OWN[:1])
    alike.begin(torch.tensor([[7, 8], [7, 8]]))
    assert read_rows(alike, torch.tensor([[7, 8, 9]])) == [[41, 42, 43, 9]]


def test_a_new_batch_is_not_taken_for_an_old_row_that_lost_its_padding() -> None:
    """After a main prompt of bos alone every other one that begins with bos would fit it."""
    peer, short = Peer(silent, OWN[:2], OWN_MASK[:2]), torch.tensor([[0, 0, 1], [0, 1, 30]])
    read_rows(peer, short)
    assert read_rows(peer, torch.tensor([[1, 50], [1, 51]])) == [[41, 42, 43], [51]]


@torch.no_grad()
def fresh(model: Any, row: list[int]) -> Tensor:
    """Logits [V] after one row by a forward pass of its own, without padding or cache."""
    return model(torch.tensor([row]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize(
    "how",
    [
        dict(do_sample=False),
        dict(do_sample=True, num_return_sequences=2),
        dict(do_sample=False, num_beams=3, num_return_sequences=2),
    ],
    ids=["greedy", "sampled", "beams"],
)
@pytest.mark.parametrize("prompts", ["own", "one", "none"])
def test_inside_generate_its_logits_are_those_of_every_row_alone(
    tiny_model: Any, prompts: str, how: dict[str, Any]
) -> None:
    seen = list[tuple[Tensor, Tensor]]()
    given = {"own": (OWN, OWN_MASK), "one": (OWN[:1], None), "none": (None, None)}[prompts]
    peer = Peer(tiny_model, *given)

    def spy(tokens: Tensor, logits: Tensor) -> Tensor:
        seen.append((tokens.clone(), peer(tokens)))
        return logits

    mask = (MAIN != 0).long()
    with forked(0, prompts):
        tiny_model.generate(
            MAIN, attention_mask=mask, max_new_tokens=6, logits_processor=LogitsProcessorList([spy]), **how
        )
    assert len(seen) >= 3
    each = len(seen[0][0]) // 3
    for tokens, logits in seen[:: max(len(seen) - 1, 1)]:
        for r, row in enumerate(tokens):
            own = {
                "own": OWN_ROWS[r // each],
                "one": OWN_ROWS[0],
                "none": MAIN[r // each][mask[r // each] == 1].tolist(),
            }
            text = [*own[prompts], *row[4:].tolist()]
            torch.testing.assert_close(logits[r], fresh(tiny_model, text), rtol=0, atol=1e-4)


def test_one_token_a_row_is_fed_once_the_prompt_is_read() -> None:
    lm = CachedLM(tiny("llama"))
    rule = Rule("probe", lambda main, peer: main + 0 * peer, Peer(lm, OWN, OWN_MASK))
    tiny("llama").generate(
        MAIN, attention_mask=(MAIN != 0).long(), max_new_tokens=5, do_sample=False, eos_token_id=None,
        logits_processor=LogitsProcessorList([rule]),
    )  # fmt: skip
    assert lm.tokens_fed == 3 * (3 + 4) and lm.rebuilds == 0


def test_logits_handed_over_are_taken_once() -> None:
    peer, logits = Peer(silent), torch.ones(3, 7)
    peer.hand(MAIN, logits)
    assert torch.equal(peer(MAIN), logits) and torch.equal(peer(MAIN), silent(MAIN))
    peer.hand(MAIN, logits)
    assert torch.equal(peer(grown(MAIN, 70)), silent(MAIN))  # for other tokens they are not
    peer.hand(MAIN, logits)
    peer.begin(MAIN)
    assert torch.equal(peer(MAIN), silent(MAIN))


def rule_of(peer: Any, formula: Any = lambda main, other: main - other) -> Rule:
    return Rule("difference", formula, peer)


def test_vocabularies_that_differ_are_refused_unless_only_padding_does() -> None:
    tokens, main = torch.zeros(1, 1, dtype=torch.long), torch.arange(4.0)[None]
    for width in (3, 6):
        with pytest.raises(
            InputError, match=f"difference: peer must be a model with the main vocabulary of 4 tokens, got {width}"
        ):
            rule_of(lambda _, w=width: torch.zeros(1, w))(tokens, main)
    wide = rule_of(Peer(lambda _: torch.ones(1, 6), padded_vocab=True))(tokens, main)
    assert wide.tolist() == [[-1.0, 0.0, 1.0, 2.0]]
    seen = list[Tensor]()

    def keep(main: Tensor, other: Tensor) -> Tensor:
        seen.append(other)
        return main

    rule_of(Peer(lambda _: torch.ones(1, 3), padded_vocab=True), keep)(tokens, main)
    assert seen[0].tolist() == [[1.0, 1.0, 1.0, -INF]]


def test_two_tiny_models_whose_heads_differ_in_padding() -> None:
    main, peer = tiny("llama", vocab=101), tiny("llama", vocab=128, seed=1)
    rule = rule_of(Peer(peer, padded_vocab=True), lambda a, b: a + b)
    ids = main.generate(MAIN[1:2], max_new_tokens=4, do_sample=False, logits_processor=LogitsProcessorList([rule]))
    assert ids.shape == (1, 8) or ids[0, -1] == 2
    with pytest.raises(InputError, match="only padding differs"):
        rule_of(peer)(MAIN[1:2], torch.zeros(1, 101))


def test_another_device_is_refused_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, apart = Peer(tiny("llama")), Peer(tiny("llama"), across_devices=True)
    wanted = peer(MAIN)
    monkeypatch.setattr(CachedLM, "device", property(lambda _: torch.device("cuda:1")))
    with pytest.raises(InputError, match=r"Peer: model must be on the main model's device, cpu, got cuda:1"):
        peer(MAIN)
    torch.testing.assert_close(apart(MAIN), wanted)


def test_nan_is_refused_and_forbidden_tokens_stay_out() -> None:
    tokens, main = torch.zeros(2, 1, dtype=torch.long), torch.tensor([[1.0, -INF, 2.0], [0.0, 0.0, 0.0]])
    with pytest.raises(InputError, match="difference: logits must be free of NaN"):
        rule_of(lambda _: torch.full((2, 3), math.nan))(tokens, main)
    kept = rule_of(lambda _: torch.zeros(2, 3), lambda a, b: b)(tokens, main)
    assert kept.tolist() == [[0.0, -INF, 0.0], [0.0, 0.0, 0.0]]
    assert main.tolist() == [[1.0, -INF, 2.0], [0.0, 0.0, 0.0]]


def test_where_nothing_is_left_the_main_model_decides() -> None:
    tokens, main = torch.zeros(2, 1, dtype=torch.long), torch.tensor([[1.0, -INF], [0.0, 3.0]])

    def only_second(a: Tensor, b: Tensor) -> Tensor:
        return a.masked_fill(torch.tensor([True, False]), -INF)

    assert rule_of(lambda _: torch.zeros(2, 2), only_second)(tokens, main).tolist() == [[1.0, -INF], [-INF, 3.0]]


@pytest.mark.parametrize(("dtype", "out"), [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_the_formula_gets_float32_or_wider(dtype: str, out: str) -> None:
    kind, wide = getattr(torch, dtype), getattr(torch, out)

    def check(main: Tensor, other: Tensor) -> Tensor:
        assert main.dtype == other.dtype == wide
        return main + other

    rule = rule_of(lambda _: torch.ones(1, 3, dtype=torch.bfloat16), check)
    assert rule(torch.zeros(1, 1, dtype=torch.long), torch.randn(1, 3, generator=generator(0)).to(kind)).dtype == wide


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Peer(3), "Peer: model must be a causal LM or a function of tokens, got int"),
        (lambda: Peer(silent, torch.zeros(2, 0)), r"Peer: prompt must be \[B, P\] with P >= 1, got \[2, 0\]"),
        (lambda: Peer(silent, torch.zeros(3)), r"Peer: prompt must be \[B, P\]"),
        (lambda: Peer(silent, OWN, OWN_MASK[:2]), r"Peer: prompt_mask must be \[3, 3\], as the prompt, got \[2, 3\]"),
        (lambda: Peer(silent, prompt_mask=OWN_MASK), "Peer: prompt_mask must be left out where there is no prompt"),
        (lambda: Peer(silent, OWN[:2]).begin(MAIN), "Peer: prompt must be one row, or one for each of the 3 main"),
        (lambda: Peer(silent, OWN[:2])(MAIN), "Peer: prompt must be one row"),
        (lambda: Peer(tiny("llama"), OWN, OWN_MASK.flip(1))(MAIN), "attention_mask must be left padding"),
        (lambda: Peer(tiny("llama").train())(MAIN), "CachedLM: model must be in eval mode"),
        (lambda: Peer(tiny("llama", vocab=20))(MAIN), r"CachedLM: input_ids must be ids in \[0, 20\)"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(make: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()
