"""Greedy and beam search."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from transformer_jax.decoding.constraints import Constraint, Outputs, Required, adjust
from transformer_jax.decoding.hypotheses import Hypotheses, length_penalty, take
from transformer_jax.decoding.largest import largest
from transformer_jax.decoding.model import StepModel
from transformer_jax.decoding.strategy import Sentences, Strategy
from transformer_jax.errors import InputError


@flax.struct.dataclass
class Beams:
    """The open and finished hypotheses of B sentences, or of B groups of a diverse search.

    A sentence all of whose open totals are -inf is done: its finished hypotheses do not change any more.
    """

    length: Int[Array, " B"]  # tokens of each open hypothesis
    limits: Int[Array, " B"]
    tokens: Int[Array, "B W T"]  # of the open hypotheses
    last: Int[Array, "B W"]  # the token each of them reads next
    totals: Float[Array, "B W"]  # adjusted log-probabilities of the open hypotheses; -inf where there is none
    log_probs: Float[Array, "B W"]  # the model's own
    finished: Hypotheses
    num_finished: Int[Array, " B"]
    constraints: tuple[Constraint, ...]


@flax.struct.dataclass
class BeamState:
    """Between two steps; see `Strategy`."""

    beams: Beams
    cache: PyTree


@flax.struct.dataclass
class _Candidates:
    """C continuations by one token of each sentence's open hypotheses."""

    parents: Int[Array, "B C"]  # the beam that each continues
    tokens: Int[Array, "B C"]  # with this token
    merits: Float[Array, "B C"]  # what they are chosen by; -inf where there is none
    totals: Float[Array, "B C"]  # adjusted log-probabilities of the whole
    log_probs: Float[Array, "B C"]  # the model's own


@dataclasses.dataclass(frozen=True)
class BeamSearch(Strategy[BeamState]):
    """Beam search with the length penalty of Wu et al. (2016); the defaults are those of Vaswani et al., section 6.1.

    At each step the best 2 * width continuations are looked at: those that end join the n_best finished hypotheses,
    the best width of the others stay open. A beam of one is greedy search.

    A sentence that is "settled" stops as soon as no open hypothesis can enter its finished list any more, so that the
    list is what decoding to the limit would give; the shorter the list, the earlier. By "patience" it stops when
    patience * width hypotheses have finished (Kasai et al., 2022), which 1 makes the early stopping of most toolkits.

    Groups divide the beam (diverse beam search, Vijayakumar et al., 2018): each is a search of its own, in which a
    token costs `diversity` for every hypothesis of the groups before it that took the same token at that step. That
    chooses continuations; scores stay without it. Each group gives its share of the n best.

    Raises:
        InputError: on a width below 1, a length penalty or offset below 0, n_best outside 1 to width, groups that do
            not divide width, a negative diversity, or a patience that is not above 0.
    """

    width: int = 4
    length_penalty: float = 0.6  # alpha; 0 ranks by plain log-probability, more favours longer outputs
    n_best: int = 1  # hypotheses given for each sentence, at most width
    stopping: str = "settled"  # or "patience"
    patience: float = 1.0
    groups: int = 1
    diversity: float = 0.5
    length_offset: float = 5.0  # in the length penalty
    narrow_ends: bool = False  # an end counts only among the best width continuations, as in other toolkits

    def __post_init__(self) -> None:
        self._require(self.width >= 1, "width", "must be at least 1")
        self._require(self.length_penalty >= 0, "length_penalty", "must not be negative")
        self._require(self.length_offset >= 0, "length_offset", "must not be negative")
        self._require(1 <= self.n_best <= self.width, "n_best", f"must be 1 to {self.width}, the width")
        self._require(self.stopping in ("settled", "patience"), "stopping", "must be 'settled' or 'patience'")
        self._require(self.patience > 0, "patience", "must be above 0")
        self._require(self.groups >= 1 and self.width % self.groups == 0, "groups", f"must divide width={self.width}")
        self._require(self.diversity >= 0, "diversity", "must not be negative")

    def _require(self, condition: bool, field: str, what: str) -> None:
        if not condition:
            raise InputError(f"{type(self).__name__} {field}={getattr(self, field)!r} {what}")

    @property
    def rows(self) -> int:
        """One for each hypothesis of the beam."""
        return self.width

    @property
    def beams(self) -> int:
        """Those of a group."""
        return self.width // self.groups

    @property
    def _num_candidates(self) -> int:
        """Continuations looked at in a step; a runner-up would keep a beam of one open behind its own end."""
        return 2 * self.beams if self.beams > 1 else 1

    def start(self, model: StepModel, sentences: Sentences) -> BeamState:
        """One empty open hypothesis a group, in its first beam; none where the limit is 0."""
        limits, max_length = jnp.repeat(sentences.limits, self.groups), sentences.max_length
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.groups, axis=0), sentences.constraints)
        shape = (limits.shape[0], self.beams)
        first = jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(jnp.where(limits > 0, 0.0, -jnp.inf))
        beams = Beams(
            length=jnp.zeros_like(limits),
            limits=limits,
            tokens=jnp.full((*shape, max_length), model.pad_id, jnp.int32),
            last=jnp.full(shape, model.start, jnp.int32),
            totals=first,
            log_probs=first,
            finished=Hypotheses.none(limits.shape[0], -(-self.n_best // self.groups), max_length, model.pad_id),
            num_finished=jnp.zeros_like(limits),
            constraints=repeated,
        )
        return BeamState(beams, sentences.cache)

    def advance(self, model: StepModel, state: BeamState) -> BeamState:
        """Extends every group in turn, each by a token that those before it make dearer."""
        logits, cache = model.next_logits(state.beams.last, state.cache)  # -> [B * G, W / G, V]
        used = jnp.zeros((logits.shape[0] // self.groups, logits.shape[-1]), jnp.int32)
        extended, parents = [], []
        for group in range(self.groups):
            beams = jax.tree.map(lambda leaf, group=group: leaf[group :: self.groups], state.beams)
            penalty = None if group == 0 else self.diversity * used
            beams, rows = self._extend(model, beams, logits[group :: self.groups], penalty)
            used = _count(used, beams)
            extended.append(beams)
            parents.append(rows + group * self.beams)
        cache = self._reorder(model, cache, jnp.concatenate(parents, axis=1))
        return BeamState(jax.tree.map(_side_by_side, *extended), cache)

    def is_open(self, state: BeamState) -> Bool[Array, " B"]:
        """Where any group has an open hypothesis."""
        return jnp.any(state.beams.totals.reshape(-1, self.width) > -jnp.inf, axis=1)

    def results(self, state: BeamState) -> Hypotheses:
        """The best of all groups."""
        finished = jax.tree.map(
            lambda leaf: leaf.reshape(-1, self.groups * leaf.shape[1], *leaf.shape[2:]), state.beams.finished
        )
        return finished if self.groups == 1 else finished.best(self.n_best)

    def _penalty(self, lengths: Int[Array, " B"]) -> Float[Array, " B"]:
        return length_penalty(lengths, self.length_penalty, self.length_offset)

    def _extend(
        self, model: StepModel, beams: Beams, logits: Float[Array, "B W V"], penalty: Float[Array, "B V"] | None
    ) -> tuple[Beams, Int[Array, "B W"]]:
        """The beams one token later, and which beam each continues."""
        new = _candidates(beams, logits, penalty, self._num_candidates, model)
        length = beams.length + 1
        tokens = _append(take(beams.tokens, new.parents), new.tokens, beams.length)  # -> [B C T]
        ended = (new.tokens == model.eos_id) | (length == beams.limits)[:, None]  # -> [B C]
        ends = jnp.where(ended, new.totals, -jnp.inf)
        if self.narrow_ends:
            best, _ = jax.lax.top_k(new.merits, self.beams)
            ends = jnp.where(new.merits >= best[:, -1:], ends, -jnp.inf)
        finished = _finish(beams.finished, tokens, length, ends, new.log_probs, self._penalty(length))
        num_finished = beams.num_finished + jnp.sum(ends > -jnp.inf, axis=1)

        merits = jnp.where(ended, -jnp.inf, new.merits)
        kept = _choose(merits, Outputs(tokens, length, beams.limits, model.eos_id), beams.constraints, beams.last)
        totals = jnp.where(take(merits, kept) > -jnp.inf, take(new.totals, kept), -jnp.inf)
        if self.stopping == "patience":
            open_ = num_finished < self.patience * self.beams
        else:
            open_ = _can_still_win(totals, finished, self._penalty(beams.limits))
        beams = dataclasses.replace(
            beams,
            length=length,
            tokens=take(tokens, kept),
            last=take(new.tokens, kept),
            totals=jnp.where(open_[:, None], totals, -jnp.inf),
            log_probs=take(new.log_probs, kept),
            finished=finished,
            num_finished=num_finished,
        )
        return beams, take(new.parents, kept)

    def _reorder(self, model: StepModel, cache: PyTree, parents: Int[Array, "B W"]) -> PyTree:
        """The cache with every beam's row taken over from its parent."""
        if self.beams == 1:
            return cache
        rows = parents + self.width * jnp.arange(parents.shape[0], dtype=parents.dtype)[:, None]  # -> [B W]
        return model.select(cache, rows.reshape(-1))


class Greedy(BeamSearch):
    """The most probable token at each step: a beam of one, whose score is the plain log-probability."""

    def __init__(self) -> None:
        super().__init__(width=1, length_penalty=0.0)

    def __repr__(self) -> str:
        return "Greedy()"


def _candidates(
    beams: Beams, logits: Float[Array, "B W V"], penalty: Float[Array, "B V"] | None, count: int, model: StepModel
) -> _Candidates:
    """The best `count` continuations, best first; where phrases are required, all of a beam's best and theirs.

    The log-softmax of the whole vocabulary is taken only where a constraint asks for it.
    """
    norms, logits = model.normaliser(logits), model.without_padding(logits)  # -> [B W 1], [B W V]
    outputs = Outputs(beams.tokens, beams.length, beams.limits, model.eos_id)
    adjusted = logits
    if beams.constraints:
        adjusted = adjust(logits - norms, beams.constraints, outputs) + norms
    wanted = adjusted if penalty is None else adjusted - penalty[:, None]
    best, tokens = largest(wanted, min(count, logits.shape[-1]))  # -> [B W K]
    required = _required(beams.constraints)
    if required is not None:
        best, tokens = _with_required(required, outputs, best, tokens, wanted)
    merits = (best - norms + beams.totals[:, :, None]).reshape(best.shape[0], -1)
    merits = jnp.where(jnp.isnan(merits), -jnp.inf, merits)
    if required is None:
        merits, index = jax.lax.top_k(merits, min(count, merits.shape[1]))  # -> [B C]
    else:
        index = jnp.broadcast_to(jnp.arange(merits.shape[1])[None], merits.shape)
    parents, tokens = index // tokens.shape[-1], take(tokens.reshape(tokens.shape[0], -1), index)

    def totals_by(values: Float[Array, "B W V"], before: Float[Array, "B W"]) -> Float[Array, "B C"]:
        chosen = jax.vmap(lambda row, parent, token: row[parent, token])(values - norms, parents, tokens)
        return jnp.where(merits > -jnp.inf, chosen + take(before, parents), -jnp.inf)

    totals = merits if penalty is None else totals_by(adjusted, beams.totals)
    log_probs = totals_by(logits, beams.log_probs) if beams.constraints else totals
    return _Candidates(parents=parents, tokens=tokens, merits=merits, totals=totals, log_probs=log_probs)


def _required(constraints: Sequence[Constraint]) -> Required | None:
    return next((constraint for constraint in constraints if isinstance(constraint, Required)), None)


def _with_required(
    required: Required,
    outputs: Outputs,
    best: Float[Array, "B W K"],
    tokens: Int[Array, "B W K"],
    values: Float[Array, "B W V"],
) -> tuple[Float[Array, "B W K2"], Int[Array, "B W K2"]]:
    """Beside every beam's best continuations, those that go on with a phrase it still lacks."""
    wanted = required.wanted(outputs)  # -> [B W F]
    known = jnp.concatenate([tokens, wanted], axis=2)
    places = jnp.arange(known.shape[2])
    earlier = places[None] < places[tokens.shape[2] :, None]  # -> [F K2]
    repeated = ((wanted[..., None] == known[:, :, None]) & earlier[None, None]).any(axis=3)
    added = jnp.take_along_axis(values, wanted, axis=2)  # padding, where nothing is wanted, is at -inf
    added = jnp.where(repeated, -jnp.inf, added)
    return jnp.concatenate([best, added], axis=2), known


def _choose(
    merits: Float[Array, "B C"], outputs: Outputs, constraints: Sequence[Constraint], beams: Int[Array, "B W"]
) -> Int[Array, "B W"]:
    """Which candidates stay open: the best, or the best of every bank in turn, where phrases are required.

    A bank holds the candidates with as many tokens of the phrases; the fullest bank comes first in every turn.
    """
    width = beams.shape[1]
    required = _required(constraints)
    if required is None:
        return jax.lax.top_k(merits, width)[1]
    banks = required.met_tokens(outputs)  # -> [B C]
    earlier = jnp.tri(merits.shape[1], k=-1, dtype=bool)[None]
    ahead = (merits[:, None] > merits[..., None]) | ((merits[:, None] == merits[..., None]) & earlier)
    turns = jnp.sum(ahead & (banks[:, None] == banks[..., None]), axis=2)  # -> [B C]
    order = turns * (1 + jnp.max(banks, axis=1, keepdims=True)) - banks
    order = jnp.where(merits > -jnp.inf, order, jnp.iinfo(order.dtype).max)
    return jnp.argsort(order, axis=1)[:, :width]


def _append(tokens: Int[Array, "B C T"], new: Int[Array, "B C"], length: Int[Array, " B"]) -> Int[Array, "B C T"]:
    """One token behind the `length` of each."""
    here = jnp.arange(tokens.shape[2])[None, None] == length[:, None, None]
    return jnp.where(here, new[..., None], tokens)


def _finish(
    finished: Hypotheses,
    tokens: Int[Array, "B C T"],
    length: Int[Array, " B"],
    totals: Float[Array, "B C"],
    log_probs: Float[Array, "B C"],
    penalty: Float[Array, " B"],
) -> Hypotheses:
    """The best of the finished hypotheses and those that end now, at this length; the earlier of equals first."""
    lengths = jnp.broadcast_to(length[:, None], totals.shape)
    scores = totals / penalty[:, None]
    log_probs = jnp.where(totals > -jnp.inf, log_probs, -jnp.inf)
    new = Hypotheses(tokens=tokens, lengths=lengths, scores=scores, log_probs=log_probs)
    return finished.joined(new).best(finished.scores.shape[1])


def _can_still_win(totals: Float[Array, "B W"], finished: Hypotheses, penalty: Float[Array, " B"]) -> Bool[Array, " B"]:
    """Whether a continuation of an open hypothesis could still enter the finished list.

    A total only falls and the penalty only grows, so that no continuation scores above today's total under `penalty`,
    that of the limit. A list that is not full has a worst score of -inf.
    """
    attainable = totals.max(axis=1) / penalty
    return attainable > finished.scores.min(axis=1)


def _count(used: Int[Array, "B V"], beams: Beams) -> Int[Array, "B V"]:
    """How often each token was taken at this step, with these beams."""
    return jax.vmap(lambda row, tokens, counts: row.at[tokens].add(counts))(
        used, beams.last, (beams.totals > -jnp.inf).astype(used.dtype)
    )


def _side_by_side(*leaves: Array) -> Array:
    """Leaves of groups, [B ...] each, as one of [B * G ...]."""
    return jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:])
