from __future__ import annotations

import torch

from plumbline.decode.drafts import Candidates, Copies, Looks, Recycles, Trie

NO_LOGITS = torch.zeros(0)


def paths(tree: tuple[list[int], list[int]]) -> set[tuple[int, ...]]:
    """Every path of tokens from the root."""
    tokens, parents = tree
    found: list[tuple[int, ...]] = [()]
    for token, parent in zip(tokens, parents, strict=True):
        found.append((*found[parent], token))
    return set(found[1:])


def test_copies_what_followed_the_latest_longest_match() -> None:
    text = [5, 6, 7, 8, 9, 5, 6, 1, 2, 9, 5, 6]
    tokens, parents = Copies(2).propose(text, 3)
    assert tokens == [1, 2, 9] and parents == [0, 1, 2]
    assert Copies(1).propose([4, 5, 6], 3) == ([], [])


def test_copies_go_on_with_themselves_past_the_end() -> None:
    assert Copies(2).propose([3, 4, 3, 4], 5)[0] == [3, 4, 3, 4, 3]
    assert Copies(2).propose([7, 7], 4)[0] == [7, 7, 7, 7]


def test_copies_read_a_growing_text_once() -> None:
    drafter, text = Copies(2), [1, 2, 3]
    assert drafter.propose(text, 2) == ([], [])
    text += [1, 2]
    assert drafter.propose(text, 2)[0] == [3, 1]
    text += [9, 1, 2]
    assert drafter.propose(text, 2)[0] == [9, 1]


def test_trie_merges_the_branches_of_the_last_two_tokens() -> None:
    trie = Trie(branch=3)
    source = trie.open()
    trie.grow([], [1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 6, 7], source)
    tree = trie.propose([9, 1, 2], 8, source)
    assert {(3, 4), (3, 5), (6, 7)} <= paths(tree)
    assert tree[0][0] == 3  # seen twice: the first child
    assert len(trie.propose([9, 1, 2], 2, source)[0]) == 2
    assert trie.propose([9, 9], 8, source) == ([], [])


def test_trie_parents_come_before_children_and_siblings_differ() -> None:
    g = torch.Generator().manual_seed(0)
    trie = Trie(branch=5)
    trie.grow([], torch.randint(4, (300,), generator=g).tolist())
    for last in range(4):
        tokens, parents = trie.propose([last], 20, 0)
        assert 0 < len(tokens) <= 20 and all(p <= i for i, p in enumerate(parents))
        assert len(set(zip(parents, tokens, strict=True))) == len(tokens)


def test_prompts_are_forgotten_and_outputs_kept() -> None:
    trie = Trie(branch=4)
    row = Looks(trie, [1, 2, 3])
    row.learn([1, 2, 3, 4, 5], 2, [], NO_LOGITS)
    assert (4, 5) in paths(row.propose([1, 2, 3], 8))
    row.close()
    again = Looks(trie, [7, 3])
    assert (4, 5) in paths(again.propose([7, 3], 8))  # said in an earlier output, after a 3
    assert trie.propose([1], 8, again.source) == ([], [])  # only the closed prompt knew what follows a 1


def test_trie_drops_rare_nodes_when_it_is_full() -> None:
    trie = Trie(branch=2, outputs=40)
    for other in range(3, 300):
        trie.grow([], [1, other, other + 1])
        trie.grow([], [1, 2, 2])
    assert sum(1 for _ in trie.roots[1].below) < 60 and (2, 2) in paths(trie.propose([1], 6, 0))


def test_recycles_fill_the_shape_by_ranks() -> None:
    table = Candidates(6, 2)
    table.table[:] = torch.tensor([[1, 2], [3, 4], [4, 4], [-1, -1], [0, 1], [0, 0]])
    shape = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0)]
    tokens, parents = Recycles(table, shape).propose([9, 0], 7)
    assert tokens == [1, 2, 3, 4, 4] and parents == [0, 0, 1, 1, 2]  # a second 4 under 2 and what 3 lacks are left out
    assert Recycles(table, shape).propose([0], 2)[0] == [1, 2]
    assert Recycles(table, shape).propose([3], 7) == ([], [])


def test_recycled_rows_are_the_largest_logits_of_the_last_node_that_held_the_token() -> None:
    table = Candidates(5, 2)
    logits = torch.tensor([[9.0, 1, 8, 0, 0], [0, 9, 8, 0, 0], [0, 0, 0, 8, 9]])
    Recycles(table, []).learn([], 1, [3, 2, 3], logits)
    assert table.table[3].tolist() == [4, 3] and table.table[2].tolist() == [1, 2]
    assert table.table[0].tolist() == [-1, -1]
    table.reset()
    assert (table.table == -1).all()
