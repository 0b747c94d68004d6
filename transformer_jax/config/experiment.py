"""A whole run as one value, and its JSON."""

import dataclasses
import json

from transformer_jax.checked import checked_from_json, config, fields_of, leaves_of, placement, require
from transformer_jax.config.data import BatchConfig, DataConfig, TokenizerConfig
from transformer_jax.config.decoding import DecodingConfig
from transformer_jax.config.finetuning import FinetuningConfig
from transformer_jax.config.machine import LoggingConfig, MeshConfig, ProcessesConfig
from transformer_jax.config.model import ModelConfig
from transformer_jax.config.optimizer import Adam, OptimizerConfig, PaperSchedule, ScheduleConfig, ScheduleFree
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
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        require(
            self.training.average_decay is None or not isinstance(self.optimizer, ScheduleFree),
            f"training.average_decay={self.training.average_decay}: schedule_free has a mean of its own; leave it out",
        )
        require(model.encoder_layers > 0, "model.encoder_layers=0: a translation model has an encoder")
        require(model.decoder_layers > 0, "model.decoder_layers=0: a translation model has a decoder")
        joint = self.tokenizer.joint or self.init_from is not None  # then the tokenizers are those of the checkpoint
        require(
            joint or model.share_embeddings in ("target", "none"),
            "tokenizer.joint=False needs model.share_embeddings of 'target' or 'none'",
        )
        require(
            not self.tokenizer.joint or self.init_from is not None or model.source_vocab_size is None,
            f"model.source_vocab_size={model.source_vocab_size} needs tokenizer.joint=False",
        )
        for name, token in (("pad_id", model.pad_id), ("start_id", model.start)):
            require(
                token == 0 or self.init_from is not None,
                f"model.{name}={token}: 0 is what tokenizers have that are trained here; others come with init_from",
            )
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


def to_json(experiment: Experiment) -> str:
    """The experiment as indented JSON, as config.json holds it."""
    return json.dumps(dataclasses.asdict(experiment), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Experiment:
    """The experiment of a config.json.

    Raises:
        InputError: on JSON that is broken, and on unknown fields and wrong values, by name.
    """
    return checked_from_json(Experiment, text)


def identity_difference(old: Experiment, new: Experiment) -> list[str]:
    """The identity fields in which two experiments differ, a line `name: old -> new` each."""
    placements = {name for name, is_placement in fields_of(Experiment) if is_placement}
    before, after = (dict(leaves_of(dataclasses.asdict(experiment))) for experiment in (old, new))
    names = [name for name in {**before, **after} if name not in placements and before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names]
