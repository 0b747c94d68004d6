"""Prints how probable a run finds given translations: their log-probability, one line a pair.

    transformer-jax score RUN SOURCE TARGET [--tokens]

transformer-jax score RUN --help lists every option.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import over_run
from transformer_jax.cli.members import Members
from transformer_jax.cli.streams import check_output
from transformer_jax.config import DecodingConfig, Experiment
from transformer_jax.errors import InputError

_AT_ONCE = 1024  # pairs


def main(arguments: Sequence[str]) -> int:
    """Scores; returns the exit code."""
    return over_run("score RUN SOURCE TARGET", __doc__, _score_of, arguments)


def _score_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def score(
        source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
        target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")],
        members: Annotated[Members, tyro.conf.arg(name="")],
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        tokens: bool = False,
    ) -> int:
        """Prints the log-probability of each given translation, in nats, its end included.

        Args:
            source: a file of sentences, one a line, plain or .gz.
            target: the file of their translations.
            members: the models.
            decoding: of it only the batch size matters here.
            tokens: behind each, by tabs, its pieces with the log-probability of each.
        """
        from transformer_jax.translation.lines import all_lines

        check_output()
        sides = [all_lines(path) for path in (source, target)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(f"{source} has {len(sides[0])} lines, {target} has {len(sides[1])}")
        translator = members.translator(run, decoding)
        pairs = list(zip(*sides, strict=True))
        for start in range(0, len(pairs), _AT_ONCE):
            for scored in translator.score(pairs[start : start + _AT_ONCE], first=start):
                shown = [f"{piece} {value:.6f}" for piece, value in zip(scored.pieces, scored.log_probs, strict=True)]
                print("\t".join([f"{scored.log_prob:.6f}", *(shown if tokens else [])]))
        return 0

    return score
