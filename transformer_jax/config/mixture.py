"""Several data sets, each with its objective, that one model learns from side by side."""

from transformer_jax.checked import config, require, require_positive
from transformer_jax.config.objectives import ObjectiveConfig, Translation
from transformer_jax.config.sources import DataConfig


@config
class Task:
    """One more data set and what is learned from it."""

    data: DataConfig
    objective: ObjectiveConfig = Translation()
    rate: float | None = None  # of its examples among all; None is by their number

    def __post_init__(self) -> None:
        if self.rate is not None:
            require_positive(self, "rate")


@config
class MixtureConfig:
    """What training mixes with the data and the objective of the experiment, which alone are evaluated."""

    tasks: tuple[Task, ...] = ()  # beside that of the experiment
    rate: float | None = None  # of the examples of the experiment's own data; None is by their number
    temperature: float = 1.0  # numbers of examples count to the power of 1 / temperature (Arivazhagan et al., 2019)

    def __post_init__(self) -> None:
        require(self.temperature >= 1, f"temperature={self.temperature} must be at least 1")
        for name, default in (("rate", None), ("temperature", 1.0)):
            value = getattr(self, name)
            require(bool(self.tasks) or value == default, f"{name}={value}: there are no tasks to mix with")
        if self.rate is not None:
            require_positive(self, "rate")
        require(
            self.rate is None or self.temperature == 1,
            f"temperature={self.temperature}: of numbers of examples, and rates are given; leave out one of the two",
        )
        given = [rate is not None for rate in (self.rate, *(task.rate for task in self.tasks))]
        require(all(given) or not any(given), "rate: give it to all that is mixed, or to none")
