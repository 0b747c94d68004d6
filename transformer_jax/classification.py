"""Classifier: texts in, labels out."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from transformer_jax import sharding
from transformer_jax.adapters import merged
from transformer_jax.config import Classification, ModelConfig
from transformer_jax.data.tokenizer import Tokenizers, is_text
from transformer_jax.errors import InputError
from transformer_jax.models import Parameters, Transformer
from transformer_jax.runs import open_run
from transformer_jax.translation.ensembles import check_vocabulary, positions_of
from transformer_jax.translation.loading import load_members
from transformer_jax.translation.shapes import padded

ROWS = 64  # texts classified at once


@dataclasses.dataclass(frozen=True)
class Classified:
    """What a text was taken for."""

    label: str
    probabilities: tuple[float, ...]  # of every label, in their order
    cut: bool = False  # whether only the beginning of it was read


class Classifier:
    """Classifies texts; what becomes of one depends on that one alone."""

    def __init__(
        self,
        model: ModelConfig,
        params: Parameters,
        tokenizers: Tokenizers,
        labels: Sequence[str],
        mesh: Mesh | None = None,
        *,
        longest: int = 512,
    ) -> None:
        """A classifier of these parameters, as training has them (layers stacked).

        Args:
            model: the model.
            params: of the model.
            tokenizers: whose source side reads.
            labels: of its classes, in order.
            mesh: the devices that share texts; None is the first one.
            longest: tokens that are read of a text; those behind are left out.

        Raises:
            InputError: on a model without classes, labels that are not one for each, and another vocabulary.
        """
        if model.classes != len(labels) or not labels:
            raise InputError(
                f"model.classes={model.classes} and {len(labels)} labels: a classifier has as many, and some"
            )
        check_vocabulary(tokenizers, model)
        self.labels, self._tokenizer, self._longest = tuple(labels), tokenizers.source, longest
        self._positions, self._mesh = positions_of([model]), mesh or sharding.data_mesh()
        self._rows = sharding.shared_rows(self._mesh, ROWS)
        config, self._params = merged(model, params)
        network, place = Transformer(config), sharding.replicated(self._mesh)

        def probabilities(params: Parameters, tokens: Int[Array, "B S"]) -> Float[Array, "B C"]:
            logits: Any = network.apply({"params": params}, tokens, method="encode_classes")
            return jax.nn.softmax(logits[:, 0])

        self._probabilities = jax.jit(probabilities, out_shardings=place)

    @classmethod
    def from_run(cls, path: str | Path, *, step: int | None = None, mesh: Mesh | None = None) -> "Classifier":
        """The classifier of a run folder.

        Args:
            path: the run folder.
            step: which checkpoint; None is the best by the experiment's metric, or the newest where none was measured.
            mesh: the devices; None is the first one.

        Raises:
            InputError: when the folder is no run of a classifier, has no intact checkpoint or no tokenizer.
        """
        mesh, objective = mesh or sharding.data_mesh(), open_run(path).objective
        if not isinstance(objective, Classification):
            raise InputError(f"{path}: a run of objective.kind={objective.kind!r}, not of a classifier")
        tokenizers, ((experiment, params),) = load_members([path], mesh, [step])
        longest = experiment.batch.source_length
        return cls(experiment.model, params, tokenizers, objective.labels, mesh, longest=longest)

    def classify(self, texts: Iterable[str]) -> Iterator[Classified]:
        """What each text is taken for, in order, as they come.

        Raises:
            InputError: on what is no text, or does not fit a table of learned positions, by its number.
        """
        texts, done = iter(texts), 0
        while chunk := list(itertools.islice(texts, self._rows)):
            for number, text in enumerate(chunk, start=done + 1):
                if not is_text(text):
                    raise InputError(f"text {number}: no text, but half of a surrogate pair")
            yield from self._classify(chunk, done)
            done += len(chunk)

    def _classify(self, texts: Sequence[str], done: int) -> Iterator[Classified]:
        """Those of one batch, each length by itself, so that no text depends on those beside it."""
        room = self._longest - len(self._tokenizer.framed([]))
        encoded = self._tokenizer.encode(texts)
        framed = [self._tokenizer.framed(ids[:room]) for ids in encoded]
        for number, ids in enumerate(framed, start=done + 1):
            if len(ids) > self._positions:
                raise InputError(
                    f"text {number} has {len(ids)} tokens, but the model has max_positions={self._positions}"
                )
        lengths = [padded(len(ids), self._positions) for ids in framed]
        found: dict[int, np.ndarray] = {}
        for length in sorted(set(lengths)):
            chosen = [index for index, own in enumerate(lengths) if own == length]
            tokens = np.full((self._rows, length), self._tokenizer.special.pad, np.int32)
            for row, index in enumerate(chosen):
                tokens[row, : len(framed[index])] = framed[index]
            rows = jax.device_get(self._probabilities(self._params, sharding.placed(self._mesh, tokens)))
            found |= {index: rows[row] for row, index in enumerate(chosen)}
        for index, ids in enumerate(encoded):
            own = found[index]
            yield Classified(self.labels[int(own.argmax())], tuple(map(float, own)), cut=len(ids) > room)
