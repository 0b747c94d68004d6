"""Given translations read by the model: their probabilities, and what every position attends to."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from transformer_jax import sharding
from transformer_jax.data.tokenizer import SpecialTokens, Tokenizers
from transformer_jax.inference import apply, read_target
from transformer_jax.layers import DecoderAttention
from transformer_jax.models import Parameters
from transformer_jax.translation.ensembles import Ensemble
from transformer_jax.translation.results import Part
from transformer_jax.translation.shapes import Shapes


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
    """Reads pairs of ids in few shapes."""

    def __init__(self, ensemble: Ensemble, mesh: Mesh, shapes: Shapes, special: SpecialTokens) -> None:
        self._ensemble, self._mesh, self._shapes, self._special = ensemble, mesh, shapes, special
        everywhere = sharding.replicated(mesh)
        self._score: Callable[..., Array] = jax.jit(self._score_batch, out_shardings=everywhere)
        self._align: Callable[..., Array] = jax.jit(
            self._align_batch, static_argnames=("layer", "head"), out_shardings=everywhere
        )
        self._attend: Callable[..., tuple[Array, DecoderAttention]] = jax.jit(
            self._attend_pair, out_shardings=everywhere
        )

    def score(self, params: Sequence[Parameters], pairs: Sequence[Part]) -> list[list[float]]:
        """The log-probability of every token of each translation."""
        rows = self._read(pairs, lambda sources, targets: self._score(params, sources, targets))
        return [row[: len(pair.target)].tolist() for row, pair in zip(rows, pairs, strict=True)]

    def align(
        self, params: Sequence[Parameters], pairs: Sequence[Part], layer: int, head: int | None
    ) -> list[Float[np.ndarray, "_ _"]]:
        """How much every token of each translation attends to every token of its source, [T, S], in the first model.

        Args:
            params: of the models.
            pairs: the pairs.
            layer: of the decoder, counted from 0, or from -1 for the last.
            head: counted from 0; None is the mean over all.
        """
        rows = self._read(pairs, lambda *sides: self._align(params, *sides, layer=layer, head=head))
        return [row[: len(pair.target), : len(pair.source)] for row, pair in zip(rows, pairs, strict=True)]

    def attend(
        self, params: Sequence[Parameters], source: Sequence[int], target: Sequence[int], tokenizers: Tokenizers
    ) -> AttendedSentence:
        """The attention weights of every layer and head of the first model, over one pair."""
        encoder, decoder = self._attend(params, np.array([source], np.int32), np.array([target], np.int32))
        assert decoder.cross_attention is not None  # there is an encoder
        return AttendedSentence(
            source=tokenizers.source.pieces(source),
            target=tokenizers.target.pieces(target),
            translation=tokenizers.target.decode([target])[0],
            encoder=jax.device_get(encoder[:, 0]),
            decoder=jax.device_get(decoder.self_attention[:, 0]),
            cross=jax.device_get(decoder.cross_attention[:, 0]),
        )

    def _read(self, pairs: Sequence[Part], program: Callable[..., Array]) -> list[np.ndarray]:
        """The row of the program's result for each pair, whose shape depends on that pair alone."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, pair in enumerate(pairs):
            shape = (self._shapes.padded(len(pair.source)), self._shapes.padded(len(pair.target)))
            by_shape.setdefault(shape, []).append(index)
        rows: list[np.ndarray] = [np.empty(0)] * len(pairs)
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
        caches: PyTree = self._ensemble.cache(params, sources, rows=targets.shape[0], capacity=targets.shape[1])
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
