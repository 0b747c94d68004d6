"""Checkpoints as transformers writes them, a folder each, to our parameters and back."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import safetensors.numpy
from jax.sharding import Mesh

from transformer_jax import sharding
from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically, written_whole
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.models import Parameters
from transformer_jax.pretrained.bart import BART, MBART
from transformer_jax.pretrained.bert import BERT, ROBERTA
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.gpt2 import GPT2
from transformer_jax.pretrained.m2m_100 import M2M_100
from transformer_jax.pretrained.marian import MARIAN
from transformer_jax.pretrained.names import Name, Tensor, check, flat, nested, tensors_of
from transformer_jax.pretrained.pegasus import PEGASUS
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.t5 import MT5, T5, UMT5
from transformer_jax.pretrained.tensors import INDEX, WHOLE, Tensors

FAMILIES = {
    "bart": BART,
    "bert": BERT,
    "gpt2": GPT2,
    "m2m_100": M2M_100,
    "marian": MARIAN,
    "mbart": MBART,
    "mt5": MT5,
    "pegasus": PEGASUS,
    "roberta": ROBERTA,
    "t5": T5,
    "umt5": UMT5,
}


_OF_A_MODEL = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
SHARD_BYTES = 2**31  # few files, also of the largest models


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model of a family, in our terms."""

    model_type: str  # of its config.json
    config: ModelConfig
    params: Parameters
    settings: dict[str, Any]  # all that config.json says


def read_checkpoint(
    folder: str | Path, mesh: Mesh | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
) -> Checkpoint:
    """The model of a folder with config.json and safetensors.

    Args:
        folder: the folder.
        mesh: the devices that share the parameters, each of which gets its part alone; None is the default device.
        dtype: of parameters and activations.

    Raises:
        InputError: on a family or a setting that is not supported, and on tensors that are missing, left over, damaged,
            or at odds with config.json.
    """
    folder = Path(folder)
    mesh = sharding.data_mesh(1) if mesh is None else mesh
    with _opened(folder) as opened:
        family, settings, tensors = opened
        with _told(folder):
            config = dataclasses.replace(family.config(settings, _is_untied(family, tensors)), dtype=dtype)
            sharding.check_mesh(mesh, config)
            names = family.names(config)
            abstract = flat(abstract_parameters(config, mesh))
            _check_parts(family, config, names, abstract)
            known = check(names, {path: leaf.shape for path, leaf in abstract.items()}, tensors.shapes)
            _check_rest(family, tensors, known)
        placed = dict(_placed(names, tensors, abstract, family.constants(config), dtype))
        leaves = {path: placed[path] for path in abstract}
    return Checkpoint(settings.text("model_type"), config, nested(leaves), settings.fields)


def read_config(folder: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The config of the model of such a folder, and all that its config.json says; reads no weights.

    Raises:
        InputError: as `read_checkpoint`, but for the tensors.
    """
    folder = Path(folder)
    with _opened(folder) as (family, settings, tensors), _told(folder):
        return family.config(settings, _is_untied(family, tensors)), settings.fields


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[tuple[Family, Settings, Tensors]]:
    settings = _settings(folder)
    model_type = settings.get("model_type", None)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(f"{settings.origin}: model_type={model_type!r}: not among {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[model_type]
    with Tensors(folder, family.canonical, family.aliases) as tensors:
        yield family, settings, tensors


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Mistakes name the folder."""
    try:
        yield
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(str(folder)) else f"{folder}: {told}") from None


def _check_parts(family: Family, config: ModelConfig, names: list[Name], abstract: dict[str, Any]) -> None:
    """Every parameter of the model has a tensor, or is a constant, and every tensor a parameter."""
    odd = {name.ours for name in names} ^ (abstract.keys() - family.constants(config).keys())
    if odd:
        raise InputError(
            f"config.json: not the parts of a {family.architecture}: {min(odd)} is in one of the two alone"
        )


def _is_untied(family: Family, tensors: Tensors) -> bool:
    """Whether the output has a matrix of its own, whatever config.json says: transformers 5 writes that none has."""
    name = "lm_head.weight"
    tied = name not in tensors.shapes or name not in family.aliases or tensors.same(name, family.aliases[name])
    return not tied


def _settings(folder: Path) -> Settings:
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: no model here: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: no JSON; download it again") from None
    if not isinstance(fields, dict):
        raise InputError(f"{path}: no JSON object; download it again")
    return Settings(fields, str(path))


def _check_rest(family: Family, tensors: Tensors, known: set[str]) -> None:
    """Every tensor that is not read is known to be computed, or holds what another one does."""
    for name in sorted(tensors.shapes.keys() - known):
        if any(re.fullmatch(pattern, name) for pattern in family.ignored):
            continue
        if name not in family.aliases:
            raise InputError(f"{name}: a tensor that a {family.architecture} does not have")
        if not tensors.same(name, family.aliases[name]):
            raise InputError(f"{name}: not the same as {family.aliases[name]}, to which config.json ties it")


def _placed(
    names: list[Name],
    tensors: Tensors,
    abstract: dict[str, jax.ShapeDtypeStruct],
    constants: dict[str, np.ndarray],
    dtype: str,
) -> Iterator[tuple[str, jax.Array]]:
    """Each parameter on its devices; one at a time is in the memory of the host, the largest while the rest is not."""
    by_path = {name.ours: name for name in names}
    for path, wanted in sorted(abstract.items(), key=lambda item: -item[1].size):
        if path in constants:
            leaf = constants[path]
        elif by_path[path].optional and by_path[path].theirs not in tensors.shapes:
            leaf = np.zeros(wanted.shape)
        else:
            leaf = by_path[path].leaf(tensors.read)
        leaf = leaf.astype(dtype, copy=False)
        yield path, jax.block_until_ready(jax.make_array_from_callback(leaf.shape, wanted.sharding, leaf.__getitem__))
        tensors.release()


def _check_family(family: Family, model_type: str, config: ModelConfig, fields: dict[str, Any]) -> None:
    """What is written reads back as the same model."""
    again = family.config(Settings(fields), config.share_embeddings == "inputs")
    again = dataclasses.replace(again, dtype=config.dtype)
    for field in dataclasses.fields(config):
        ours, theirs = (getattr(one, field.name) for one in (_explicit(config), _explicit(again)))
        if ours != theirs:
            raise InputError(f"model.{field.name}={ours!r}: a model of type {model_type!r} has {theirs!r} here")


def _explicit(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        config,
        start_id=config.start,
        head_width=config.channels,
        kv_heads=config.key_value_heads,
        initialisation="glorot",  # on which no trained model depends
    )


def write_checkpoint(folder: str | Path, checkpoint: Checkpoint, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes config.json and safetensors into a folder, which is made if need be.

    Args:
        folder: the folder.
        checkpoint: the model.
        shard_bytes: bytes of tensors in a file at most, and what is in memory at a time beside the parameters; a model
            that has more is in several files, and an index.

    Raises:
        InputError: where they cannot be written, and on a model that is none of its family.
    """
    folder, config = Path(folder), checkpoint.config
    family = FAMILIES[checkpoint.model_type]
    leaves = flat(checkpoint.params)
    fields = checkpoint.settings | family.settings(config)
    fields |= {"architectures": [family.architecture], "dtype": str(next(iter(leaves.values())).dtype)}
    fields.pop("torch_dtype", None)  # what "dtype" was called before
    _check_family(family, checkpoint.model_type, config, fields)
    for path, constant in family.constants(config).items():
        if not np.array_equal(np.asarray(leaves[path]), constant.astype(leaves[path].dtype)):
            raise InputError(f"{path}: a {family.architecture} has no such parameter, and this one was changed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
    _write_tensors(folder, tensors_of(family.names(config)), leaves, shard_bytes)
    write_atomically(folder / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _write_tensors(folder: Path, tensors: dict[str, Tensor], leaves: dict[str, Any], shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        size = tensor.size(leaves)
        if size > room and shards[-1]:
            shards, room = [*shards, []], shard_bytes
        shards[-1].append(name)
        room -= size
    files = [f"model-{place:05}-of-{len(shards):05}.safetensors" for place in range(1, len(shards) + 1)]
    files = [WHOLE] if len(shards) == 1 else files
    for file, names in zip(files, shards, strict=True):
        with written_whole(folder / file) as temporary:
            made = {name: tensors[name].of(leaves) for name in names}
            safetensors.numpy.save_file(made, temporary, metadata={"format": "pt"})
    if len(shards) > 1:
        homes = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = sum(tensor.size(leaves) for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": homes}
        write_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    _remove_others(folder, {*files, *([INDEX] if len(shards) > 1 else [])})


def _remove_others(folder: Path, written: set[str]) -> None:
    """Removes the files of a model that was there before, of which one would be taken for this one."""
    for path in folder.iterdir():
        if path.name not in written and _OF_A_MODEL.fullmatch(path.name):
            path.unlink()
