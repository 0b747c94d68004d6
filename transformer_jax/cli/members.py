"""Which models a verb works with, as one."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from transformer_jax.config import DecodingConfig
from transformer_jax.errors import InputError

if TYPE_CHECKING:
    from transformer_jax.translation import Translator


@dataclasses.dataclass(frozen=True)
class Members:
    """The models that work together."""

    ensemble: tuple[Path, ...] = ()  # run folders of other models, averaged with this one's
    step: tuple[int, ...] = ()  # the checkpoint of each run, several as an ensemble; none is the best, or the newest
    weights: tuple[float, ...] | None = None  # of the models of an ensemble, this run's first; None is equal ones
    mean: Literal["probabilities", "log_probabilities"] = "probabilities"  # what of an ensemble is averaged
    devices: int = 1  # that share the sentences, each with all models; -1 is all there are

    def __post_init__(self) -> None:
        count = (1 + len(self.ensemble)) * max(len(self.step), 1)
        if count == 1 and (self.weights is not None or self.mean != "probabilities"):
            raise InputError(
                "--weights and --mean are those of an ensemble: --ensemble RUN2 names other models, "
                "--step several checkpoints"
            )
        if self.weights is not None and len(self.weights) != count:
            raise InputError(f"--weights: {len(self.weights)} of them, for {count} models")

    def translator(
        self,
        run: Path,
        decoding: DecodingConfig,
        *,
        draft: Path | None = None,
        vocabulary: Iterable[str] | None = None,
    ) -> "Translator":
        """The translator of a run with these."""
        from transformer_jax import sharding
        from transformer_jax.translation import Translator

        return Translator.from_run(
            [run, *self.ensemble],
            step=self.step or None,
            decoding=decoding,
            mesh=sharding.data_mesh(self.devices),
            weights=self.weights,
            mean=self.mean,
            draft=draft,
            vocabulary=vocabulary,
        )
