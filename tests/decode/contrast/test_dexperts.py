"""DExperts by a slow loop over the nucleus, with one expert left out, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import dexperts
from plumbline.kernels.seeds import generator

TOKENS = torch.zeros(3, 1, dtype=torch.long)
BASE, EXPERT, ANTI = 2 * torch.randn(3, 3, 15, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize("given", ["both", "expert", "antiexpert"])
def test_logits_are_the_equation_inside_the_nucleus(given: str) -> None:
    experts = {"expert": lambda _: EXPERT, "antiexpert": lambda _: ANTI}
    rule = dexperts(**{k: v for k, v in experts.items() if given in ("both", k)}, alpha=1.7, top_p=0.8)
    expert = EXPERT if given != "antiexpert" else BASE
    anti = ANTI if given != "expert" else BASE
    found = torch.softmax(rule(TOKENS, BASE), -1)
    for b in range(3):
        p = torch.softmax(BASE[b], -1).tolist()
        order = sorted(range(15), key=lambda v: -p[v])
        inside = [v for i, v in enumerate(order) if i == 0 or sum(p[u] for u in order[:i]) < 0.8]
        raw = {v: math.exp(float(BASE[b, v] + 1.7 * (expert[b, v] - anti[b, v]))) for v in inside}
        wanted = [raw.get(v, 0.0) / sum(raw.values()) for v in range(15)]
        assert found[b].tolist() == pytest.approx(wanted, abs=1e-12)


def test_alpha_zero_is_the_nucleus_and_top_p_one_the_base() -> None:
    rule = dexperts(lambda _: EXPERT, lambda _: ANTI, alpha=0.0, top_p=1.0)
    torch.testing.assert_close(torch.softmax(rule(TOKENS, BASE), -1), torch.softmax(BASE, -1), rtol=0, atol=1e-12)
    only = dexperts(lambda _: EXPERT, alpha=5.0, top_p=0.0)(TOKENS, BASE)
    assert torch.equal(only.argmax(-1), BASE.argmax(-1)) and (only > -math.inf).sum() == 3


def test_no_expert_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="dexperts: expert must be a model, or antiexpert one, got neither"):
        dexperts()
    with pytest.raises(InputError, match="dexperts: top_p"):
        dexperts(lambda _: EXPERT, top_p=1.5)
