"""What proposes tokens: copies of earlier text, a trie of n-grams, a table of last candidates."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from plumbline.decode.loop import NOTHING, Tree
from plumbline.kernels.vocab import likeliest


class Copies:
    """Copies what followed the latest earlier place where the text's last ``n`` tokens stood, the longest n first."""

    def __init__(self, longest: int) -> None:
        self.longest, self.read = longest, 0
        self.places: dict[tuple[int, ...], int] = {}

    def propose(self, text: list[int], width: int) -> Tree:
        for end in range(max(self.read, 1), len(text)):  # the last token's own n-grams end where nothing follows yet
            for n in range(1, min(self.longest, end) + 1):
                self.places[tuple(text[end - n : end])] = end
        self.read = len(text)
        for n in range(min(self.longest, len(text) - 1), 0, -1):
            at = self.places.get(tuple(text[-n:]))
            if at is not None:
                period = len(text) - at  # past the end of the text the copy goes on with itself
                tokens = [text[at + i % period] for i in range(width)]
                return tokens, list(range(width))
        return NOTHING

    def learn(self, text: list[int], fresh: int, nodes: list[int], logits: Tensor) -> None:
        """Everything is in the text."""


class _Node:
    """One token of a trie: what follows it, how often it was output, and how often each open prompt held it."""

    __slots__ = ("below", "given", "output")

    def __init__(self) -> None:
        self.below: dict[int, _Node] = {}
        self.output, self.given = 0.0, dict[int, float]()


class Trie:
    r"""N-grams of prompts and of earlier outputs, shared by the requests that are given it.

    For each token a trie of the ``branch`` tokens that came after it, with their frequencies: in a prompt (kept for as
    long as the request is open) and in outputs (kept). Safe to share between threads.

    Args:
        branch: tokens after each, :math:`b`. nodes, outputs: sizes of one token's trie at which frequencies of outputs
            are halved and rare nodes dropped. stops: tokens that are no keys.
    """

    def __init__(self, branch: int = 12, *, nodes: int = 65536, outputs: int = 512, stops: Iterable[int] = ()) -> None:
        self.branch, self.nodes, self.outputs, self.stops = branch, nodes, outputs, frozenset(stops)
        self.roots: dict[int, _Node] = {}
        self.sizes: dict[int, int] = {}
        self._lock, self._requests = threading.Lock(), 0

    def open(self) -> int:
        """A number for one request's prompt."""
        with self._lock:
            self._requests += 1
            return self._requests

    def grow(self, open_nodes: list[_Node], tokens: Iterable[int], source: int | None = None) -> list[_Node]:
        """Add the next tokens of one text; ``source`` None: an output.

        ``open_nodes`` are where the last ``branch`` tokens' own tries have come to (none at a text's beginning);
        returned as they are afterwards, for the tokens after these.
        """
        with self._lock:
            for token in tokens:
                grown = [self._below(node, token, source) for node in open_nodes]
                if token not in self.stops:
                    grown.append(self._root(token, source is None))
                open_nodes = grown[-self.branch :]
        return open_nodes

    def _root(self, token: int, is_output: bool) -> _Node:
        root = self.roots.get(token)
        if root is None:
            root = self.roots[token] = _Node()
        seen = self.sizes[token] = self.sizes.get(token, 0) + self.branch  # at most so many nodes come below it
        if seen > (self.outputs if is_output else self.nodes):
            self.sizes[token] = _halve(root)
        return root

    def _below(self, node: _Node, token: int, source: int | None) -> _Node:
        below = node.below.get(token)
        if below is None:
            below = node.below[token] = _Node()
        if source is None:
            below.output += 1
        else:
            below.given[source] = below.given.get(source, 0.0) + 1
        return below

    def close(self, source: int, tokens: Sequence[int]) -> None:
        """Forget a prompt's frequencies when its request ends."""
        with self._lock:
            for token in set(tokens):
                if token in self.roots:
                    self.sizes[token] = _drop(self.roots[token], source)

    def propose(self, text: list[int], width: int, source: int, query: int = 2, weight: float = 1e-4) -> Tree:
        """The best ``width`` nodes after the last ``query`` tokens, or after fewer where those are hardly known."""
        found: Tree = NOTHING
        with self._lock:
            for n in range(min(query, len(text)), 0, -1):
                node = self.roots.get(text[-n])
                for token in text[len(text) - n + 1 :]:
                    node = node.below.get(token) if node else None
                if node is not None:
                    tree = _best(node, width, self.branch, source, weight)
                    found = tree if len(tree[0]) > len(found[0]) else found
                if len(found[0]) >= min(self.branch, width):
                    break
        return found


def _best(root: _Node, width: int, depth: int, source: int, weight: float) -> Tree:
    """Nodes by mixed frequency, parents first: half of the room by outputs alone, the rest by the mixed score."""
    every: list[tuple[_Node, int, int, int]] = []  # node, token, place of its parent in this list (-1: root), depth
    level = [(root, -1, 0)]
    while level:
        deeper = []
        for node, at, d in level:
            for token, below in node.below.items():
                every.append((below, token, at, d + 1))
                if d + 1 < depth:
                    deeper.append((below, len(every) - 1, d + 1))
        level = deeper
    mixed = [(1 - weight) * n.given.get(source, 0.0) + weight * n.output for n, *_ in every]
    by_output = sorted((i for i in range(len(every)) if every[i][0].output > 0), key=lambda i: -every[i][0].output)
    by_score = sorted((i for i in range(len(every)) if mixed[i] > 0), key=lambda i: -mixed[i])
    kept: set[int] = set()
    for i in [*by_output[: width // 2], *by_score, *by_output]:
        chain = []
        while i >= 0 and i not in kept:
            chain.append(i)
            i = every[i][2]
        if len(kept) + len(chain) <= width:
            kept.update(chain)
        if len(kept) >= width:
            break
    order = sorted(kept)  # breadth first: parents before children
    number = {-1: 0, **{at: k for k, at in enumerate(order, 1)}}
    return [every[i][1] for i in order], [number[every[i][2]] for i in order]


def _halve(node: _Node) -> int:
    """Halve the frequencies of outputs, drop what neither outputs nor open prompts hold; the nodes that stay."""
    size = 0
    for token, below in list(node.below.items()):
        below.output /= 2
        if below.output <= 1 and not below.given:
            del node.below[token]
        else:
            size += 1 + _halve(below)
    return size


def _drop(node: _Node, source: int) -> int:
    size = 0
    for token, below in list(node.below.items()):
        below.given.pop(source, None)
        if not below.given and not below.output:
            del node.below[token]
        else:
            size += 1 + _drop(below, source)
    return size


class Looks:
    """One row's view of a :class:`Trie`: its prompt while it is open, and its output as it grows."""

    def __init__(self, trie: Trie, prompt: list[int]) -> None:
        self.trie, self.source, self.prompt = trie, trie.open(), list(prompt)
        trie.grow([], self.prompt, self.source)
        self.open_nodes = trie.grow([], self.prompt[-1:])

    def propose(self, text: list[int], width: int) -> Tree:
        return self.trie.propose(text, width, self.source)

    def learn(self, text: list[int], fresh: int, nodes: list[int], logits: Tensor) -> None:
        self.open_nodes = self.trie.grow(self.open_nodes, text[len(text) - fresh :])

    def close(self) -> None:
        self.trie.close(self.source, self.prompt)


class Candidates:
    """For every token the ``k`` tokens last seen as likeliest after it, [V, k] int32 on the CPU; -1: never seen."""

    def __init__(self, vocab: int, k: int = 8) -> None:
        self.table = torch.full((vocab, k), -1, dtype=torch.int32)

    def reset(self) -> None:
        """Forget everything."""
        self.table.fill_(-1)


class Recycles:
    """Fills a fixed shape of tree from a table of candidates: node (path of ranks) -> token, breadth first."""

    def __init__(self, candidates: Candidates, shape: Sequence[tuple[int, ...]]) -> None:
        self.candidates = candidates
        number = {(): 0, **{path: i for i, path in enumerate(shape, 1)}}
        self.nodes = [(number[path[:-1]], path[-1]) for path in shape]

    def propose(self, text: list[int], width: int) -> Tree:
        known: dict[int, list[int]] = {}
        tokens, parents, place = [text[-1]], [-1], [0]  # place[i]: node i of the shape here, -1 where left out
        taken: set[tuple[int, int]] = set()
        for parent, rank in self.nodes[:width]:
            at = place[parent]
            if at >= 0:
                token = tokens[at]
                row = known.get(token)
                if row is None:
                    row = known[token] = self.candidates.table[token].tolist()
                token = row[rank] if rank < len(row) else -1
                at = -1 if token < 0 or (at, token) in taken else at
            if at < 0:
                place.append(-1)
                continue
            taken.add((at, token))
            place.append(len(tokens))
            tokens.append(token)
            parents.append(at)
        return tokens[1:], parents[1:]

    def learn(self, text: list[int], fresh: int, nodes: list[int], logits: Tensor) -> None:
        table = self.candidates.table
        top = likeliest(logits, table.shape[1]).to("cpu", torch.int32)
        last = {token: i for i, token in enumerate(nodes)}  # a token fed twice: the last in order counts
        table[list(last), : top.shape[1]] = top[list(last.values())]
