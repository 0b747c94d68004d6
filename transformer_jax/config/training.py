"""How a model is trained, evaluated and saved."""

from typing import Literal

from transformer_jax.checked import config, placement, require, require_positive, require_share


@config
class TrainingConfig:
    """How long and how to train: give steps or epochs."""

    steps: int | None = None  # optimizer steps
    epochs: int | None = (
        None  # passes over the training pairs; where their lengths are drawn, as many steps as the first pass says
    )
    label_smoothing: float = 0.1  # epsilon_ls
    clip_norm: float | None = None  # gradients are scaled down to this global norm
    accumulation: int = 1  # parts a batch is computed in, one after the other, for less memory
    average_decay: float | None = None  # decay of an exponential moving average of the weights, used to evaluate
    frozen: tuple[str, ...] = ()  # parameters that stay as they are, by patterns such as encoder/layers/[0-3]/*
    learning_rates: tuple[tuple[str, float], ...] = ()  # (pattern, factor): of parameters, the first that fits
    patience: int | None = None  # evaluations without a better metric before the run stops early
    remat: Literal["none", "full", "products"] = placement(
        default="none"  # what layers compute again in the backward pass, for less memory: all, or all but products
    )

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.epochs is None),
            f"steps={self.steps}, epochs={self.epochs}: give one of the two",
        )
        for name in ("steps", "epochs", "clip_norm", "patience"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        for pattern, factor in self.learning_rates:
            require(factor >= 0, f"learning_rates: {pattern!r} has {factor}, which must not be negative")
        require_positive(self, "accumulation")
        require_share(self, "label_smoothing")
        if self.average_decay is not None:
            require_share(self, "average_decay")


@config
class StabilityConfig:
    """What happens to bad steps. A loss or gradient that is not finite never reaches the weights: it is skipped."""

    max_skipped: int = 10  # steps skipped in a row before the run goes back to a checkpoint and passes over the data
    spike: float | None = 3.0  # so do nats a token of loss above its running mean; None never does
    max_rollbacks: int = 3  # times that a run goes back before it stops

    def __post_init__(self) -> None:
        require_positive(self, "max_skipped")
        if self.spike is not None:
            require_positive(self, "spike")
        require(self.max_rollbacks >= 0, f"max_rollbacks={self.max_rollbacks} must not be negative")


@config
class EvaluationConfig:
    """What is measured while training, on the validation split."""

    every: int = 5_000  # steps between two evaluations; the last step is always evaluated
    translations: int | None = 500  # sentences translated and scored at each; None is all, 0 is none
    bleu_tokenizer: Literal["13a", "intl", "char", "zh", "none"] = "13a"  # of sacrebleu; char for text without spaces
    metric: Literal["loss", "bleu", "chrf", "accuracy"] = "loss"  # decides the best checkpoint and early stopping

    def __post_init__(self) -> None:
        require_positive(self, "every")
        require(
            self.translations is None or self.translations >= 0,
            f"translations={self.translations} must not be negative",
        )
        require(
            self.metric not in ("bleu", "chrf") or self.translations != 0,
            f"metric={self.metric!r} needs translations above 0",
        )


@config
class CheckpointConfig:
    """When checkpoints are written and which stay."""

    every: int = placement(default=1_000)  # steps between two checkpoints, where a run also goes back to
    newest: int = placement(default=3)  # checkpoints kept by age
    best: int = placement(default=1)  # checkpoints kept by evaluation.metric, beside the newest
    on_failure: Literal["stop", "go_on"] = placement(default="stop")  # when one cannot be saved, to a full disk say

    def __post_init__(self) -> None:
        require_positive(self, "every", "newest")
        require(self.best >= 0, f"best={self.best} must not be negative")
