"""Translator: strings in, strings out."""

import itertools
import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from transformer_jax import sharding
from transformer_jax.config import DecodingConfig, ModelConfig
from transformer_jax.data.tokenizer import EOS_ID, Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.models import Parameters, Transformer, decoding_parameters
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.translation.alignment import aligned_parts, words_of
from transformer_jax.translation.engine import Engine, Output, Request
from transformer_jax.translation.forcing import AttendedSentence, Forcing, PairScore
from transformer_jax.translation.loading import load_tokenizers, read_parameters
from transformer_jax.translation.results import Hypothesis, Line, Part, Translation
from transformer_jax.translation.splitting import split

WINDOW = 16  # batches of lines that are looked at together

_log = logging.getLogger(__name__)


class Translator:
    """Translates lines with one model, or with several as one; what becomes of a line hangs on that line alone."""

    def __init__(
        self,
        model: ModelConfig | Sequence[ModelConfig],
        params: Parameters | Sequence[Parameters],
        tokenizers: Tokenizers,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        *,
        weights: Sequence[float] | None = None,
        longest: int | None = None,
    ) -> None:
        """A translator of these parameters, as training has them (layers stacked).

        Args:
            model: the model, or the members of an ensemble.
            params: of the model, or of each member.
            tokenizers: of both sides.
            decoding: how to translate.
            mesh: the devices; None is the first one.
            weights: of the members, whose probabilities are averaged; None is equal ones.
            longest: source tokens translated at once, where `decoding.longest` is None; None is no limit but that of
                learned positions.

        Raises:
            InputError: when the tokenizers are not of the models' vocabulary sizes.
        """
        configs = [model] if isinstance(model, ModelConfig) else list(model)
        members = [params] if isinstance(params, dict) else list(params)
        sizes = (tokenizers.source.vocab_size, tokenizers.target.vocab_size)
        for config in configs:
            expected = (config.source_vocab_size or config.vocab_size, config.vocab_size)
            if sizes != expected:
                raise InputError(f"tokenizers of {sizes} pieces (source, target), but the model has {expected}")
        self.tokenizers = tokenizers
        self.decoding = decoding or DecodingConfig()
        mesh = mesh or sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
        positions = min(c.max_positions if c.positions == "learned" else sys.maxsize for c in configs)
        self._longest = min(self.decoding.longest or longest or sys.maxsize, positions)
        models = [Transformer(config) for config in configs]
        self._engine = Engine(models, self.decoding, mesh, positions, weights)
        self._forcing = Forcing(models, mesh, self._engine)
        self._unstack = jax.jit(decoding_parameters)
        self._params = [self._unstack(own) for own in members]
        self._known_spellings: dict[str, list[list[int]]] = {}

    @classmethod
    def from_run(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        step: int | None = None,
        decoding: DecodingConfig | None = None,
        mesh: Mesh | None = None,
        weights: Sequence[float] | None = None,
    ) -> "Translator":
        """The translator of a run folder, or of several as an ensemble.

        Args:
            path: the run folder, or those of an ensemble.
            step: which checkpoint; None is the best by the experiment's metric, or the newest where none was measured.
            decoding: how to translate; None is as the (first) experiment says.
            mesh: the devices; None is the first one.
            weights: of the members; None is equal ones.

        Raises:
            InputError: when a folder is no run, has no intact checkpoint or no tokenizer, or not that of the first.
        """
        paths = [path] if isinstance(path, str | Path) else list(path)
        experiments = [open_run(one) for one in paths]
        mesh = mesh or sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
        folders = [RunFolder(one) for one in paths]
        tokenizers = load_tokenizers(folders[0])
        for folder in folders[1:]:
            if load_tokenizers(folder).digest != tokenizers.digest:
                raise InputError(f"{folder.path}: another tokenizer than {folders[0].path}: an ensemble has one")
        params = [
            read_parameters(folder, experiment, mesh, step)[0]
            for folder, experiment in zip(folders, experiments, strict=True)
        ]
        return cls(
            [experiment.model for experiment in experiments],
            params,
            tokenizers,
            decoding or experiments[0].decoding,
            mesh,
            weights=weights,
            longest=min(experiment.batch.source_length for experiment in experiments),
        )

    def with_parameters(self, params: Parameters) -> "Translator":
        """A translator of other parameters of the same model; shares what has been compiled."""
        other = object.__new__(Translator)
        other.__dict__.update(self.__dict__, _params=[self._unstack(params)])
        return other

    def translate(self, sentences: Sequence[str], *, warn: bool = True) -> list[str]:
        """The translation of each sentence; a blank one stays blank. What went wrong is logged, with `warn`."""
        texts = []
        for number, translation in enumerate(self.stream(map(Line, sentences)), start=1):
            for warning in translation.warnings if warn else ():
                _log.warning("line %d: %s", number, warning)
            texts.append(translation.text)
        return texts

    def stream(self, lines: Iterable[Line], *, first: int = 0) -> Iterator[Translation]:
        """The translation of each line, in order, as they come; no more than a window of them is held.

        Args:
            lines: what to translate.
            first: the number of the first line, counted from 0: draws of sampling hang on it.

        Raises:
            InputError: when what a translation must contain cannot be written with the vocabulary, or does not fit.
        """
        lines, size = iter(lines), WINDOW * self.decoding.batch_size
        while window := list(itertools.islice(lines, size)):
            yield from self._translate(window, first)
            first += len(window)

    def warm_up(self) -> None:
        """Compiles what lines without constraints of their own need, of any length."""
        self._engine.warm_up(self._params, self._longest)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[PairScore]:
        """The log-probability of each given translation, as a whole and token by token.

        Raises:
            InputError: when a sentence does not fit a table of learned positions.
        """
        sources, targets = zip(*pairs, strict=True) if pairs else ((), ())
        sides = (self.tokenizers.source.encode(sources), self.tokenizers.target.encode(targets))
        parts = [Part([*source, EOS_ID], [*target, EOS_ID]) for source, target in zip(*sides, strict=True)]
        for number, part in enumerate(parts, start=1):
            if max(len(part.source), len(part.target)) > self._engine.positions:
                raise InputError(
                    f"pair {number} has {len(part.source)} and {len(part.target)} tokens, "
                    f"but the model has max_positions={self._engine.positions}"
                )
        scores = self._forcing.score(self._params, parts)
        return [
            PairScore(self.tokenizers.target.pieces(part.target), log_probs)
            for part, log_probs in zip(parts, scores, strict=True)
        ]

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
        parts = [part for hypothesis in hypotheses for part in hypothesis.parts if part.target]
        layer = max(self._engine.depth - 2, 0) if layer is None else layer
        weights = iter(self._forcing.align(self._params, parts, layer, head))
        return [self._aligned(hypothesis, weights) for hypothesis in hypotheses]

    def _aligned(self, hypothesis: Hypothesis, weights: Iterator[np.ndarray]) -> list[tuple[int, int]]:
        """The pairs of one translation, which takes the weights of its parts."""
        pieces, parts = (self.tokenizers.source.pieces, self.tokenizers.target.pieces), hypothesis.parts
        words = [(words_of(pieces[0](part.source), written=False), words_of(pieces[1](part.target))) for part in parts]
        own = [next(weights) if part.target else np.zeros((0, len(part.source))) for part in parts]
        return aligned_parts(own, words, [part.gap for part in parts])

    def attend(self, sentence: str) -> AttendedSentence:
        """The sentence's translation, with the attention weights of every layer and head.

        Raises:
            InputError: when the sentence is blank, or longer than a table of learned positions.
        """
        (source,) = self.tokenizers.source.encode([sentence])
        if not source:
            raise InputError("the sentence is blank: there is nothing to attend to")
        if len(source) >= self._engine.positions:
            raise InputError(
                f"the sentence has {len(source) + 1} tokens, but the model has max_positions={self._engine.positions}"
            )
        ((_, outputs),) = self._engine.decode(self._params, [Request([*source, EOS_ID])])
        target = [token for token in outputs[0].tokens if token != EOS_ID] if outputs else []
        target = [*target, EOS_ID][: self._engine.positions]
        return self._forcing.attend(self._params, [*source, EOS_ID], target, self.tokenizers)

    def _translate(self, lines: Sequence[Line], first: int) -> list[Translation]:
        """One window."""
        parts = self._split([line.text for line in lines])
        texts = [part for own in parts for part in own]
        encoded = iter(self.tokenizers.source.encode(texts))
        owners, requests, read = [], [], []
        for number, (line, own) in enumerate(zip(lines, parts, strict=True)):
            ids = [[*next(encoded), EOS_ID] for _ in own]
            read.append(ids)
            for place, request in enumerate(self._requests(line, ids, first + number)):
                owners.append((number, place))
                requests.append(request)
        outputs: list[dict[int, list[Output]]] = [{} for _ in lines]
        for index, decoded in self._engine.decode(self._params, requests):
            number, place = owners[index]
            outputs[number][place] = decoded
        joined = zip(lines, parts, read, outputs, strict=True)
        return [self._joined(line, own, ids, [found[i] for i in sorted(found)]) for line, own, ids, found in joined]

    def _split(self, texts: Sequence[str]) -> list[list[str]]:
        """The parts of each line that are translated at once: one, as long as it is not too long; of a blank none."""

        def lengths(pieces: Sequence[str]) -> list[int]:
            return [len(ids) for ids in self.tokenizers.source.encode(pieces)]

        room = self._longest - 1  # for the end token
        return [
            [] if not length else [text] if length <= room else split(text, lengths, room)
            for text, length in zip(texts, lengths(texts), strict=True)
        ]

    def _requests(self, line: Line, ids: Sequence[Sequence[int]], number: int) -> Iterator[Request]:
        """What is decoded for a line: a request a part; a prefix belongs to the first."""
        required = [self._encode_target(phrase, number) for phrase in dict.fromkeys(line.required) if phrase.strip()]
        if required and len(ids) > 1:
            raise InputError(
                f"line {number + 1} is translated in {len(ids)} parts, and it is unknown in which of them "
                f"{line.required[0]!r} should stand; split the line"
            )
        forbidden = [ids for phrase in dict.fromkeys(line.forbidden) for ids in self._spellings(phrase)]
        for place, source in enumerate(ids):
            prefix = self._encode_target(line.prefix, number) if line.prefix.strip() and place == 0 else []
            request = Request(source, number, place, prefix, required, forbidden)
            least = len(prefix) + sum(map(len, required)) + 1
            if least > self._engine.positions:
                raise InputError(
                    f"line {number + 1}: its prefix and phrases take {least} tokens, "
                    f"but the model has max_positions={self._engine.positions}"
                )
            yield request

    def _encode_target(self, text: str, number: int) -> list[int]:
        (ids,) = self.tokenizers.target.encode([text])
        if not ids or not self.tokenizers.target.knows(ids):
            raise InputError(f"line {number + 1}: {text!r} cannot be written with the pieces of the vocabulary")
        return ids

    def _spellings(self, phrase: str) -> list[list[int]]:
        if phrase not in self._known_spellings:
            self._known_spellings[phrase] = self.tokenizers.target.spellings(phrase)
        return self._known_spellings[phrase]

    def _joined(
        self, line: Line, parts: Sequence[str], sources: Sequence[Sequence[int]], outputs: Sequence[list[Output]]
    ) -> Translation:
        """The translation of a line from the outputs of its parts."""
        if not parts:
            asked = line.prefix.strip() or any(phrase.strip() for phrase in line.required)
            warnings = ("blank, and stays so: what its translation must contain is not there",) if asked else ()
            return Translation(line.text, (Hypothesis("", 0.0, 0.0),), warnings)
        best = zip(*(own or [_NO_OUTPUT] for own in outputs), strict=False)  # the n-th of every part
        hypotheses = tuple(self._hypothesis(parts, sources, chosen) for chosen in best) if any(outputs) else ()
        return Translation(line.text, hypotheses, tuple(self._warnings(line, parts, outputs, hypotheses)))

    def _warnings(
        self, line: Line, parts: Sequence[str], outputs: Sequence[list[Output]], hypotheses: Sequence[Hypothesis]
    ) -> Iterator[str]:
        """What the user should know about a translation."""
        if len(parts) > 1:
            yield f"longer than the {self._longest} tokens read at once: translated in {len(parts)} parts"
        if not all(outputs):
            yield "no translation satisfies its constraints, or the model's numbers are not finite"
        for own in outputs:
            if own and own[0].tokens[-1] != EOS_ID:
                yield f"its translation does not end within {len(own[0].tokens)} tokens, and is cut there"
        for phrase in line.forbidden:
            if hypotheses and re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", hypotheses[0].text):
                yield f"{phrase!r} is forbidden, and stands in its translation behind another mark than a space"

    def _hypothesis(
        self, parts: Sequence[str], sources: Sequence[Sequence[int]], outputs: Sequence[Output]
    ) -> Hypothesis:
        decoded = self.tokenizers.target.decode(output.tokens for output in outputs)
        gaps = [" " if part[-1].isspace() else "" for part in parts]
        text = "".join(itertools.chain.from_iterable(zip(decoded, gaps, strict=True))).strip()
        return Hypothesis(
            text=" ".join(text.splitlines()),  # an output is one line, whatever its pieces are
            score=sum(output.score for output in outputs),
            log_prob=sum(output.log_prob for output in outputs),
            parts=tuple(map(Part, sources, (output.tokens for output in outputs), gaps)),
        )


_NO_OUTPUT = Output([], -math.inf, -math.inf)
