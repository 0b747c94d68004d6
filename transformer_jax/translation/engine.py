"""Sentences as ids through a model: full batches of few shapes, and every result its own sentence's alone.

A batch has fixed slots; as sentences end, others of the same shape take their places, so that a long one does not hold
the rest.
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
from jaxtyping import Array, Bool, Int, PyTree, UInt32

from transformer_jax import sharding
from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import SpecialTokens
from transformer_jax.decoding import (
    Constraint,
    Edge,
    Forbidden,
    Hypotheses,
    Prefix,
    Required,
    Sentences,
    Strategy,
    Vocabulary,
    keys_of_lines,
    phrase_array,
)
from transformer_jax.errors import InputError
from transformer_jax.models import Parameters
from transformer_jax.translation.ensembles import Ensemble
from transformer_jax.translation.settings import settings_of, strategy_of
from transformer_jax.translation.shapes import Request, Shape, Shapes

WINDOW = 16  # batches of lines that are looked at together, so that like lengths meet


@dataclasses.dataclass(frozen=True)
class Output:
    """One decoded output of a sentence."""

    tokens: list[int]  # the end token last, unless the limit came first
    score: float  # what it is ranked by
    log_prob: float  # the model's own


class Engine:
    """Decodes sentences with an ensemble."""

    def __init__(
        self,
        ensemble: Ensemble,
        config: DecodingConfig,
        mesh: Mesh,
        shapes: Shapes,
        special: SpecialTokens,
        starts: Bool[np.ndarray, " V"],
        allowed: Bool[np.ndarray, " V"] | None = None,
    ) -> None:
        """An engine.

        Args:
            ensemble: what decodes.
            config: how.
            mesh: the devices.
            shapes: of sentences and batches.
            special: the special tokens of outputs.
            starts: the tokens behind which a word may begin.
            allowed: the tokens of which outputs are made; None is all.
        """
        self._ensemble, self._config, self._mesh, self._shapes = ensemble, config, mesh, shapes
        self._special, self._starts, self._allowed = special, starts, allowed
        rows = sharding.batch_sharding(mesh)
        everywhere = sharding.replicated(mesh)  # every process reads the results
        self._start = jax.jit(self._start_batch, static_argnames="max_length", out_shardings=rows)
        self._advance = jax.jit(self._advance_batch, out_shardings=rows, donate_argnums=1)
        self._put = jax.jit(_put, out_shardings=rows, donate_argnums=0)
        self._tile = jax.jit(_tile, static_argnames="times", out_shardings=rows)
        self._read: Callable[..., tuple[Bool[Array, " B"], Hypotheses]] = jax.jit(
            self._read_batch, out_shardings=everywhere
        )

    def decode(self, params: Sequence[Parameters], requests: Sequence[Request]) -> Iterator[tuple[int, list[Output]]]:
        """The index of each request with its outputs, best first, as they come.

        There are none where nothing satisfies the constraints, or the model's numbers are not finite.
        """
        by_shape: dict[Shape, list[int]] = {}
        for index, request in enumerate(requests):
            by_shape.setdefault(self._shapes.of(request), []).append(index)
        for shape in sorted(by_shape, key=dataclasses.astuple, reverse=True):
            longest_first = sorted(by_shape[shape], key=lambda index: -len(requests[index].source))
            yield from self._decode_shape(params, shape, [(index, requests[index]) for index in longest_first])

    def warm_up(self, params: Sequence[Parameters], longest: int, forbidden: Sequence[Sequence[Edge]] = ()) -> None:
        """Runs every program of sentences of up to so many tokens on nothing.

        Args:
            params: of the ensemble.
            longest: source tokens.
            forbidden: texts that stand in none of the outputs; sentences have no other constraints.

        Raises:
            InputError: where there is no longest sentence.
        """
        if longest == sys.maxsize:
            raise InputError("to compile ahead, the longest sentence must be known: decoding.longest says it")
        length = 1
        while True:
            shape = self._shapes.of(
                Request([self._special.eos] * length, prefix=self._special.before, forbidden=forbidden)
            )
            part = self._shapes.part_size(shape.source)
            begun, slots = self._begin(params, shape, part, []), self._shapes.slots(shape.source)
            whole = self._empty(params, shape, slots) if slots > part else self._begin(params, shape, part, [])
            states = [self._put(whole, begun, np.arange(part, dtype=np.int32)), begun]
            for state in states:
                jax.block_until_ready(self._read(params, self._advance(params, state, np.int32(0))))
            if shape.source >= longest:
                return
            length = shape.source + 1

    def _decode_shape(
        self, params: Sequence[Parameters], shape: Shape, requests: Sequence[tuple[int, Request]]
    ) -> Iterator[tuple[int, list[Output]]]:
        """All requests of one shape, each in a slot until it is done."""
        part = self._shapes.part_size(shape.source)
        size = part if len(requests) <= part else self._shapes.slots(shape.source)
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
            is_open, hypotheses = jax.device_get(self._read(params, state))
            done = [slot for slot in placed if not is_open[slot]]
            free += done
            for slot in done:
                yield placed.pop(slot), _outputs(hypotheses, slot)

    def _empty(self, params: Sequence[Parameters], shape: Shape, size: int) -> PyTree:
        """A state of so many slots with nothing in them."""
        part = self._shapes.part_size(shape.source)
        return jax.block_until_ready(self._tile(self._begin(params, shape, part, []), times=size // part))

    def _begin(self, params: Sequence[Parameters], shape: Shape, size: int, requests: Sequence[Request]) -> PyTree:
        """The state of so many sentences before their first token, the last ones of it empty."""
        tokens, limits = np.full((size, shape.source), self._special.pad, np.int32), np.zeros(size, np.int32)
        places = np.zeros((2, size), np.int32)  # line and part
        for row, request in enumerate(requests):
            tokens[row, : len(request.source)] = request.source
            limits[row], places[:, row] = self._shapes.limit(request), (request.line, request.part)
        constraints = self._constraints(shape, [*requests, *[_NOTHING] * (size - len(requests))])
        keys = np.asarray(keys_of_lines(self._config.seed, *places)) if self._config.sampling else None
        arrays = sharding.placed(self._mesh, (tokens, limits, constraints, keys))
        return self._start(params, *arrays, max_length=shape.target)

    def _constraints(self, shape: Shape, requests: Sequence[Request]) -> tuple[Constraint, ...]:
        """Those of the config, and those of the shape."""
        constraints, pad_id = settings_of(self._config, len(requests)), self._special.pad
        if self._allowed is not None:
            constraints.append(Vocabulary(np.broadcast_to(self._allowed, (len(requests), len(self._allowed)))))
        if shape.forbidden != (0, 0, 0):
            constraints.append(Forbidden.of([r.forbidden for r in requests], self._starts, shape.forbidden))
        if shape.required != (0, 0):
            constraints.append(Required(phrase_array([r.required for r in requests], pad_id, shape.required), pad_id))
        if shape.prefix:
            prefixes = phrase_array([[r.prefix] for r in requests], pad_id, (1, shape.prefix))[:, 0]
            constraints.append(Prefix(prefixes, np.array([len(r.prefix) for r in requests], np.int32)))
        return tuple(constraints)

    def _strategy(self, params: Sequence[Parameters]) -> Strategy[Any]:
        return strategy_of(self._config, self._ensemble.draft(params))

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
        strategy = self._strategy(params)
        room = {"rows": tokens.shape[0] * strategy.rows, "beams": strategy.beams, "capacity": max_length}
        cache = self._ensemble.cache(params, tokens, **room)
        sentences = Sentences(cache, limits, constraints, keys, max_length)
        return strategy.start(self._ensemble.model(params), sentences)

    def _advance_batch(self, params: Sequence[Parameters], state: PyTree, still_open: Int[Array, ""]) -> PyTree:
        return self._strategy(params).advance_until(self._ensemble.model(params), state, still_open)

    def _read_batch(self, params: Sequence[Parameters], state: PyTree) -> tuple[Bool[Array, " B"], Hypotheses]:
        strategy = self._strategy(params)
        return strategy.is_open(state), strategy.results(state)


_NOTHING = Request(source=())


def _outputs(hypotheses: Hypotheses, slot: int) -> list[Output]:
    rows = zip(
        hypotheses.tokens[slot].tolist(),
        hypotheses.lengths[slot].tolist(),
        hypotheses.scores[slot].tolist(),
        hypotheses.log_probs[slot].tolist(),
        strict=True,
    )
    return [Output(tokens[:length], score, log_prob) for tokens, length, score, log_prob in rows if length]


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
