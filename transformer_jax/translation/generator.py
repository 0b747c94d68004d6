"""Generator: beginnings of texts in, whole texts out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from transformer_jax import sharding
from transformer_jax.adapters import merged, without
from transformer_jax.config import CausalLanguageModel, DecodingConfig, ModelConfig
from transformer_jax.data.tokenizer import Tokenizers, is_text
from transformer_jax.errors import InputError
from transformer_jax.inference import decoding_parameters
from transformer_jax.models import Parameters, Transformer
from transformer_jax.translation.engine import WINDOW, Engine, Output
from transformer_jax.translation.ensembles import Ensemble, check_vocabulary
from transformer_jax.translation.loading import load_members
from transformer_jax.translation.results import Hypothesis, Line, Part, Translation
from transformer_jax.translation.shapes import Request, Shapes
from transformer_jax.translation.spelling import Spelling


class Generator:
    """Goes on with lines, with a model without an encoder; what becomes of a line depends on that line alone."""

    def __init__(
        self,
        model: ModelConfig,
        params: Parameters,
        tokenizers: Tokenizers,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        *,
        prompted: bool = False,
    ) -> None:
        """A generator of these parameters, as training has them (layers stacked).

        Args:
            model: the model.
            params: of the model.
            tokenizers: whose target side writes; the source side reads prompts.
            decoding: how to go on; a text is at most `extra_length` tokens longer than its beginning.
            mesh: the devices; None is the first one.
            prompted: lines are whole prompts, as sources are in training, and what is behind them is given alone.

        Raises:
            InputError: on a model with an encoder, and tokenizers of another vocabulary.
        """
        if model.encoder_layers:
            raise InputError(f"encoder_layers={model.encoder_layers}: what generates has no encoder")
        check_vocabulary(tokenizers, model)
        self.decoding, self._tokenizers, self._prompted = decoding or DecodingConfig(), tokenizers, prompted
        mesh, special = mesh or sharding.data_mesh(), tokenizers.target.special
        ensemble = Ensemble([Transformer(without(model))], special.eos)
        self._positions = ensemble.positions
        shapes = Shapes(self.decoding, self._positions, sharding.batch_shards(mesh))
        self._engine = Engine(ensemble, self.decoding, mesh, shapes, special, Spelling(tokenizers.target).starts)
        config, params = merged(model, params)
        self._params = [jax.jit(lambda params: decoding_parameters(params, config.dtype))(params)]

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        *,
        step: int | None = None,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
    ) -> "Generator":
        """The generator of a run folder.

        Args:
            path: the run folder.
            step: which checkpoint; None is the best by the experiment's metric, or the newest where none was measured.
            decoding: how to go on; None is as the experiment says.
            mesh: the devices; None is the first one.

        Raises:
            InputError: when the folder is no run, has no intact checkpoint or no tokenizer.
        """
        mesh = mesh or sharding.data_mesh()
        tokenizers, ((experiment, params),) = load_members([path], mesh, [step])
        objective = experiment.objective
        prompted = isinstance(objective, CausalLanguageModel) and objective.prompted
        return cls(experiment.model, params, tokenizers, decoding or experiment.decoding, mesh, prompted=prompted)

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The text of each beginning, itself included; of a prompt, what is behind it."""
        return [made.text for made in self.stream(map(Line, prompts))]

    def stream(self, lines: Iterable[Line], *, first: int = 0) -> Iterator[Translation]:
        """What becomes of each line, in order; of a blank one too, unless it is a prompt.

        Args:
            lines: the beginnings.
            first: the number of the first line, counted from 0: draws of sampling depend on it.

        Raises:
            InputError: on a line that is no text, or leaves no room behind it.
        """
        lines, size = iter(lines), WINDOW * self.decoding.batch_size
        while window := list(itertools.islice(lines, size)):
            requests = [self._request(line.text, number) for number, line in enumerate(window, start=first)]
            made: list[list[Output]] = [[] for _ in requests]
            for index, outputs in self._engine.decode(self._params, requests):
                made[index] = outputs
            yield from itertools.starmap(self._result, zip(window, requests, made, strict=True))
            first += len(window)

    def _request(self, text: str, number: int) -> Request:
        if not is_text(text):
            raise InputError(f"line {number + 1}: no text, but half of a surrogate pair")
        source, target = self._tokenizers.source, self._tokenizers.target
        if self._prompted:
            prefix = source.framed(source.encode([text])[0])
        else:
            prefix = [*target.special.before, *target.encode([text])[0]]
        if len(prefix) >= self._positions:
            raise InputError(
                f"line {number + 1}: {len(prefix)} tokens, but the model has max_positions={self._positions}"
            )
        return Request([target.special.eos], line=number, prefix=prefix)

    def _result(self, line: Line, request: Request, outputs: Sequence[Output]) -> Translation:
        start = len(request.prefix) if self._prompted else 0
        texts = self._tokenizers.target.decode(output.tokens[start:] for output in outputs)
        hypotheses = [
            Hypothesis(
                text=" ".join(text.splitlines()),  # an output is one line
                score=output.score,
                log_prob=output.log_prob,
                parts=(Part(request.source, output.tokens[len(request.prefix) :]),),
            )
            for text, output in zip(texts, outputs, strict=True)
        ]
        return Translation(line.text, tuple(hypotheses))
