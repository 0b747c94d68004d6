"""Given translations read by the model: their probabilities, and what every position attends to."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from transformer_jax import sharding
from transformer_jax.data.tokenizer import Tokenizers, is_text
from transformer_jax.errors import InputError
from transformer_jax.inference import apply, read_target
from transformer_jax.layers import DecoderAttention
from transformer_jax.models import Parameters
from transformer_jax.translation.alignment import aligned_parts, words_of
from transformer_jax.translation.ensembles import Ensemble
from transformer_jax.translation.results import Hypothesis, Part
from transformer_jax.translation.shapes import Shapes

_Read = TypeVar("_Read")


@dataclasses.dataclass(frozen=True)
class PairScore:
    """The log-probability of a given translation."""

    pieces: list[str]  # of the translation, the end token last
    log_probs: list[float]  # of each

    @property
    def log_prob(self) -> float:
        """Of the whole."""
        return sum(self.log_probs, 0.0)


@dataclasses.dataclass(frozen=True)
class AttendedSentence:
    """A sentence, its translation, and the attention weights of every layer and head."""

    source: list[str]  # S pieces, the end token last
    target: list[str]  # T pieces of the translation, the end token last, as far as there are positions for it
    translation: str
    encoder: Float[np.ndarray, "L H S S"]
    decoder: Float[np.ndarray, "L2 H T T"]
    cross: Float[np.ndarray, "L2 H T S"]


class Forcing:
    """Reads given translations in few shapes; whose arguments `Translator` explains."""

    def __init__(self, ensemble: Ensemble, mesh: Mesh, shapes: Shapes, tokenizers: Tokenizers) -> None:
        self._ensemble, self._mesh, self._shapes, self._tokenizers = ensemble, mesh, shapes, tokenizers
        self._special = tokenizers.target.special
        everywhere = sharding.replicated(mesh)
        self._score: Callable[..., Array] = jax.jit(self._score_batch, out_shardings=everywhere)
        self._align: Callable[..., Array] = jax.jit(
            self._align_batch, static_argnames=("layer", "head"), out_shardings=everywhere
        )
        self._attend: Callable[..., tuple[Array, DecoderAttention]] = jax.jit(
            self._attend_pair, out_shardings=everywhere
        )

    def score(self, params: Sequence[Parameters], pairs: Sequence[tuple[str, str]], first: int) -> list[PairScore]:
        """The log-probability of each translation."""
        for number, pair in enumerate(pairs, start=first + 1):
            if not all(map(is_text, pair)):
                raise InputError(f"pair {number}: no text, but half of a surrogate pair")
        sides = zip(*pairs, strict=True) if pairs else ((), ())
        both = (self._tokenizers.source, self._tokenizers.target)
        parts = list(map(Part, *(map(own.framed, own.encode(side)) for own, side in zip(both, sides, strict=True))))
        for number, part in enumerate(parts, start=first + 1):
            if max(len(part.source), len(part.target)) > self._shapes.positions:
                raise InputError(
                    f"pair {number} has {len(part.source)} and {len(part.target)} tokens, "
                    f"but the model has max_positions={self._shapes.positions}"
                )
        return self._scores(params, parts)

    def score_hypotheses(self, params: Sequence[Parameters], hypotheses: Sequence[Hypothesis]) -> list[list[PairScore]]:
        """The log-probability of every token of each part."""
        return _by_part(hypotheses, lambda parts: self._scores(params, parts))

    def _scores(self, params: Sequence[Parameters], parts: Sequence[Part]) -> list[PairScore]:
        rows = self._read(parts, lambda *sides: self._score(params, *sides))
        return [
            PairScore(self._tokenizers.target.pieces(part.target), row[: len(part.target)].tolist())
            for part, row in zip(parts, rows, strict=True)
        ]

    def align(
        self, params: Sequence[Parameters], hypotheses: Sequence[Hypothesis], layer: int | None, head: int | None
    ) -> list[list[tuple[int, int]]]:
        """The source word that every word of each translation attends to most, as pairs."""
        source, target = self._tokenizers.source, self._tokenizers.target
        pairs = []
        for hypothesis, weights in zip(hypotheses, self.soft_align(params, hypotheses, layer, head), strict=True):
            words = [
                (words_of(source.surfaces(part.source, written=False)), words_of(target.surfaces(part.target)))
                for part in hypothesis.parts
            ]
            pairs.append(aligned_parts(weights, words, [part.gap for part in hypothesis.parts]))
        return pairs

    def soft_align(
        self, params: Sequence[Parameters], hypotheses: Sequence[Hypothesis], layer: int | None, head: int | None
    ) -> list[list[Float[np.ndarray, "_ _"]]]:
        """How much every token of each part attends to every token of its source, [T, S], in the first model."""
        model = self._ensemble.members[0].config
        if layer is not None and not -model.decoder_layers <= layer < model.decoder_layers:
            raise InputError(f"layer={layer}: the decoder has {model.decoder_layers}")
        if head is not None and not 0 <= head < model.num_heads:
            raise InputError(f"head={head}: a layer has {model.num_heads}")
        layer = max(model.decoder_layers - 2, 0) if layer is None else layer

        def weights(parts: Sequence[Part]) -> list[Float[np.ndarray, "_ _"]]:
            rows = self._read(parts, lambda *sides: self._align(params, *sides, layer=layer, head=head))
            return [row[: len(part.target), : len(part.source)] for part, row in zip(parts, rows, strict=True)]

        return _by_part(hypotheses, weights)

    def attend(self, params: Sequence[Parameters], source: Sequence[int], target: Sequence[int]) -> AttendedSentence:
        """The attention weights of every layer and head of the first model, over one pair of ids."""
        encoder, decoder = self._attend(params, np.array([source], np.int32), np.array([target], np.int32))
        assert decoder.cross_attention is not None  # there is an encoder
        return AttendedSentence(
            source=self._tokenizers.source.pieces(source),
            target=self._tokenizers.target.pieces(target),
            translation=self._tokenizers.target.decode([target])[0],
            encoder=jax.device_get(encoder[:, 0]),
            decoder=jax.device_get(decoder.self_attention[:, 0]),
            cross=jax.device_get(decoder.cross_attention[:, 0]),
        )

    def _read(self, pairs: Sequence[Part], program: Callable[..., Array]) -> list[np.ndarray]:
        """The row of the program's result for each pair, whose shape depends on that pair alone; none of no target."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, pair in enumerate(pairs):
            if pair.target:
                shape = (self._shapes.padded(len(pair.source)), self._shapes.padded(len(pair.target)))
                by_shape.setdefault(shape, []).append(index)
        rows = [np.empty((0, len(pair.source))) for pair in pairs]
        for shape, indices in by_shape.items():
            size = self._shapes.part_size(max(shape))
            for start in range(0, len(indices), size):
                chosen = indices[start : start + size]
                sources = self._padded([pairs[index].source for index in chosen], size, shape[0])
                targets = self._padded([pairs[index].target for index in chosen], size, shape[1])
                found = jax.device_get(program(*sharding.placed(self._mesh, (sources, targets))))
                for index, row in zip(chosen, found[: len(chosen)], strict=True):
                    rows[index] = row
        return rows

    def _score_batch(
        self, params: Sequence[Parameters], sources: Int[Array, "B S"], targets: Int[Array, "B T"]
    ) -> Float[Array, "B T"]:
        model = self._ensemble.model(params)
        caches: PyTree = self._ensemble.cache(
            params, sources, rows=targets.shape[0], beams=1, capacity=targets.shape[1]
        )
        logits, _ = model.step(self._shifted(targets), caches)
        log_probs = model.log_probs(logits)
        return jnp.take_along_axis(log_probs, targets[..., None], axis=2)[..., 0]

    def _align_batch(
        self,
        params: Sequence[Parameters],
        sources: Int[Array, "B S"],
        targets: Int[Array, "B T"],
        *,
        layer: int,
        head: int | None,
    ) -> Float[Array, "B T S"]:
        weights = read_target(self._ensemble.members[0], params[0], sources, self._shifted(targets)).cross_attention
        assert weights is not None  # there is an encoder
        return weights[layer].mean(axis=1) if head is None else weights[layer][:, head]

    def _attend_pair(
        self, params: Sequence[Parameters], source: Int[Array, "1 S"], target: Int[Array, "1 T"]
    ) -> tuple[Float[Array, "L 1 H S S"], DecoderAttention]:
        model, segments = self._ensemble.members[0], jnp.ones_like(source)
        _, encoder = apply(model, params[0], source, segments, return_attention=True, method="encode")
        return encoder, read_target(model, params[0], source, self._shifted(target))

    def _shifted(self, targets: Int[Array, "B T"]) -> Int[Array, "B T"]:
        """What the decoder reads to give these targets."""
        return jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=self._special.start)

    def _padded(self, side: Sequence[Sequence[int]], size: int, length: int) -> Int[np.ndarray, "B T"]:
        """Rows of ids, the last ones empty; of an empty row the end token alone, so that nothing is undefined."""
        array = np.full((size, length), self._special.pad, np.int32)
        array[:, 0] = self._special.eos
        for row, ids in enumerate(side):
            array[row, : len(ids)] = ids
        return array


def _by_part(hypotheses: Sequence[Hypothesis], read: Callable[[Sequence[Part]], Sequence[_Read]]) -> list[list[_Read]]:
    """What is read of each part of each hypothesis, all of them at once."""
    found = iter(read([part for hypothesis in hypotheses for part in hypothesis.parts]))
    return [list(itertools.islice(found, len(hypothesis.parts))) for hypothesis in hypotheses]
