"""Translator: a list of strings in, a list of strings out."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from transformer_jax import sharding
from transformer_jax.attention import Cache
from transformer_jax.config import DecodingConfig, Experiment, ModelConfig
from transformer_jax.data.tokenizer import EOS_ID, Tokenizers
from transformer_jax.decoding import BeamSearch, Hypotheses, StepModel
from transformer_jax.errors import InputError
from transformer_jax.layers import DecoderAttention
from transformer_jax.models import Parameters, Transformer, abstract_parameters, decoding_parameters
from transformer_jax.runs import RunFolder, check_digests, open_run
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import score_of

SHORTEST = 16  # source lengths are padded to this times a power of two, so that few shapes are compiled
FULL_BATCH = 128  # up to this padded length a batch is full; longer ones hold fewer sentences, for the same memory


@dataclasses.dataclass(frozen=True)
class AttendedSentence:
    """A sentence, its translation, and the attention weights of every layer and head."""

    source: list[str]  # S pieces, the end token last
    target: list[str]  # T pieces that the decoder produced, the end token last
    translation: str
    encoder: Float[np.ndarray, "L H S S"]
    decoder: Float[np.ndarray, "L2 H T T"]
    cross: Float[np.ndarray, "L2 H T S"]


class Translator:
    """Translates sentences with one model; sorts them into few fixed shapes, and gives them back in order."""

    def __init__(
        self,
        model: ModelConfig,
        params: Parameters,
        tokenizers: Tokenizers,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """A translator of these parameters, as training has them (layers stacked).

        Raises:
            InputError: when the tokenizers are not of the model's vocabulary sizes.
        """
        sizes = (tokenizers.source.vocab_size, tokenizers.target.vocab_size)
        expected = (model.source_vocab_size or model.vocab_size, model.vocab_size)
        if sizes != expected:
            raise InputError(f"tokenizers of {sizes} pieces (source, target), but the model has {expected}")
        self.tokenizers = tokenizers
        self.decoding = decoding or DecodingConfig()
        self._model = Transformer(model)
        self._mesh = mesh or sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
        self._longest = model.max_positions if model.positions == "learned" else sys.maxsize
        self._search = BeamSearch(self.decoding.beam, self.decoding.length_penalty)
        self._unstack = jax.jit(decoding_parameters)
        self._params = self._unstack(params)
        everywhere = sharding.replicated(self._mesh)  # every process reads the results
        self._decode: Callable[..., Hypotheses] = jax.jit(
            self._decode_batch, static_argnames="max_length", out_shardings=everywhere
        )
        self._attend: Callable[..., tuple[Array, DecoderAttention]] = jax.jit(
            self._attend_pair, out_shardings=everywhere
        )

    @classmethod
    def from_run(
        cls, path: str | Path, *, step: int | None = None, decoding: DecodingConfig | None = None
    ) -> "Translator":
        """The translator of a run folder.

        Args:
            path: the run folder.
            step: which checkpoint; None is the best by the experiment's metric, or the newest where none was measured.
            decoding: how to translate; None is as the experiment says.

        Raises:
            InputError: when the folder is no run, or has no intact checkpoint or no tokenizer.
        """
        folder, experiment = RunFolder(path), open_run(path)
        mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
        params, _ = read_parameters(folder, experiment, mesh, step)
        return cls(experiment.model, params, load_tokenizers(folder), decoding or experiment.decoding, mesh)

    def with_parameters(self, params: Parameters) -> "Translator":
        """A translator of other parameters of the same model; shares what has been compiled."""
        other = object.__new__(Translator)
        other.__dict__.update(self.__dict__, _params=self._unstack(params))
        return other

    def translate(self, sentences: Sequence[str]) -> list[str]:
        """The translation of each sentence; a blank one stays blank.

        Raises:
            InputError: when a sentence does not fit a table of learned positions.
        """
        translations = [""] * len(sentences)
        for indices, outputs in self._batches(sentences):
            for index, text in zip(indices, self.tokenizers.target.decode(outputs), strict=True):
                translations[index] = text
        return translations

    def attend(self, sentence: str) -> AttendedSentence:
        """The sentence's translation, with the attention weights of every layer and head.

        Raises:
            InputError: when the sentence is blank.
        """
        batches = list(self._batches([sentence]))
        if not batches:
            raise InputError("the sentence is blank: there is nothing to attend to")
        target = [*batches[0][1][0], EOS_ID]
        source = [*self.tokenizers.source.encode([sentence])[0], EOS_ID]
        inputs = [self._model.config.pad_id, *target[:-1]]
        encoder, decoder = self._attend(self._params, np.array([source], np.int32), np.array([inputs], np.int32))
        assert decoder.cross_attention is not None  # there is an encoder
        return AttendedSentence(
            source=self.tokenizers.source.pieces(source),
            target=self.tokenizers.target.pieces(target),
            translation=self.tokenizers.target.decode([target])[0],
            encoder=jax.device_get(encoder[:, 0]),
            decoder=jax.device_get(decoder.self_attention[:, 0]),
            cross=jax.device_get(decoder.cross_attention[:, 0]),
        )

    def _encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Source ids with the end token.

        Raises:
            InputError: when a sentence does not fit a table of learned positions.
        """
        encoded = [[*ids, EOS_ID] for ids in self.tokenizers.source.encode(list(sentences))]
        for index, ids in enumerate(encoded):
            if len(ids) > self._longest:
                raise InputError(
                    f"sentence {index + 1} has {len(ids)} tokens, but the model has max_positions={self._longest}"
                )
        return encoded

    def _batches(self, sentences: Sequence[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Indices of sentences, and the target ids of each without the end token, a batch at a time."""
        encoded = self._encode(sentences)
        order = sorted((len(ids), index) for index, ids in enumerate(encoded) if len(ids) > 1)
        start = 0
        while start < len(order):
            size = self._batch_size(self._padded(order[start][0]))
            # The last of the batch is the longest and sets the shape; with it, the batch may have to be smaller.
            padded = self._padded(order[min(start + size, len(order)) - 1][0])
            size = self._batch_size(padded)
            indices = [index for _, index in order[start : start + size]]
            yield indices, self._run([encoded[index] for index in indices], size, padded)
            start += size

    def _padded(self, length: int) -> int:
        padded = SHORTEST
        while padded < length:
            padded *= 2
        return min(padded, self._longest)

    def _batch_size(self, padded: int) -> int:
        size = max(self.decoding.batch_size * min(FULL_BATCH, padded) // padded, 1)
        shards = self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        return -(-size // shards) * shards

    def _run(self, sources: list[list[int]], size: int, padded: int) -> list[list[int]]:
        tokens = np.full((size, padded), self._model.config.pad_id, np.int32)
        limits = np.zeros(size, np.int32)  # rows that only fill the batch stay at 0
        for row, ids in enumerate(sources):
            tokens[row, : len(ids)] = ids
            limits[row] = len(ids) + self.decoding.extra_length
        place = sharding.batch_sharding(self._mesh)
        batch = [jax.make_array_from_callback(x.shape, place, x.__getitem__) for x in (tokens, limits)]
        max_length = min(padded + self.decoding.extra_length, self._longest)
        best = jax.device_get(self._decode(self._params, *batch, max_length=max_length))
        rows = zip(best.tokens[: len(sources), 0], best.lengths[: len(sources), 0], strict=True)
        return [[int(token) for token in row[:length] if token != EOS_ID] for row, length in rows]

    def _decode_batch(
        self, params: Parameters, tokens: Int[Array, "B S"], limits: Int[Array, " B"], *, max_length: int
    ) -> Hypotheses:
        segments = (tokens != self._model.config.pad_id).astype(jnp.int32)
        memory, _ = self._apply(params, tokens, segments, method="encode")
        rows = tokens.shape[0] * self._search.rows
        cache = self._apply(params, memory, segments, rows=rows, capacity=max_length, method="start_cache")

        def step(tokens: Int[Array, "R T"], cache: Cache) -> tuple[Float[Array, "R T V"], Cache]:
            logits, cache, _ = self._apply(params, tokens, cache, method="step")
            return logits, cache

        model = StepModel(step, Cache.reorder, self._model.config.pad_id, EOS_ID)
        return self._search.search(model, cache, limits, max_length=max_length)

    def _attend_pair(
        self, params: Parameters, source: Int[Array, "1 S"], target: Int[Array, "1 T"]
    ) -> tuple[Float[Array, "L 1 H S S"], DecoderAttention]:
        segments = jnp.ones_like(source)
        memory, encoder = self._apply(params, source, segments, return_attention=True, method="encode")
        cache = self._apply(params, memory, segments, rows=1, capacity=target.shape[1], method="start_cache")
        _, _, decoder = self._apply(params, target, cache, return_attention=True, method="step")
        return encoder, decoder

    def _apply(self, params: Parameters, *args: Any, method: str, **flags: Any) -> Any:
        return self._model.apply({"params": params}, *args, **flags, method=method)


def load_tokenizers(folder: RunFolder) -> Tokenizers:
    """The tokenizers of a run.

    Raises:
        InputError: when they are missing, damaged, or not those that the run was trained with.
    """
    tokenizers = Tokenizers.load(folder.tokenizer)
    check_digests(folder, {"tokenizer": tokenizers.digest})
    return tokenizers


def read_parameters(
    folder: RunFolder, experiment: Experiment, mesh: Mesh, step: int | None = None
) -> tuple[Parameters, int]:
    """The parameters that a run is evaluated with, and their step; see `Translator.from_run` for which.

    Raises:
        InputError: when there is no such checkpoint, or no intact one.
    """
    if not folder.checkpoints.is_dir():
        raise InputError(f"{folder.checkpoints}: no checkpoints; train first")
    averaged = experiment.training.average_decay is not None and not folder.average.exists()
    item = "average" if averaged else "parameters"
    with Checkpoints(folder.checkpoints, score=score_of(experiment.evaluation.metric)) as checkpoints:
        steps = checkpoints.steps()
        if step is not None and step not in steps:
            raise InputError(f"{folder.checkpoints}: no checkpoint of step {step}; there are {steps}")
        wanted = {item: abstract_parameters(experiment.model, mesh)}
        restored = checkpoints.restore(wanted, None if step is None else [step], best_first=True)
    if restored is None:
        raise InputError(f"{folder.checkpoints}: no checkpoint yet; train first")
    return restored.items[item], restored.step
