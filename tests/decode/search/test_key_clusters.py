from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.search.key_clusters import cluster_keys, key_cluster_report
from plumbline.lab.categories import word_tokenizer
from plumbline.lab.tiny import tiny
from plumbline.models.lm import LM

WORDS = [f"w{i}" for i in range(37)]


@pytest.fixture(scope="module")
def lm():
    return LM(tiny("llama", 40), word_tokenizer(WORDS), "tiny")


def test_groups_by_hand(lm):
    ids = lm.tokenizer("w1 w2").input_ids
    ranked = lm.model(torch.tensor([ids])).logits[0, -1].argsort(descending=True).tolist()
    labels = np.arange(40)
    labels[ranked[0]] = labels[ranked[3]] = labels[ranked[4]] = 99  # ranks 4 and 5 share the cluster of rank 1
    good = {lm.tokenizer.decode([ranked[i]]) for i in (0, 3, 5)}
    report = key_cluster_report(
        lm, "w1 w2", good.__contains__, top=3, ranks=8, labels=labels, terminator="|", max_new_tokens=1
    )
    assert report.right.tolist() == [True, False, False, True, False, True, False, False]
    assert (report.main.count, report.main.accuracy, report.main.mean_rank) == (2, 0.5, 4.5)
    assert (report.other.count, report.other.mean_rank) == (3, 7.0)
    assert report.other.accuracy == pytest.approx(1 / 3)
    assert report.main_share == pytest.approx(2 / 5) and report.clusters == 3
    assert report.top_accuracy == pytest.approx(1 / 3)
    assert report.map_at == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_no_token_in_the_main_clusters(lm):
    report = key_cluster_report(lm, "w1", bool, top=2, ranks=6, labels=np.arange(40), max_new_tokens=1)
    assert report.main.count == 0 and report.main.accuracy is None and report.other.count == 4


@pytest.mark.parametrize("cosine", [False, True])
def test_clusters_of_near_duplicates_are_found(cosine):
    keys = torch.eye(5).repeat_interleave(4, 0) + 0.01 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    keys = keys * (torch.tensor([1.0, 3.0, 1.0, 3.0]).repeat(5)[:, None] if cosine else 1.0)
    labels = cluster_keys(keys, 5, cosine=cosine)
    assert [len(set(labels[i : i + 4])) for i in range(0, 20, 4)] == [1] * 5 and len(set(labels)) == 5


def test_default_number_of_clusters(lm):
    assert len(set(cluster_keys(lm.model.lm_head.weight))) == 5  # 40 // 8


def test_refusals(lm):
    with pytest.raises(InputError, match="ranks must be more than top=10"):
        key_cluster_report(lm, "w1", bool, ranks=10)
    with pytest.raises(InputError, match="labels must be one cluster for each of 40"):
        key_cluster_report(lm, "w1", bool, ranks=20, labels=np.arange(3))
    with pytest.raises(InputError, match="clusters must be from 1"):
        cluster_keys(torch.zeros(4, 2), 9)
