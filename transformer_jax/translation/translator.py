"""Translator: strings in, strings out."""

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from transformer_jax import sharding
from transformer_jax.adapters import merged
from transformer_jax.config import DecodingConfig, ModelConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.decoding import Mean
from transformer_jax.errors import InputError
from transformer_jax.inference import decoding_parameters
from transformer_jax.models import Parameters
from transformer_jax.pretrained import decoding_of, load_pretrained
from transformer_jax.translation.engine import WINDOW, Engine, Output
from transformer_jax.translation.ensembles import Ensemble, networks_of, paired
from transformer_jax.translation.forcing import AttendedSentence, Forcing, PairScore
from transformer_jax.translation.joining import Joiner
from transformer_jax.translation.loading import load_member, load_members
from transformer_jax.translation.requests import Requests
from transformer_jax.translation.results import Hypothesis, Line, Translation
from transformer_jax.translation.shapes import Request, Shapes
from transformer_jax.translation.spelling import allowed_tokens
from transformer_jax.translation.splitting import SourcePart

_log = logging.getLogger(__name__)


class Translator:
    """Translates lines with one model, or with several as one; what becomes of a line depends on that line alone."""

    def __init__(
        self,
        model: ModelConfig | Sequence[ModelConfig],
        params: Parameters | Sequence[Parameters],
        tokenizers: Tokenizers,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        *,
        weights: Sequence[float] | None = None,
        mean: Mean = "probabilities",
        draft: tuple[ModelConfig, Parameters] | None = None,
        vocabulary: Iterable[str] | None = None,
        longest: int | None = None,
    ) -> None:
        """A translator of these parameters, as training has them (layers stacked).

        Args:
            model: the model, or the members of an ensemble.
            params: of the model, or of each member.
            tokenizers: of both sides.
            decoding: how to translate.
            mesh: the devices; None is the first one.
            weights: of the members; None is equal ones.
            mean: what of the members is averaged.
            draft: a smaller model of the same vocabulary, which says ahead what a beam of one may come to: the
                translations stay as they are, in fewer steps.
            vocabulary: words whose pieces alone translations are made of; None is all.
            longest: source tokens translated at once, where `decoding.longest` is None; None is the positions' limit.

        Raises:
            InputError: when there are no models, or not as many parameters; when one has no encoder or no decoder;
                when the tokenizers are not of their vocabulary sizes; when a draft model is given for anything but a
                beam of one, or knows fewer positions; when the vocabulary has no word, or one that cannot be written.
        """
        self.decoding, self.tokenizers = decoding or DecodingConfig(), tokenizers
        members, drafts = paired(model, params), [draft] if draft else []
        _check(self.decoding, tokenizers.target.vocab_size, has_draft=draft is not None)
        networks = networks_of([config for config, _ in [*members, *drafts]], tokenizers)
        mesh, special = mesh or sharding.data_mesh(), tokenizers.target.special
        ensemble = Ensemble(networks[: len(members)], special.eos, weights, mean)
        drafted = ensemble.with_draft(networks[-1], self.decoding.guesses) if draft else ensemble
        longest = min(self.decoding.longest or longest or sys.maxsize, ensemble.positions)
        self._requests = Requests(tokenizers, ensemble.positions, longest)
        self._joiner = Joiner(tokenizers.target, longest)
        shapes = Shapes(self.decoding, ensemble.positions, sharding.batch_shards(mesh))
        allowed = None if vocabulary is None else allowed_tokens(tokenizers.target, vocabulary)
        self._engine = Engine(drafted, self.decoding, mesh, shapes, special, self._requests.spelling.starts, allowed)
        self._forcing = Forcing(ensemble, mesh, shapes, tokenizers)
        self._models, self._unstack = [config for config, _ in members], jax.jit(_unstacked, static_argnums=1)
        self._params = [self._unstack(own, config) for config, own in [*members, *drafts]]

    @classmethod
    def from_run(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        step: int | Sequence[int] | None = None,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        weights: Sequence[float] | None = None,
        mean: Mean = "probabilities",
        draft: str | Path | None = None,
        vocabulary: Iterable[str] | None = None,
    ) -> "Translator":
        """The translator of a run folder, or of several as an ensemble.

        Args:
            path: the run folder, or those of an ensemble.
            step: which checkpoint, or which ones of every run as an ensemble; None is the best by the experiment's
                metric, or the newest where none was measured.
            decoding: how to translate; None is as the (first) experiment says.
            mesh: the devices; None is the first one.
            weights: of the members, those of a run side by side; None is equal ones.
            mean: what of the members is averaged.
            draft: the run folder of a draft model.
            vocabulary: words whose pieces alone translations are made of; None is all.

        Raises:
            InputError: when a folder is no run, has no intact checkpoint or no tokenizer, or not that of the first.
        """
        mesh = mesh or sharding.data_mesh()
        paths = [path] if isinstance(path, str | Path) else list(path)
        tokenizers, members = load_members(paths, mesh, step if isinstance(step, Sequence) else [step])
        experiments = [experiment for experiment, _ in members]
        drafted = None
        if draft is not None:
            experiment, params = load_member(draft, tokenizers, mesh)
            drafted = (experiment.model, params)
        return cls(
            [experiment.model for experiment in experiments],
            [params for _, params in members],
            tokenizers,
            decoding or experiments[0].decoding,
            mesh,
            weights=weights,
            mean=mean,
            draft=drafted,
            vocabulary=vocabulary,
            longest=min(experiment.batch.source_length for experiment in experiments),
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> "Translator":
        """The translator of a public checkpoint.

        Args:
            folder: of the checkpoint, or its name on the Hugging Face Hub.
            source_language: of a model of many languages, as it writes them.
            target_language: likewise.
            decoding: how to translate; None is as the checkpoint says.
            mesh: the devices; None is the first one.
            dtype: of parameters and activations.

        Raises:
            InputError: as `load_pretrained`.
        """
        mesh = mesh or sharding.data_mesh()
        languages = {"source_language": source_language, "target_language": target_language}
        model, params, tokenizers = load_pretrained(folder, mesh=mesh, dtype=dtype, **languages)
        decoding = decoding or decoding_of(tokenizers)
        longest = model.config.max_positions
        return cls(model.config, params, tokenizers, decoding, mesh, longest=longest)

    def with_parameters(self, params: Parameters) -> "Translator":
        """A translator of other parameters of the same model; shares what has been compiled.

        Raises:
            InputError: of an ensemble.
        """
        if len(self._models) > 1:
            raise InputError("an ensemble has the parameters of several models")
        other = object.__new__(Translator)
        changed = [self._unstack(params, self._models[0]), *self._params[1:]]
        other.__dict__.update(self.__dict__, _params=changed)
        return other

    def translate(self, sentences: Sequence[str], *, warn: bool = True) -> list[str]:
        """The translation of each sentence; a blank one stays blank. What went wrong is logged, with `warn`."""
        texts = []
        for number, translation in enumerate(self.stream(map(Line, sentences)), start=1):
            for warning in translation.best_warnings if warn else ():
                _log.warning("line %d: %s", number, warning)
            texts.append(translation.text)
        return texts

    def stream(self, lines: Iterable[Line], *, first: int = 0) -> Iterator[Translation]:
        """The translation of each line, in order, as they come; no more than a window of them is held.

        Args:
            lines: what to translate.
            first: the number of the first line, counted from 0: draws of sampling depend on it.

        Raises:
            InputError: when what a translation must contain cannot be written with the vocabulary, or does not fit.
        """
        lines, size = iter(lines), WINDOW * self.decoding.batch_size
        while window := list(itertools.islice(lines, size)):
            made, mistake = self._requests.of(window, first)
            yield from self._translate(window, made)  # the lines before a mistake come first
            if mistake is not None:
                raise mistake
            first += len(window)

    def warm_up(self, forbidden: Sequence[str] = ()) -> None:
        """Compiles what lines of any length need that have no constraints of their own.

        Args:
            forbidden: words and phrases that stand in no translation.
        """
        self._engine.warm_up(self._params, self._requests.longest, self._requests.forbidden(tuple(forbidden)))

    def score(self, pairs: Sequence[tuple[str, str]], *, first: int = 0) -> list[PairScore]:
        """The log-probability of each given translation, as a whole and token by token.

        Args:
            pairs: sentences and their translations.
            first: the number of the first pair, counted from 0, for messages.

        Raises:
            InputError: when a sentence is no text, or does not fit a table of learned positions.
        """
        return self._forcing.score(self._params, pairs, first)

    def score_hypotheses(self, hypotheses: Sequence[Hypothesis]) -> list[list[PairScore]]:
        """The log-probability of every token of each part of translations of this translator, as they were decoded."""
        return self._forcing.score_hypotheses(self._params, hypotheses)

    def align(
        self, hypotheses: Sequence[Hypothesis], layer: int | None = None, head: int | None = None
    ) -> list[list[tuple[int, int]]]:
        """The source word that every word of each translation attends to most, as pairs (source, translation).

        Words are what white space separates, counted from 0.

        Args:
            hypotheses: translations of this translator.
            layer: of the decoder, counted from 0, or from -1 for the last; None is the last but one, which aligns
                best (Garg et al., 2019), or the only one.
            head: counted from 0; None is the mean over all.
        """
        return self._forcing.align(self._params, hypotheses, layer, head)

    def soft_align(
        self, hypotheses: Sequence[Hypothesis], layer: int | None = None, head: int | None = None
    ) -> list[list[Float[np.ndarray, "_ _"]]]:
        """How much every token of each part of the translations attends to every token of its source, [T, S] each.

        Args:
            hypotheses: translations of this translator.
            layer: as `align` has it.
            head: as `align` has it.

        Raises:
            InputError: when there is no such layer or head.
        """
        return self._forcing.soft_align(self._params, hypotheses, layer, head)

    def attend(self, sentence: str) -> AttendedSentence:
        """The sentence's translation, with the attention weights of every layer and head.

        Raises:
            InputError: when the sentence is blank, or longer than a table of learned positions.
        """
        (source,) = self.tokenizers.source.encode([sentence])
        if not source:
            raise InputError("the sentence is blank: there is nothing to attend to")
        source, special = self.tokenizers.source.framed(source), self.tokenizers.target.special
        if len(source) > self._requests.positions:
            raise InputError(
                f"the sentence has {len(source)} tokens, but the model has max_positions={self._requests.positions}"
            )
        ((_, outputs),) = self._engine.decode(self._params, [Request(source, prefix=special.before)])
        target = [token for token in outputs[0].tokens if token != special.eos] if outputs else []
        target = [*target, special.eos][: self._requests.positions]
        return self._forcing.attend(self._params, source, target)

    def _translate(
        self, lines: Sequence[Line], made: Sequence[Sequence[tuple[SourcePart, Request]]]
    ) -> list[Translation]:
        """One window, as far as there are requests."""
        owners = [(number, place) for number, own in enumerate(made) for place in range(len(own))]
        outputs: list[list[list[Output]]] = [[[] for _ in own] for own in made]
        for index, decoded in self._engine.decode(self._params, [request for own in made for _, request in own]):
            number, place = owners[index]
            outputs[number][place] = decoded
        parts = [[part for part, _ in own] for own in made]
        return [self._joiner.join(*one) for one in zip(lines, parts, outputs, strict=False)]


def _check(decoding: DecodingConfig, vocab_size: int, *, has_draft: bool) -> None:
    """What a config asks for is there."""
    if has_draft and (decoding.sampling or decoding.beam > 1):
        raise InputError("a draft model helps a beam of one alone: beam=1, without sampling")
    beyond = [token for token in decoding.suppressed if token >= vocab_size]
    if beyond:
        raise InputError(f"suppressed={beyond[0]}: the vocabulary ends with {vocab_size - 1}")


def _unstacked(params: Parameters, config: ModelConfig) -> Parameters:
    """The parameters of a model as decoding wants them, adapters merged."""
    config, params = merged(config, params)
    return decoding_parameters(params, config.dtype)
