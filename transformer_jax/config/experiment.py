"""A whole run as one value, and its JSON."""

import dataclasses
import json
from typing import Any, Literal

from transformer_jax.checked import checked_from_json, config, placement, require, settings_of
from transformer_jax.config.data import BatchConfig, TokenizerConfig
from transformer_jax.config.decoding import DecodingConfig
from transformer_jax.config.filters import FilterConfig
from transformer_jax.config.finetuning import FinetuningConfig
from transformer_jax.config.machine import LoggingConfig, MeshConfig, ProcessesConfig
from transformer_jax.config.mixture import MixtureConfig
from transformer_jax.config.model import ModelConfig
from transformer_jax.config.objectives import Classification, ObjectiveConfig, Translation, reads_pairs
from transformer_jax.config.optimizer import Adam, OptimizerConfig, PaperSchedule, ScheduleConfig, ScheduleFree
from transformer_jax.config.sources import DataConfig, HeldOutConfig
from transformer_jax.config.training import (
    CheckpointConfig,
    EvaluationConfig,
    StabilityConfig,
    TrainingConfig,
)


@config
class Experiment:
    """One training run, whole; saved in its run folder as config.json."""

    init_from: str | None = placement(default=None)  # a public checkpoint or a run folder to start from
    finetuning: FinetuningConfig = FinetuningConfig()
    data: DataConfig
    held_out: HeldOutConfig = None  # where pairs for validation and test come from; None is data
    prepared: str | None = placement(default=None)  # folder of token shards, by the verb prepare, of the training data
    filters: FilterConfig = FilterConfig()
    objective: ObjectiveConfig = Translation()
    mixture: MixtureConfig = MixtureConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = PaperSchedule()
    training: TrainingConfig
    stability: StabilityConfig = StabilityConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    decoding: DecodingConfig = DecodingConfig()
    mesh: MeshConfig = placement(default=MeshConfig())
    processes: ProcessesConfig = placement(default=ProcessesConfig())
    logging: LoggingConfig = placement(default=LoggingConfig())
    seed: int = 0

    def __post_init__(self) -> None:
        model, batch = self.model, self.batch
        require(0 <= self.seed < 2**32, f"seed={self.seed} must be in [0, 2^32)")
        _check_objectives(self)
        require(
            not isinstance(self.optimizer, ScheduleFree) or self.schedule.kind == "constant",
            f"schedule.kind={self.schedule.kind!r}: schedule_free averages in place of a decay; it needs 'constant'",
        )
        require(
            self.training.average_decay is None or not isinstance(self.optimizer, ScheduleFree),
            f"training.average_decay={self.training.average_decay}: schedule_free has a mean of its own; leave it out",
        )
        _check_vocabularies(self)
        longest = max(batch.source_length, batch.target_length) + self.decoding.extra_length
        require(
            model.positions != "learned" or longest <= model.max_positions,
            f"model.max_positions={model.max_positions} is below {longest}, the longest of batch.source_length="
            f"{batch.source_length} and batch.target_length={batch.target_length} and decoding.extra_length above it",
        )
        require(
            batch.rows % self.training.accumulation == 0,
            f"training.accumulation={self.training.accumulation} does not divide batch.rows={batch.rows}",
        )
        require(
            self.mesh.tensor <= 0 or model.num_heads % self.mesh.tensor == 0,
            f"mesh.tensor={self.mesh.tensor} does not divide model.num_heads={model.num_heads}",
        )

    def data_of(self, split: Literal["train", "validation", "test"]) -> DataConfig:
        """Where the examples of a split come from."""
        return self.data if split == "train" or self.held_out is None else self.held_out


def _objectives(experiment: Experiment) -> list[ObjectiveConfig]:
    return [experiment.objective, *(task.objective for task in experiment.mixture.tasks)]


def _check_objectives(experiment: Experiment) -> None:
    """Requires what fits all that is learned."""
    objectives = _objectives(experiment)
    for objective in objectives:
        _check_parts(experiment.model, objective)
    scores = {"bleu": ("translation",), "chrf": ("translation",), "accuracy": ("masked", "classification")}
    metric, kind = experiment.evaluation.metric, experiment.objective.kind
    require(kind in scores.get(metric, (kind,)), f"evaluation.metric={metric!r}: objective.kind={kind!r} has none")
    require(
        not experiment.tokenizer.sampling or any(map(reads_pairs, objectives)),
        f"tokenizer.sampling={experiment.tokenizer.sampling}: of pairs, and objective.kind={kind!r} learns from none",
    )
    labels = {objective.labels: None for objective in objectives if isinstance(objective, Classification)}
    require(
        len(labels) <= 1,
        f"objective.labels: {' and '.join(map(str, labels))}: a model has one head; give all the same, in the same "
        "order",
    )
    if labels:
        _check_filters(experiment.filters)


def _check_vocabularies(experiment: Experiment) -> None:
    """Requires tokens that the model and its tokenizers agree about."""
    model = experiment.model
    given = experiment.init_from is not None  # then the tokenizers are those of the checkpoint
    joint = experiment.tokenizer.joint or given
    require(
        joint or model.share_embeddings in ("target", "none"),
        "tokenizer.joint=False needs model.share_embeddings of 'target' or 'none'",
    )
    one = [objective.kind for objective in _objectives(experiment) if not isinstance(objective, Translation)]
    require(
        joint or not one,
        f"tokenizer.joint=False: objective.kind={one[0] if one else None!r} has one vocabulary; only translation "
        "has two",
    )
    require(
        not experiment.tokenizer.joint or given or model.source_vocab_size is None,
        f"model.source_vocab_size={model.source_vocab_size} needs tokenizer.joint=False",
    )
    for name, token in (("pad_id", model.pad_id), ("start_id", model.start)):
        require(
            token == 0 or given,
            f"model.{name}={token}: 0 is what tokenizers have that are trained here; others come with init_from",
        )


def _check_parts(model: ModelConfig, objective: ObjectiveConfig) -> None:
    """Requires the halves of the model that an objective trains, and no other."""
    parts = {"causal": "decoder", "masked": "encoder", "classification": "encoder"}.get(objective.kind, "both")
    for name, layers in (("encoder", model.encoder_layers), ("decoder", model.decoder_layers)):
        needed = parts in (name, "both")
        wanted = f"has an {name}" if name == "encoder" else f"has a {name}"
        require(
            (layers > 0) is needed,
            f"model.{name}_layers={layers}: a model of objective.kind={objective.kind!r} "
            f"{wanted if needed else f'has no {name}'}",
        )
    classes = len(objective.labels) if isinstance(objective, Classification) else 0
    require(
        model.classes == classes,
        f"model.classes={model.classes}: objective.kind={objective.kind!r} has {classes} of them",
    )


def _check_filters(filters: FilterConfig) -> None:
    """Requires that no filter looks at the target side, where it is a class."""
    changed = {
        name: value for name, value in dataclasses.asdict(filters).items() if value != getattr(FilterConfig(), name)
    }
    of_target = changed.keys() - {"unit", "source_scripts", "min_script_share", "source_language", "duplicates"}
    if filters.duplicates in ("target", "either"):
        of_target |= {"duplicates"}
    wrong = ", ".join(f"filters.{name}={changed[name]!r}" for name in sorted(of_target))
    require(not wrong, f"{wrong}: the target side of objective.kind='classification' is a class")


def to_json(experiment: Experiment) -> str:
    """The experiment as indented JSON, as config.json holds it."""
    return json.dumps(dataclasses.asdict(experiment), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Experiment:
    """The experiment of a config.json.

    Raises:
        InputError: on JSON that is broken, and on unknown fields and wrong values, by name.
    """
    return checked_from_json(Experiment, text)


def identity_of(config: Any) -> dict[str, Any]:
    """The identity fields of an experiment, or of a part of one, by their dotted names."""
    return {name: value for name, value, is_placement in settings_of(config) if not is_placement}


def identity_difference(old: Experiment, new: Experiment) -> list[str]:
    """The identity fields in which two experiments differ, a line `name: old -> new` each."""
    before, after = identity_of(old), identity_of(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names]
