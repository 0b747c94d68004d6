"""Prints how probable a run finds given translations: their log-probability, one line a pair.

    transformer-jax score RUN SOURCE TARGET [--tokens]

transformer-jax score RUN --help lists every option.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import asks_for_help, call, run_first
from transformer_jax.config import DecodingConfig
from transformer_jax.errors import InputError

_AT_ONCE = 1024  # pairs


def main(arguments: Sequence[str]) -> int:
    """Scores; returns the exit code."""
    if asks_for_help(arguments):
        print(__doc__)
        return 0
    run, experiment, flags = run_first(arguments, "score RUN SOURCE TARGET")

    def score(
        source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
        target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")],
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        tokens: bool = False,
        ensemble: tuple[Path, ...] = (),
        weights: tuple[float, ...] | None = None,
        step: int | None = None,
    ) -> int:
        """Prints the log-probability of each given translation, in nats, its end included.

        Args:
            source: a file of sentences, one a line, plain or .gz.
            target: the file of their translations.
            decoding: of it only the batch size matters here.
            tokens: behind each, by tabs, its pieces with the log-probability of each.
            ensemble: run folders of other models whose probabilities are averaged with this one's.
            weights: of the models of an ensemble, this one's first.
            step: the checkpoint to score with; None is the best, or the newest where none was measured.
        """
        from transformer_jax.translation import Translator
        from transformer_jax.translation.lines import all_lines

        sides = [all_lines(path) for path in (source, target)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(f"{source} has {len(sides[0])} lines, {target} has {len(sides[1])}")
        translator = Translator.from_run([run, *ensemble], step=step, decoding=decoding, weights=weights)
        pairs = list(zip(*sides, strict=True))
        for start in range(0, len(pairs), _AT_ONCE):
            for scored in translator.score(pairs[start : start + _AT_ONCE]):
                shown = [f"{piece} {value:.6f}" for piece, value in zip(scored.pieces, scored.log_probs, strict=True)]
                print("\t".join([f"{scored.log_prob:.6f}", *(shown if tokens else [])]))
        return 0

    return call("score RUN", score, flags)
