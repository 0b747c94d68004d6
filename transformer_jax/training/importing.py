"""A public checkpoint as a run folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jax.sharding import Mesh

from transformer_jax.config import (
    BatchConfig,
    CausalLanguageModel,
    DataConfig,
    Experiment,
    FinetuningConfig,
    MaskedLanguageModel,
    ModelConfig,
    ObjectiveConfig,
    PlainText,
    TextFiles,
    TrainingConfig,
    Translation,
)
from transformer_jax.errors import InputError
from transformer_jax.files import require_new, write_atomically
from transformer_jax.pretrained import Pretrained, decoding_of, load_pretrained
from transformer_jax.runs import RunFolder
from transformer_jax.training.single import write_run


def import_checkpoint(
    folder: str | Path,
    output: str | Path,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    mesh: Mesh | None = None,
) -> Experiment:
    """Makes a run folder of a public checkpoint; returns its experiment.

    It can be translated or gone on with, scored, averaged, exported and started from, but has no data of its own to be
    trained on.

    Args:
        folder: of the checkpoint, or its name on the Hugging Face Hub.
        output: the new folder; it appears when it is whole.
        source_language: of a model of many languages, as it writes them.
        target_language: likewise.
        dtype: of activations; parameters are kept as float32.
        mesh: the devices that share the parameters; None is the default device.

    Raises:
        InputError: as `load_pretrained`, and on an output that is not empty.
    """
    output = Path(output)
    require_new(output, "RUN")
    loaded = load_pretrained(folder, source_language=source_language, target_language=target_language, mesh=mesh)
    experiment = _experiment(str(folder), loaded, dtype, source_language, target_language)

    def rest(run: RunFolder) -> None:
        loaded.tokenizers.save(run.tokenizer)
        write_atomically(run.imported, json.dumps({"checkpoint": str(folder)}, indent=2) + "\n")

    write_run(output, experiment, loaded.params, 0, rest)
    return experiment


def _experiment(
    folder: str,
    loaded: Pretrained,
    dtype: Literal["float32", "bfloat16"],
    source_language: str | None,
    target_language: str | None,
) -> Experiment:
    """The experiment of an imported run: the model, how it is decoded, and as many tokens as it has positions."""
    model, decoding = loaded.model.config, decoding_of(loaded.tokenizers)
    longest = model.max_positions - decoding.extra_length
    if longest < 2:
        raise InputError(f"{folder}: {model.max_positions} positions, of which too few are left for a sentence")
    data, objective = _task(model)
    return Experiment(
        init_from=folder,
        finetuning=FinetuningConfig(source_language=source_language, target_language=target_language),
        data=data,
        objective=objective,
        batch=BatchConfig(source_length=longest, target_length=longest),
        model=replace(model, dtype=dtype),
        training=TrainingConfig(steps=1),
        decoding=decoding,
    )


def _task(model: ModelConfig) -> tuple[DataConfig, ObjectiveConfig]:
    """What a model with these halves is made for."""
    if not model.encoder_layers:
        return PlainText(), CausalLanguageModel()
    if not model.decoder_layers:
        return PlainText(), MaskedLanguageModel()
    return TextFiles(), Translation()
