"""What a run starts from: a public checkpoint or another run, with what its experiment changes of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transformer_jax.adapters import merged, without
from transformer_jax.config import Experiment, ModelConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import digest_of
from transformer_jax.initialisation import abstract_parameters, initialise
from transformer_jax.models import Parameters
from transformer_jax.pretrained import read_checkpoint
from transformer_jax.pretrained.checkpoint import read_config
from transformer_jax.pretrained.folder import read_tokenizers
from transformer_jax.pretrained.hub import local_folder
from transformer_jax.pretrained.new_tokens import with_tokens
from transformer_jax.runs import RunFolder, has_trained, open_run
from transformer_jax.training import manifest
from transformer_jax.translation import load_tokenizers, read_parameters

# What an experiment says of a model that comes with its weights; all other fields are those of the checkpoint.
OWN = ("dropout", "attention_dropout", "activation_dropout", "lora_rank", "lora_alpha", "lora_on", "dtype")
HEAD = ("classes", "pooling")  # likewise: what a classifier has in place of what makes logits of words


@dataclasses.dataclass(frozen=True)
class Initial:
    """A checkpoint to start from: of a run, or a public one."""

    folder: Path
    model: ModelConfig
    tokenizers: Tokenizers
    run: Experiment | None  # of a run

    def parameters(self, mesh: Mesh) -> Parameters:
        """Those of the checkpoint, on the devices that keep them."""
        if self.run is None:
            return read_checkpoint(self.folder, mesh).params
        return merged(self.run.model, read_parameters(RunFolder(self.folder), self.run, mesh)[0])[1]

    def digest(self) -> str:
        """The identity of its weights, in hex."""
        files = self.folder.glob("*.safetensors" if self.run is None else f"checkpoints/*/{manifest.NAME}")
        return hashlib.sha256(" ".join(map(digest_of, sorted(files))).encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def initial_of(experiment: Experiment) -> Initial:
    """What an experiment with `init_from` starts from.

    Raises:
        InputError: where there is no such checkpoint, or not all of it; on languages that must be named or are unknown.
    """
    assert experiment.init_from is not None
    path = Path(experiment.init_from)
    if RunFolder(path).config.exists() and RunFolder(path).checkpoints.is_dir():
        run = open_run(path)
        return Initial(path, without(run.model), load_tokenizers(RunFolder(path)), run)
    folder, own = local_folder(path), experiment.finetuning
    config, fields = read_config(folder)
    tokenizers = read_tokenizers(folder, config, fields, (own.source_language, own.target_language))
    model = dataclasses.replace(config, start_id=tokenizers.target.special.start)
    return Initial(folder, model, tokenizers, None)


def resolved(experiment: Experiment, workdir: str | Path | None = None) -> Experiment:
    """The experiment with the model that it starts from, where it has `init_from`; that of its run, where it has begun.

    Raises:
        InputError: naming a field of the model that is another one than the checkpoint's; and as `initial_of`.
    """
    if experiment.init_from is None:
        return experiment
    if workdir is not None and has_trained(RunFolder(workdir)):
        base = open_run(workdir).model
    else:
        initial = initial_of(experiment)
        base = dataclasses.replace(initial.model, vocab_size=tokenizers_of(experiment).target.vocab_size)
    return dataclasses.replace(experiment, model=_model(experiment.model, base))


def _model(asked: ModelConfig, base: ModelConfig) -> ModelConfig:
    default = ModelConfig()
    if asked.classes:  # on top of an encoder, of whatever it was a part
        base = dataclasses.replace(base, decoder_layers=0, output_head=False, output_bias=False)
    for field in dataclasses.fields(ModelConfig):
        own, theirs = getattr(asked, field.name), getattr(base, field.name)
        if field.name not in OWN + HEAD and own not in (getattr(default, field.name), theirs):
            raise InputError(f"model.{field.name}={own!r}: what init_from names has {theirs!r}; leave it out")
    return dataclasses.replace(base, **{name: getattr(asked, name) for name in OWN + HEAD})


def tokenizers_of(experiment: Experiment) -> Tokenizers:
    """The tokenizers that a run starts with, its new tokens among their pieces.

    Raises:
        InputError: on new tokens for tokenizers that were trained here, and on one that is there already.
    """
    tokenizers, tokens = initial_of(experiment).tokenizers, experiment.finetuning.new_tokens
    if not tokens:
        return tokenizers
    if tokenizers.public is None:
        raise InputError(f"finetuning.new_tokens={tokens}: only the tokenizers of public checkpoints take new ones")
    return Tokenizers.of(with_tokens(tokenizers.public, tokens), str(experiment.init_from))


def parameters_of(experiment: Experiment, mesh: Mesh, digest: str | None = None) -> Parameters:
    """The parameters that a run starts with: those of the checkpoint, new words as the mean of all, the rest fresh.

    Adapters and the head of a classifier are what is new; what the model does not have is left out.

    Args:
        experiment: of the run, with its model.
        mesh: the devices that share them.
        digest: what the weights have to be; None is any.

    Raises:
        InputError: on a checkpoint that is damaged or at odds with its config, and on other weights.
    """
    initial = initial_of(experiment)
    if digest is not None and (found := initial.digest()) != digest:
        raise InputError(
            f"{experiment.init_from}: not the weights that the run started from: {found}, recorded {digest}"
        )
    params = initial.parameters(mesh)
    new, wanted = _new_ids(experiment), abstract_parameters(experiment.model, mesh)
    if not new and _places(params) == _places(wanted):
        return params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)
    complete = functools.partial(_completed, experiment.model, jax.random.key(experiment.seed), new)
    completed: Parameters = jax.jit(complete, out_shardings=shardings)(params)
    return completed


def _places(params: Parameters) -> list[Any]:
    return [path for path, _ in jax.tree.flatten_with_path(params)[0]]


def _new_ids(experiment: Experiment) -> list[int]:
    tokens, target = experiment.finetuning.new_tokens, tokenizers_of(experiment).target
    return [ids[0] for ids in target.encode(tokens)]


def _completed(model: ModelConfig, key: jax.Array, new: Sequence[int], params: Parameters) -> Parameters:
    """Fresh parameters with all that there is in their places, and the mean of all words in those of new ones."""
    known = dict(jax.tree.flatten_with_path(params)[0])

    def complete(path: Any, box: Any) -> jax.Array:
        leaf: jax.Array = nn.meta.unbox(box)
        if path not in known:
            return leaf
        old = known[path]
        if not new or "vocab" not in box.names:
            return old
        axis = box.names.index("vocab")
        rows, mean = jnp.moveaxis(old, axis, 0), jnp.mean(old, axis)
        rows = jnp.concatenate([rows, jnp.zeros((leaf.shape[axis] - len(rows), *rows.shape[1:]), rows.dtype)])
        return jnp.moveaxis(rows.at[jnp.array(new)].set(mean), 0, axis)

    boxed = initialise(model, key)
    completed: Parameters = jax.tree.map_with_path(
        complete, boxed, is_leaf=lambda node: isinstance(node, nn.LogicallyPartitioned)
    )
    return completed
