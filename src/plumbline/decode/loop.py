"""What every sampler needs of ``generate``'s arguments, and the one loop that drafts, verifies and keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.generation import (
    EosTokenCriteria,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerateDecoderOnlyOutput,
    MaxLengthCriteria,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from plumbline.core.errors import refuse
from plumbline.decode.backoff import Backoff
from plumbline.kernels.cached_lm import tokens_held
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator
from plumbline.kernels.tree import TreeLM
from plumbline.kernels.vocab import likeliest

Tree = tuple[list[int], list[int]]  # tokens and parents of nodes 1 .. N: parent 0 is the root, i the i-th node
NOTHING: Tree = ([], [])
# these look at a position's own scores and at nothing else, whichever row it is in
WARPERS = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper,
           EpsilonLogitsWarper, EtaLogitsWarper)  # fmt: skip


@dataclass
class Report:
    """What a sampler spent and won: pass one as ``report=`` and read it afterwards.

    Attributes:
        tokens: emitted, over all rows. calls: forward passes of the main model, the reading of the prompt among them.
        fed: tokens given to it. drafted, kept: draft tokens proposed and accepted. peer_calls, peer_tokens: forward
            passes of a second model, and the tokens it chose.
    """

    tokens: int = 0
    calls: int = 0
    fed: int = 0
    drafted: int = 0
    kept: int = 0
    peer_calls: int = 0
    peer_tokens: int = 0
    notes: list[str] = field(default_factory=list)


class Drafter(Protocol):
    """What proposes continuations for one row."""

    def propose(self, text: list[int], width: int) -> Tree:
        """At most ``width`` nodes after the last token of ``text``; siblings must differ."""

    def learn(self, text: list[int], fresh: int, nodes: list[int], logits: Tensor) -> None:
        """After a pass: ``text`` with its ``fresh`` newest tokens; the fed nodes (root first) and logits [N, V]."""


class Run:
    """One ``generate`` call as a sampler sees it: rows without padding, a budget, an end, and how a token is chosen.

    Refuses what no loop of ours can honour: beams, ``stop_strings`` (its tokenizer does not reach a sampler), static or
    quantised caches, a cache that is already filled, an empty prompt, encoder-decoders.

    Attributes:
        rows: list per row of its ids, prompt first; ``emit`` appends. budget: new tokens a row may have.
    """

    def __init__(
        self, where: str, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, config: Any,
        inputs: dict[str, Any], *, chooser: Chooser | None = None, report: Report | None = None,
    ) -> None:  # fmt: skip
        _reject(where, model, input_ids, config, inputs)
        self.where, self.model, self.config, self.input_ids = where, model, config, input_ids
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None or mask.dim() != 2 else mask
        if not bool((mask[:, -1] != 0).all()):
            raise refuse(where, "attention_mask", "left padding", "padding at the end of a row", "pad on the left")
        self.rows = [row[m != 0].tolist() for row, m in zip(input_ids, mask, strict=True)]
        self.pads = [row[m == 0].tolist() for row, m in zip(input_ids, mask, strict=True)]
        self.prompts = [len(r) for r in self.rows]
        self.budget = max(int(config.max_length) - input_ids.shape[1], 0)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if context and max(self.prompts) > context:
            raise refuse(where, "input_ids", f"at most {context} tokens, the model's context", max(self.prompts),
                         "cut the prompt")  # fmt: skip
        self.room = [min(self.budget, context - n + 1 if context else self.budget) for n in self.prompts]
        self.done = [room <= 0 for room in self.room]
        eos = config.eos_token_id
        self.eos = set() if eos is None else {int(t) for t in (eos if isinstance(eos, (list, tuple)) else [eos])}
        self.sampled = bool(config.do_sample)
        self.processors = list(logits_processor or ())
        for processor in self.processors:
            if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
                do = "pass the rule classifier_free_guidance as a logits processor"
                raise refuse(where, "guidance_scale", "left out (no rollback)", processor.guidance_scale, do)
            if getattr(processor, "last_position_only", False):
                raise refuse(where, "logits_processor", "rules that can be asked about any position",
                             getattr(processor, "name", type(processor).__name__), "use it without drafts")  # fmt: skip
            getattr(processor, "begin", lambda _: None)(input_ids)
        ours = (EosTokenCriteria, MaxLengthCriteria)  # both are kept by the loop itself
        self.criteria = [c for c in stopping_criteria or () if not isinstance(c, ours)]
        self.report = Report() if report is None else report
        # a stream a row: what a row draws does not depend on how far the others got
        seeds = torch.randint(2**62, (len(self.rows),)).tolist() if self.sampled and chooser is None else []
        self.choosers = [Chooser(generator(s, "row")) for s in seeds] or [chooser or Chooser()] * len(self.rows)

    @property
    def rules(self) -> bool:
        """Whether scores depend on anything but the position's own logits: rules, penalties, grammars."""
        return not all(isinstance(p, WARPERS) for p in self.processors)

    def active(self) -> list[int]:
        return [b for b, done in enumerate(self.done) if not done]

    def backoff(self, widths: Sequence[int]) -> Backoff:
        """Drafts of these widths for this run's model; rows with rules go one at a time."""
        return Backoff(widths, model=self.model, rows=1 if self.rules else len(self.active()))

    def left(self, b: int) -> int:
        """New tokens that row b may still have."""
        return self.room[b] - (len(self.rows[b]) - self.prompts[b])

    def scores(self, b: int, drafted: Sequence[int], logits: Tensor) -> Tensor:
        """Processed scores [V] of row b after its text and ``drafted``; raw logits [V] in."""
        if not self.processors:
            return logits
        text = torch.tensor([[*self.pads[b], *self.rows[b], *drafted]], device=self.input_ids.device)
        scores = logits[None].to(text.device)
        for processor in self.processors:
            if isinstance(processor, WARPERS) or hasattr(processor, "begin") or len(self.rows) == 1:
                scores = processor(text, scores)
            else:  # one that may hold something for each row of the batch by number: it sees row b in every place
                n = len(self.rows)
                scores = processor(text.repeat(n, 1), scores.repeat(n, 1))[b : b + 1]
        return scores[0]

    def probs(self, b: int, drafted: Sequence[int], logits: Tensor) -> Tensor:
        """The distribution [V] in float64 that row b samples its next token from."""
        return torch.softmax(self.scores(b, drafted, logits).double(), -1)

    def pick(self, b: int, scores: Tensor) -> int:
        """Row b's next token by processed scores [V]."""
        if not self.sampled:
            return int(scores.argmax())
        return self.choosers[b].categorical(torch.softmax(scores.double(), -1))

    def choose(self, b: int, drafted: Sequence[int], logits: Tensor) -> int:
        """Row b's next token after its text and ``drafted``, by raw logits [V]."""
        return self.pick(b, self.scores(b, drafted, logits))

    def emit(self, b: int, tokens: Iterable[int]) -> int:
        """Append to row b up to its end (EOS, budget or a stopping criterion); how many were taken."""
        taken = 0
        for token in tokens:
            if self.done[b]:
                break
            self.rows[b].append(int(token))
            taken += 1
            self.done[b] = token in self.eos or self.left(b) <= 0
            if self.criteria:
                text = torch.tensor([[*self.pads[b], *self.rows[b]]], device=self.input_ids.device)
                self.done[b] |= any(bool(torch.as_tensor(c(text, None)).any()) for c in self.criteria)
        self.report.tokens += taken
        return taken

    def result(self) -> Any:
        """[B, L + longest] ids, right-padded, in the form that the generation config asks for."""
        pad = self.config.pad_token_id
        pad = next(iter(sorted(self.eos)), 0) if pad is None else int(pad)
        full = [[*p, *r] for p, r in zip(self.pads, self.rows, strict=True)]
        width = max(map(len, full))
        ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in full], device=self.input_ids.device)
        return GenerateDecoderOnlyOutput(sequences=ids) if self.config.return_dict_in_generate else ids


def same_place(where: str, role: str, model: Any, other: Any) -> None:
    """Refuse a second model that is not where and what the first is: vocabulary, device, dtype."""
    for what, of, do in (
        ("the vocabulary width", lambda m: m.config.get_text_config().vocab_size, "use two models of one tokenizer"),
        ("the device", lambda m: m.get_input_embeddings().weight.device, "move it there"),
        ("the dtype", lambda m: m.get_input_embeddings().weight.dtype, "load both in one dtype"),
    ):
        if of(model) != of(other):
            raise refuse(where, role, f"a model with {what} of the main one, {of(model)}", str(of(other)), do)


def _reject(where: str, model: Any, input_ids: Tensor, config: Any, inputs: dict[str, Any]) -> None:
    if (config.num_beams or 1) > 1:
        raise refuse(where, "num_beams", "1", config.num_beams, "a drafted step has no beams; leave num_beams out")
    if getattr(config, "stop_strings", None) is not None:
        raise refuse(where, "stop_strings", "left out: its tokenizer does not reach a sampler", config.stop_strings,
                     "pass a stopping criterion, or the token as eos_token_id")  # fmt: skip
    if getattr(config, "cache_implementation", None) not in (None, "dynamic"):
        raise refuse(where, "cache_implementation", "a cache that can be rolled back", config.cache_implementation,
                     "leave it out")  # fmt: skip
    if held := tokens_held(inputs):
        raise refuse(where, "the given cache", "empty", f"{held} tokens", "pass the whole text")
    for name in ("output_scores", "output_logits", "output_attentions", "output_hidden_states"):
        if config.return_dict_in_generate and getattr(config, name, False):
            raise refuse(where, name, "left out: a sampler returns sequences alone", True, "score them afterwards")
    if getattr(model.config, "is_encoder_decoder", False):
        raise refuse(where, "model", "a decoder-only language model", type(model).__name__, "pass a causal LM")
    if input_ids.shape[1] == 0:
        raise refuse(where, "input_ids", "[B, L] with L >= 1", list(input_ids.shape), "begin with the bos token")


def follow(run: Run, b: int, tree: Tree, logits: Tensor, best: list[int] | None = None) -> tuple[list[int], list[int]]:
    r"""Sample, then match: :math:`x \sim p(\cdot \mid node)`; a child that holds x is entered, else x ends the walk.

    Exactly lossless for any tree that was there before the draws, greedy and sampled: every emitted token is drawn
    from the model's own distribution given the tokens before it.

    Args:
        tree: nodes of row b. logits: [N + 1, V], the root's first. best: their argmax, where nothing else decides.

    Returns:
        (nodes entered, the root first; tokens emitted: theirs and the one after them).
    """
    tokens, parents = tree
    child = {(p, t): i for i, (t, p) in enumerate(zip(tokens, parents, strict=True), 1)}
    path, emitted = [0], list[int]()
    while True:
        node = path[-1]
        token = run.choose(b, emitted, logits[node]) if best is None else best[node]
        emitted.append(token)
        entered = child.get((node, token))
        if entered is None or len(emitted) >= run.left(b):
            return path, emitted
        path.append(entered)


Step = Callable[[TreeLM, list[int], int], tuple[int, Sequence[Sequence[int]]]]


def passes(run: Run, backoff: Callable[[int], Backoff], step: Step) -> Any:
    """Decode every row of ``run`` in passes over drafts: a ragged batch where rows depend on their own text alone.

    A run with rules goes row by row (a rule that holds a cache would rebuild it at every change of row), one without
    goes in one batch in which rows accept different lengths.

    Args:
        backoff: rows of a group -> how much it drafts.
        step: ``(lm, rows, width) -> (most draft nodes of a row, nodes entered by each row, the root first)``; emits.
    """
    for group in [[b] for b in run.active()] if run.rules else [run.active()]:
        lm, drafts = TreeLM(run.model, run.where), backoff(len(group))
        if group:
            lm.start([run.rows[b] for b in group])
        while group:
            began, width = time.perf_counter(), drafts.width()
            nodes, paths = step(lm, group, width)
            lm.keep(paths)
            drafts.observe(nodes, paths, time.perf_counter() - began)
            going = [i for i, b in enumerate(group) if not run.done[b]]
            if 0 < len(going) < len(group):
                lm.take(going)
            group = [group[i] for i in going]
        run.report.calls += lm.calls
        run.report.fed += lm.fed
    return run.result()


def speculate(run: Run, drafters: Sequence[Drafter], backoff: Backoff) -> Any:
    """Decode by the drafts of one drafter a row."""

    def step(lm: TreeLM, group: list[int], width: int) -> tuple[int, Sequence[Sequence[int]]]:
        trees = [drafters[b].propose(run.rows[b], min(width, run.left(b) - 1)) if width else NOTHING for b in group]
        return max(len(tokens) for tokens, _ in trees), _step(run, lm, group, trees, drafters)

    return passes(run, lambda rows: backoff, step)


def _step(run: Run, lm: TreeLM, group: list[int], trees: list[Tree], drafters: Sequence[Drafter]) -> list[list[int]]:
    """One pass over every row's tree; the nodes entered, the root first."""
    widest = max(len(tokens) for tokens, _ in trees)
    roots = [run.rows[b][-1] for b in group]
    fed = [[r, *t, *[r] * (widest - len(t))] for r, (t, _) in zip(roots, trees, strict=True)]
    parents = [[*p, *[0] * (widest - len(p))] for _, p in trees]
    logits = lm.logits(torch.tensor(fed), parents)
    plain = not run.sampled and not run.processors
    best = likeliest(logits.flatten(0, 1)).view(len(group), -1).tolist() if plain else [None] * len(group)
    paths = []
    for i, b in enumerate(group):
        path, emitted = follow(run, b, trees[i], logits[i], best[i])
        taken = run.emit(b, emitted)
        paths.append(path[:taken])
        run.report.drafted += len(trees[i][0])
        run.report.kept += max(taken - 1, 0)
        nodes = len(trees[i][0]) + 1
        drafters[b].learn(run.rows[b], taken, fed[i][:nodes], logits[i, :nodes])
    return paths
