"""Goes on with every line of standard input, with a run whose model has no encoder.

    transformer-jax generate RUN [--sampling ...] < beginnings > texts

transformer-jax generate RUN --help lists every option, with the values of the run's experiment.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from transformer_jax.cli.arguments import over_run
from transformer_jax.cli.translate import check_streams, translate_lines
from transformer_jax.cli.writer import Files, Wishes
from transformer_jax.config import DecodingConfig, Experiment


def main(arguments: Sequence[str]) -> int:
    """Generates; returns the exit code."""
    return over_run("generate RUN", __doc__, _generate_of, arguments)


def _generate_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def generate(
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        input: Path | None = None,
        output: Path | None = None,
        resume: bool = False,
        invalid: Literal["error", "replace"] = "error",
        scores: bool = False,
        step: int | None = None,
        devices: int = 1,
    ) -> int:
        """Goes on with lines; n lines in, n out. With --nbest N, N lines each: number ||| text ||| score ||| log p.

        Args:
            decoding: how to go on.
            input: beginnings, a line each, plain or .gz; a blank one is a text of its own. None is standard input.
            output: where texts go, their beginnings included; None is standard output.
            resume: go on behind what stands in --output already.
            invalid: bytes that are no UTF-8: stop there, or U+FFFD in their place.
            scores: before each text its score and a tab.
            step: the checkpoint; None is the best, or the newest where none was measured.
            devices: that share the lines; -1 is all there are.
        """
        from transformer_jax import sharding
        from transformer_jax.translation import Generator

        files = Files(input=input, output=output, resume=resume, invalid=invalid)
        check_streams(files)
        generator = Generator.from_run(run, step=step, decoding=decoding, mesh=sharding.data_mesh(devices))
        with contextlib.ExitStack() as stack:
            translate_lines(generator, files, Wishes(scores=scores), stack)
        return 0

    return generate
