"""How weights are updated, and how fast."""

from typing import Annotated, Literal

import pydantic

from transformer_jax.checked import config, require, require_positive, require_share


@config
class Adam:
    """Adam with the paper's constants; with weight_decay it is AdamW."""

    kind: Literal["adam"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        require_share(self, "beta1", "beta2")
        require_positive(self, "epsilon")


@config
class AdamW:
    """Adam with decoupled weight decay on matrices."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.01  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        require_share(self, "beta1", "beta2")
        require_positive(self, "epsilon")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


@config
class Adafactor:
    """Second moments of a matrix as those of its rows times those of its columns (Shazeer and Stern, 2018)."""

    kind: Literal["adafactor"] = "adafactor"
    decay: float = 0.8  # second moments of step t decay by 1 - t^-decay
    clip: float = 1.0  # the root mean square that no update of a parameter exceeds, before the learning rate
    relative: bool = True  # the learning rate counts times the root mean square of each parameter
    least_factored: int = 128  # rows and columns from which on a matrix is factored; smaller ones are kept whole

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay={self.decay} must be in (0, 1)")
        require_positive(self, "clip", "least_factored")


@config
class Lion:
    """The sign of a mean of gradients (Chen et al., 2023): one moment; asks for a tenth of Adam's learning rate."""

    kind: Literal["lion"] = "lion"
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        require_share(self, "beta1", "beta2")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


@config
class Muon:
    """Orthogonal updates of the kernels of layers (Jordan, 2024), and Adam for all else.

    Updates are scaled to the size of Adam's (Liu et al., 2025), so that one learning rate is right for both.
    """

    kind: Literal["muon"] = "muon"
    momentum: float = 0.95  # of the kernels of layers
    beta1: float = 0.9  # of all else, as of Adam
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.01  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        require_share(self, "momentum", "beta1", "beta2")
        require_positive(self, "epsilon")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


@config
class ScheduleFree:
    """AdamW that averages its weights in place of a decay (Defazio et al., 2024); has a constant schedule with warm-up.

    Gradients are taken between the newest weights and their mean. The mean is what is evaluated, and translates.
    """

    kind: Literal["schedule_free"] = "schedule_free"
    beta1: float = 0.9  # share of the mean in the weights that gradients are taken at
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.01  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        require_share(self, "beta2")
        require(0 < self.beta1 < 1, f"beta1={self.beta1} must be in (0, 1)")
        require_positive(self, "epsilon")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


OptimizerConfig = Annotated[Adam | AdamW | Adafactor | Lion | Muon | ScheduleFree, pydantic.Field(discriminator="kind")]


@config
class PaperSchedule:
    """The paper's: scale * width^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""

    kind: Literal["paper"] = "paper"
    warmup_steps: int = 4000
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "warmup_steps", "scale")


@config
class Schedule:
    """A linear warm-up from 0 to the peak, then the decay of this kind down to the end of the run."""

    kind: Literal["linear", "cosine", "inverse_sqrt", "constant"] = "linear"
    peak: float = 1e-3  # highest learning rate, reached at the end of the warm-up
    warmup_steps: int = 1000
    final: float = 0.0  # learning rate at the last step, of linear and cosine

    def __post_init__(self) -> None:
        require_positive(self, "peak")
        require(self.warmup_steps >= 0, f"warmup_steps={self.warmup_steps} must not be negative")
        require(0 <= self.final <= self.peak, f"final={self.final} must be between 0 and peak={self.peak}")


ScheduleConfig = Annotated[PaperSchedule | Schedule, pydantic.Field(discriminator="kind")]
