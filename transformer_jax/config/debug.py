"""The same experiment in the small: every part of it, in sizes that any machine trains in seconds."""

import math
from collections.abc import Sequence
from dataclasses import replace

from transformer_jax.config.data import BatchConfig, TokenizerConfig
from transformer_jax.config.experiment import Experiment
from transformer_jax.config.filters import FilterConfig
from transformer_jax.config.finetuning import FinetuningConfig
from transformer_jax.config.machine import LoggingConfig, MeshConfig
from transformer_jax.config.mixture import MixtureConfig
from transformer_jax.config.model import ModelConfig
from transformer_jax.config.objectives import (
    Classification,
    Denoising,
    MaskedLanguageModel,
    ObjectiveConfig,
    SpanCorruption,
    reads_pairs,
)
from transformer_jax.config.optimizer import PaperSchedule, ScheduleConfig
from transformer_jax.config.sources import Numerals
from transformer_jax.config.training import CheckpointConfig

STEPS = 3
LENGTH = 64  # tokens of a row; no number takes more, in any vocabulary
VOCABULARY = 128
LABELS = ("even", "odd")


def debug_variant(experiment: Experiment) -> Experiment:
    """The experiment on generated text, with a layer of each kind and sizes that are the same for all, for three steps.

    Its objective, the parts of its model, its optimizer and how it decodes are those of the experiment; it starts from
    fresh parameters, and nothing of it is frozen.
    """
    objective = _objective(experiment.objective)
    tasks = [
        replace(task, data=_data(task.objective), objective=_objective(task.objective))
        for task in experiment.mixture.tasks
    ]
    return replace(
        experiment,
        init_from=None,
        finetuning=FinetuningConfig(),
        data=_data(objective),
        held_out=None,
        prepared=None,
        filters=FilterConfig(),
        objective=objective,
        mixture=replace(experiment.mixture, tasks=tuple(tasks)) if tasks else MixtureConfig(),
        tokenizer=_tokenizer(experiment.tokenizer, [objective, *(task.objective for task in tasks)]),
        batch=BatchConfig(rows=8, source_length=LENGTH, target_length=LENGTH),
        model=_model(experiment.model, isinstance(objective, Classification)),
        schedule=_schedule(experiment.schedule),
        training=replace(
            experiment.training,
            steps=STEPS,
            epochs=None,
            accumulation=2 if experiment.training.accumulation > 1 else 1,
            frozen=(),
            learning_rates=(),
            patience=None,
        ),
        evaluation=replace(
            experiment.evaluation, every=STEPS, translations=0 if experiment.evaluation.translations == 0 else 2
        ),
        checkpoints=CheckpointConfig(every=STEPS),
        decoding=replace(experiment.decoding, extra_length=5, min_length=0, longest=None, suppressed=()),
        mesh=MeshConfig(),
        logging=LoggingConfig(every=1),
    )


def _tokenizer(tokenizer: TokenizerConfig, objectives: Sequence[ObjectiveConfig]) -> TokenizerConfig:
    """Of the algorithm that makes as many pieces as it is asked for, of any text; with the masks that objectives need.

    Those of what the experiment starts from are not there.
    """
    return replace(tokenizer, algorithm="bpe", character_coverage=1.0, masks=max(map(_masks, objectives)))


def _masks(objective: ObjectiveConfig) -> int:
    if isinstance(objective, SpanCorruption):
        return math.ceil(LENGTH * objective.share / objective.length) + 1
    return 1 if isinstance(objective, MaskedLanguageModel | Denoising) else 0


def _objective(objective: ObjectiveConfig) -> ObjectiveConfig:
    return replace(objective, labels=LABELS) if isinstance(objective, Classification) else objective


def _data(objective: ObjectiveConfig) -> Numerals:
    """Generated text of the form that an objective learns from."""
    pairs = Numerals(limit=1_000, test_numbers=1, validation_numbers=1)
    if isinstance(objective, Classification):
        return replace(pairs, form="parity")
    return pairs if reads_pairs(objective) else replace(pairs, form="text")


def _model(model: ModelConfig, classifies: bool) -> ModelConfig:
    return replace(
        model,
        encoder_layers=min(model.encoder_layers, 1) if not classifies else 1,
        decoder_layers=min(model.decoder_layers, 1) if not classifies else 0,
        width=32,
        num_heads=4,
        head_width=None,
        kv_heads=None if model.kv_heads is None else 2,
        ffn_width=64,
        vocab_size=VOCABULARY,
        source_vocab_size=None if model.source_vocab_size is None else VOCABULARY,
        max_positions=2 * LENGTH,
        pad_id=0,
        start_id=None,
        classes=len(LABELS) if classifies else 0,
        lora_rank=min(model.lora_rank, 2),
    )


def _schedule(schedule: ScheduleConfig) -> ScheduleConfig:
    return replace(schedule, warmup_steps=STEPS if isinstance(schedule, PaperSchedule) else 1)
