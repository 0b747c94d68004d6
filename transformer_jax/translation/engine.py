"""Sentences as ids through a model: few shapes, full batches, and every result its own sentence's alone.

A sentence's shape is a function of the sentence, never of those beside it. A batch has fixed slots; as sentences end,
others of the same shape take their places, so that a long one does not hold the rest.
"""

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from transformer_jax import sharding
from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID
from transformer_jax.decoding import (
    BeamSearch,
    Constraint,
    Forbidden,
    Hypotheses,
    MinLength,
    NoRepeatedNgram,
    Prefix,
    RepetitionPenalty,
    Required,
    Sampling,
    StepModel,
    Strategy,
    check_weights,
    ensemble,
    keys_of_lines,
    phrase_array,
)
from transformer_jax.errors import InputError
from transformer_jax.inference import start_cache, step_model
from transformer_jax.models import Parameters, Transformer
from transformer_jax.sizes import Size

SHORTEST = 16  # source lengths are padded to this times a power of two, so that few shapes are compiled
FULL_BATCH = 128  # up to this padded length a batch is full; longer ones hold fewer sentences, for the same memory
REFILLS = 4  # a batch is filled up again when one part in so many of it has ended


@dataclasses.dataclass(frozen=True)
class Request:
    """A sentence to be decoded, in ids."""

    source: Sequence[int]  # the end token last
    line: int = 0  # its number, and which part of its line it is: by these draws are seeded
    part: int = 0
    prefix: Sequence[int] = ()
    required: Sequence[Sequence[int]] = ()
    forbidden: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True)
class Output:
    """One decoded output of a sentence."""

    tokens: list[int]  # the end token last, unless the limit came first
    score: float  # what it is ranked by
    log_prob: float  # the model's own


@dataclasses.dataclass(frozen=True)
class Shape:
    """What decides which programs a sentence runs through."""

    source: int  # padded length
    target: int  # tokens of the longest output
    prefix: int  # padded length; 0 is no prefix
    required: tuple[int, int]  # padded number and length of phrases; (0, 0) is none
    forbidden: tuple[int, int]


class Engine:
    """Decodes sentences with one model, or with several as one."""

    def __init__(
        self,
        models: Sequence[Transformer],
        config: DecodingConfig,
        mesh: Mesh,
        positions: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        """An engine for models of one vocabulary.

        Args:
            models: one, or the members of an ensemble.
            config: how to decode.
            mesh: the devices.
            positions: tokens of a sentence at most, by the models' tables of positions.
            weights: of the members.
        """
        self._models, self._config, self._mesh, self._weights = models, config, mesh, weights
        self.positions = positions
        if len(models) > 1 or weights is not None:
            check_weights(len(models), weights)
        self._strategy = strategy_of(config)
        rows = sharding.batch_sharding(mesh)
        everywhere = sharding.replicated(mesh)  # every process reads the results
        self._start = jax.jit(self._start_batch, static_argnames="max_length", out_shardings=rows)
        self._advance = jax.jit(self._advance_batch, out_shardings=rows, donate_argnums=1)
        self._put = jax.jit(_put, out_shardings=rows, donate_argnums=0)
        self._tile = jax.jit(_tile, static_argnames="times", out_shardings=rows)
        self._read: Callable[..., tuple[Bool[Array, " B"], Hypotheses]] = jax.jit(
            lambda state: (self._strategy.is_open(state), self._strategy.results(state)), out_shardings=everywhere
        )

    def decode(self, params: Sequence[Parameters], requests: Sequence[Request]) -> Iterator[tuple[int, list[Output]]]:
        """The index of each request with its outputs, best first, as they come.

        There are none where nothing satisfies the constraints, or the model's numbers are not finite.
        """
        by_shape: dict[Shape, list[int]] = {}
        for index, request in enumerate(requests):
            by_shape.setdefault(self._shape(request), []).append(index)
        for shape in sorted(by_shape, key=dataclasses.astuple, reverse=True):
            longest_first = sorted(by_shape[shape], key=lambda index: -len(requests[index].source))
            yield from self._decode_shape(params, shape, [(index, requests[index]) for index in longest_first])

    def warm_up(self, params: Sequence[Parameters], longest: int) -> None:
        """Runs every program of sentences of up to so many tokens that have no constraints of their own, on nothing.

        Raises:
            InputError: where there is no longest sentence.
        """
        if longest == sys.maxsize:
            raise InputError("to compile ahead, the longest sentence must be known: decoding.longest says it")
        length = 1
        while True:
            shape = self._shape(Request([EOS_ID] * length))
            part = self.part_size(shape.source)
            begun, slots = self._begin(params, shape, part, []), self._slots(shape.source)
            states = [begun]
            if slots > part:
                empty = self._empty(params, shape, slots)
                states = [self._put(empty, begun, np.arange(part, dtype=np.int32)), begun]
            for state in states:
                jax.block_until_ready(self._read(self._advance(params, state, np.int32(0))))
            if shape.source >= longest:
                return
            length = shape.source + 1

    def limit(self, request: Request) -> int:
        """Tokens of its longest output: some more than its source has, or than it must have, as far as there are."""
        must = len(request.prefix) + sum(map(len, request.required)) + 1
        least = max(len(request.source), must, self._config.min_length + 1)
        return min(least + self._config.extra_length, self.positions)

    def _decode_shape(
        self, params: Sequence[Parameters], shape: Shape, requests: Sequence[tuple[int, Request]]
    ) -> Iterator[tuple[int, list[Output]]]:
        """All requests of one shape, each in a slot until it is done."""
        part = self.part_size(shape.source)
        size = part if len(requests) <= part else self._slots(shape.source)
        waiting, free, placed = deque(requests), list(range(size)), dict[int, int]()
        state = self._empty(params, shape, size) if size > part else None
        while waiting or placed:
            while waiting and free:
                count = min(part, len(free), len(waiting))
                new = [waiting.popleft() for _ in range(count)]
                slots, free = free[:count], free[count:]
                placed.update(zip(slots, (index for index, _ in new), strict=True))
                begun = self._begin(params, shape, part, [request for _, request in new])
                beyond = [size] * (part - count)
                state = begun if state is None else self._put(state, begun, np.array(slots + beyond, np.int32))
                jax.block_until_ready(state)  # with gloo, many programs that nothing orders hang
            state = self._advance(params, state, np.int32(size - part if waiting else 0))
            is_open, hypotheses = jax.device_get(self._read(state))
            done = [slot for slot in placed if not is_open[slot]]
            free += done
            for slot in done:
                yield placed.pop(slot), _outputs(hypotheses, slot)

    def _empty(self, params: Sequence[Parameters], shape: Shape, size: int) -> PyTree:
        """A state of so many slots with nothing in them."""
        part = self.part_size(shape.source)
        return jax.block_until_ready(self._tile(self._begin(params, shape, part, []), times=size // part))

    def _begin(self, params: Sequence[Parameters], shape: Shape, size: int, requests: Sequence[Request]) -> PyTree:
        """The state of so many sentences before their first token, the last ones of it empty."""
        tokens, limits = np.full((size, shape.source), PAD_ID, np.int32), np.zeros(size, np.int32)
        places = np.zeros((2, size), np.int32)  # line and part
        for row, request in enumerate(requests):
            tokens[row, : len(request.source)] = request.source
            limits[row], places[:, row] = self.limit(request), (request.line, request.part)
        constraints = self._constraints(shape, [*requests, *[_NOTHING] * (size - len(requests))])
        keys = np.asarray(keys_of_lines(self._config.seed, *places)) if self._config.sampling else None
        arrays = self.placed((tokens, limits, constraints, keys))
        return self._start(params, *arrays, max_length=shape.target)

    def placed(self, tree: Any) -> Any:
        """Arrays of the host on the devices, their rows shared among them."""
        place = sharding.batch_sharding(self._mesh)
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, place, x.__getitem__), tree)

    def _constraints(self, shape: Shape, requests: Sequence[Request]) -> tuple[Constraint, ...]:
        """Those of the config, and those of the shape."""
        constraints = settings_of(self._config, len(requests))
        if shape.forbidden != (0, 0):
            constraints.append(
                Forbidden(phrase_array([r.forbidden for r in requests], PAD_ID, shape.forbidden), PAD_ID)
            )
        if shape.required != (0, 0):
            constraints.append(Required(phrase_array([r.required for r in requests], PAD_ID, shape.required), PAD_ID))
        if shape.prefix:
            prefixes = phrase_array([[r.prefix] for r in requests], PAD_ID, (1, shape.prefix))[:, 0]
            constraints.append(Prefix(prefixes, np.array([len(r.prefix) for r in requests], np.int32)))
        return tuple(constraints)

    def _shape(self, request: Request) -> Shape:
        source = self.padded(len(request.source))
        prefix = power_of_two(len(request.prefix))
        required = _phrases_shape(request.required)
        room = prefix + required[0] * required[1] + 1
        return Shape(
            source=source,
            target=min(max(source, room, self._config.min_length + 1) + self._config.extra_length, self.positions),
            prefix=prefix,
            required=required,
            forbidden=_phrases_shape(request.forbidden),
        )

    @property
    def depth(self) -> int:
        """Decoder layers of the first model."""
        return self._models[0].config.decoder_layers

    def padded(self, length: int) -> int:
        """The length that a sequence is padded to: one of few, as far as there are positions."""
        return min(SHORTEST * power_of_two(-(-length // SHORTEST)), self.positions)

    def part_size(self, padded: int) -> int:
        """Sentences that are taken in at once: a multiple of the devices that share a batch."""
        shards = sharding.batch_shards(self._mesh)
        return -(-self._full(padded) // (REFILLS * shards)) * shards

    def _slots(self, padded: int) -> int:
        """Sentences that are decoded at once: a multiple of those that are taken in."""
        part = self.part_size(padded)
        return max(self._full(padded) // part, 1) * part

    def _full(self, padded: int) -> int:
        return max(self._config.batch_size * min(FULL_BATCH, padded) // padded, 1)

    def model(self, params: Sequence[Parameters]) -> StepModel:
        """The model, or the ensemble, with these parameters; its cache is a tuple."""
        members = [step_model(model, own, EOS_ID) for model, own in zip(self._models, params, strict=True)]
        return ensemble(members, self._weights) if len(members) > 1 else _alone(members[0])

    def caches(
        self, params: Sequence[Parameters], tokens: Int[Array, "B S"], rows: Size, capacity: int
    ) -> tuple[PyTree, ...]:
        """A cache for each member."""
        pairs = zip(self._models, params, strict=True)
        return tuple(start_cache(model, own, tokens, rows=rows, capacity=capacity) for model, own in pairs)

    def _start_batch(
        self,
        params: Sequence[Parameters],
        tokens: Int[Array, "B S"],
        limits: Int[Array, " B"],
        constraints: tuple[Constraint, ...],
        keys: UInt32[Array, "B 2"] | None,
        *,
        max_length: int,
    ) -> PyTree:
        caches = self.caches(params, tokens, tokens.shape[0] * self._strategy.rows, max_length)
        return self._strategy.start(
            self.model(params), caches, limits, max_length=max_length, constraints=constraints, keys=keys
        )

    def _advance_batch(self, params: Sequence[Parameters], state: PyTree, still_open: Int[Array, ""]) -> PyTree:
        return self._strategy.advance_until(self.model(params), state, still_open)


_NOTHING = Request(source=())


def strategy_of(config: DecodingConfig) -> Strategy[Any]:
    """The strategy that a config asks for."""
    if config.sampling:
        return Sampling(config.nbest, config.temperature, config.top_k, config.top_p, config.min_p)
    return BeamSearch(
        config.beam,
        config.length_penalty,
        config.nbest,
        config.stopping,
        config.patience,
        config.groups,
        config.diversity,
    )


def settings_of(config: DecodingConfig, count: Size) -> list[Constraint]:
    """The constraints that a config sets for all sentences, of which there are so many."""
    constraints: list[Constraint] = []
    if config.repetition_penalty != 1:
        constraints.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeated_ngram:
        constraints.append(NoRepeatedNgram(config.no_repeated_ngram))
    if config.min_length:
        constraints.append(MinLength(jnp.full(count, config.min_length)))
    return constraints


def _alone(model: StepModel) -> StepModel:
    """A model whose cache is a tuple of one, as those of ensembles are."""

    def step(tokens: Int[Array, "R T"], caches: PyTree) -> tuple[Float[Array, "R T V"], PyTree]:
        logits, cache = model.step(tokens, caches[0])
        return logits, (cache,)

    return dataclasses.replace(model, step=step, select=lambda caches, rows: (model.select(caches[0], rows),))


def _outputs(hypotheses: Hypotheses, slot: int) -> list[Output]:
    rows = zip(
        hypotheses.tokens[slot].tolist(),
        hypotheses.lengths[slot].tolist(),
        hypotheses.scores[slot].tolist(),
        hypotheses.log_probs[slot].tolist(),
        strict=True,
    )
    return [Output(tokens[:length], score, log_prob) for tokens, length, score, log_prob in rows if length]


def power_of_two(least: int) -> int:
    """The least power of two that is no less; 0 of 0."""
    return 1 << (least - 1).bit_length() if least else 0


def _phrases_shape(phrases: Sequence[Sequence[int]]) -> tuple[int, int]:
    if not phrases:
        return (0, 0)
    return power_of_two(len(phrases)), power_of_two(max(map(len, phrases)))


def _put(state: PyTree, new: PyTree, slots: Int[Array, " P"]) -> PyTree:
    """The state with other sentences in these slots; a slot beyond the last is nowhere.

    Every leaf has a leading axis of sentences, or of several entries a sentence.
    """

    def put(old: Array, entries: Array) -> Array:
        several = entries.shape[0] // slots.shape[0]
        by_slot = old.reshape(-1, several, *old.shape[1:])
        entries = entries.reshape(-1, several, *entries.shape[1:])
        return by_slot.at[slots].set(entries, mode="drop").reshape(old.shape)

    return jax.tree.map(put, state, new)


def _tile(state: PyTree, *, times: int) -> PyTree:
    """The state, so many times one behind the other."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf] * times), state)
