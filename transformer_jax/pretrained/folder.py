"""A checkpoint's whole folder, model and tokenizer: in and out."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from jax.sharding import Mesh

from transformer_jax.adapters import merged
from transformer_jax.config import DecodingConfig, ModelConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.models import Parameters, Transformer
from transformer_jax.pretrained.checkpoint import FAMILIES, Checkpoint, read_checkpoint, write_checkpoint
from transformer_jax.pretrained.files import FILES, GENERATION, Files, generation_of, json_bytes
from transformer_jax.pretrained.generation import told
from transformer_jax.pretrained.hub import local_folder
from transformer_jax.pretrained.publish import published, published_files, published_type
from transformer_jax.pretrained.reading import read_words
from transformer_jax.pretrained.settings import Settings


class Pretrained(NamedTuple):
    """What a checkpoint holds."""

    model: Transformer
    params: Parameters
    tokenizers: Tokenizers


def load_pretrained(
    folder: str | Path,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    mesh: Mesh | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Pretrained:
    """Model, parameters and tokenizers of a public checkpoint.

    Args:
        folder: with config.json, safetensors and the files of a tokenizer; or a name on the Hugging Face Hub.
        source_language: of a model of many languages, as it writes them: `eng_Latn`, `en_XX`, `en`.
        target_language: likewise.
        mesh: the devices that share the parameters, each of which gets its part alone; None is the default device.
        dtype: of parameters and activations.

    Raises:
        InputError: on a checkpoint that is not supported or damaged, naming the file, the setting or the tensor; and on
            languages that must be named, or are unknown.
    """
    folder = local_folder(folder)
    checkpoint = read_checkpoint(folder, mesh, dtype)
    tokenizers = read_tokenizers(folder, checkpoint.config, checkpoint.settings, (source_language, target_language))
    config = replace(checkpoint.config, start_id=tokenizers.target.special.start)
    return Pretrained(Transformer(config), checkpoint.params, tokenizers)


def read_tokenizers(
    folder: Path, config: ModelConfig, fields: dict[str, object], languages: tuple[str | None, str | None]
) -> Tokenizers:
    """The tokenizers of a folder, for a model of this config and these fields of config.json.

    Raises:
        InputError: as `load_pretrained`.
    """
    settings = Settings(fields, str(folder / "config.json"))
    family = FAMILIES[settings.text("model_type")]
    words = read_words(Files(folder), settings, config, family.table, family.frames, languages)
    return Tokenizers.of(words, str(folder))


def family_of(config: ModelConfig, tokenizers: Tokenizers) -> str:
    """The model type that a model goes out as: that of its public checkpoint, else Marian or Pegasus."""
    return published_type(config) if tokenizers.public is None else tokenizers.public.model_type


def save_pretrained(
    folder: str | Path,
    model: Transformer | ModelConfig,
    params: Parameters,
    tokenizers: Tokenizers,
    decoding: DecodingConfig | None = None,
) -> None:
    """Writes a model and its tokenizers as other libraries open them.

    What came from a public checkpoint goes out as its family. What was trained here goes out as Marian where it is
    post-norm, as Pegasus where it is pre-norm; see `published`.

    Args:
        folder: made if need be.
        model: the model, or its config.
        params: its parameters; adapters are merged.
        tokenizers: of both sides.
        decoding: how it is to be decoded, as far as other libraries can be told: the beam, and the power of the length
            that scores are divided by. None leaves it to them, or is as the public checkpoint says.

    Raises:
        InputError: where something cannot be written, and on a model that is none of the families.
    """
    folder, config = Path(folder), model.config if isinstance(model, Transformer) else model
    config, params = merged(config, params)
    public = tokenizers.public
    if public is None:
        checkpoint = published(config, params, tokenizers.target.special)
        files = published_files(checkpoint, tokenizers)
    else:
        checkpoint = Checkpoint(public.model_type, config, params, dict(public.settings))
        files = dict(public.files)
    if decoding is not None:
        files[GENERATION] = json_bytes(generation_of(files, checkpoint.settings) | told(decoding))
    if folder.exists():
        _write(folder, checkpoint, files)
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            _write(Path(beside, folder.name), checkpoint, files)
            os.replace(Path(beside, folder.name), folder)  # whole or not at all
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None


def _write(folder: Path, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
    write_checkpoint(folder, checkpoint)
    for name, data in files.items():
        write_atomically(folder / name, data)
    for name in FILES:  # of a tokenizer that was there before, one might be taken for this one's
        if name not in files:
            (folder / name).unlink(missing_ok=True)
