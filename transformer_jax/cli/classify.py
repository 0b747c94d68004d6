"""Prints the class of every line of standard input, with a run of a classifier.

    transformer-jax classify RUN [--probabilities] < lines > labels

transformer-jax classify RUN --help lists every option.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from transformer_jax.cli.arguments import over_run
from transformer_jax.cli.streams import check_input, check_output, opened
from transformer_jax.config import Experiment

_AT_ONCE = 1024  # lines


def main(arguments: Sequence[str]) -> int:
    """Classifies; returns the exit code."""
    return over_run("classify RUN", __doc__, _classify_of, arguments)


def _classify_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def classify(
        input: Path | None = None,
        invalid: Literal["error", "replace"] = "error",
        probabilities: bool = False,
        step: int | None = None,
        devices: int = 1,
    ) -> int:
        """Prints the label of each line; n lines in, n lines out.

        Args:
            input: lines, plain or .gz; None is standard input.
            invalid: bytes that are no UTF-8: stop there, or U+FFFD in their place.
            probabilities: behind each label, by tabs, every label with its probability.
            step: the checkpoint; None is the best, or the newest where none was measured.
            devices: that share the lines; -1 is all there are.
        """
        from transformer_jax import sharding
        from transformer_jax.classification import Classifier
        from transformer_jax.translation.lines import arriving

        check_output()
        check_input(input)
        classifier = Classifier.from_run(run, step=step, mesh=sharding.data_mesh(devices))
        with ExitStack() as stack:
            stream, name = opened(input, stack)
            chunks = arriving(stream, name, _AT_ONCE, invalid)
            found = itertools.chain.from_iterable(map(classifier.classify, chunks))
            for number, one in enumerate(found, start=1):
                if one.cut:
                    print(f"warning: line {number}: longer than what is read; its end is left out", file=sys.stderr)
                shares = zip(classifier.labels, one.probabilities, strict=True)
                shown = [f"{label} {share:.6f}" for label, share in shares] if probabilities else []
                print("\t".join([one.label, *shown]), flush=True)
        return 0

    return classify
