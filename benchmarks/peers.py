"""Other libraries' Transformers with our weights: Hugging Face's Marian, torch.nn.Transformer, CTranslate2.

All three are post-norm, with one matrix for both embeddings and the output, and sines before cosines (`positions` of
"halves"). Their projections have biases, which are zero; the padding id embeds as zero.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import jax
import numpy as np
import torch
import transformers
from ctranslate2.specs import common_spec, transformer_spec

from benchmarks.base import EOS
from transformer_jax import ModelConfig
from transformer_jax.layers import sinusoids
from transformer_jax.models import Parameters

LONGEST = 512


def _layers(stack: Any) -> Iterator[Any]:
    """The layers of a stack, one by one, as numpy arrays."""
    depth = jax.tree.leaves(stack)[0].shape[0]
    for index in range(depth):
        yield jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), stack)


def _tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array))


def marian(config: ModelConfig, params: Parameters) -> transformers.MarianMTModel:
    """Hugging Face's Marian with our parameters, its attention by torch's scaled_dot_product_attention."""
    settings = transformers.MarianConfig(
        vocab_size=config.vocab_size,
        d_model=config.width,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.num_heads,
        decoder_attention_heads=config.num_heads,
        encoder_ffn_dim=config.ffn_width,
        decoder_ffn_dim=config.ffn_width,
        activation_function=config.activation,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        max_position_embeddings=LONGEST,
        scale_embedding=True,
        pad_token_id=config.pad_id,
        decoder_start_token_id=config.pad_id,
        eos_token_id=EOS,
        forced_eos_token_id=None,
        attn_implementation="sdpa",
    )
    model = transformers.MarianMTModel(settings)
    weights = {"model.shared.weight": params["embedding"]["table"]}
    for side in ("encoder", "decoder"):
        for index, layer in enumerate(_layers(params[side]["layers"])):
            prefix = f"model.{side}.layers.{index}"
            attentions = [("self_attn", "self_attention")]
            attentions += [("encoder_attn", "cross_attention")] if side == "decoder" else []
            for theirs, ours in attentions:
                for name in ("query", "key", "value", "out"):
                    kernel = layer[ours][name]["kernel"].T
                    projection = f"{prefix}.{theirs}.{'out' if name == 'out' else name[0]}_proj"
                    weights |= {f"{projection}.weight": kernel, f"{projection}.bias": np.zeros(len(kernel), np.float32)}
                weights |= _norm(f"{prefix}.{theirs}_layer_norm", layer[f"{ours}_frame"])
            for theirs, ours in (("fc1", "inner"), ("fc2", "outer")):
                projection = layer["feed_forward"][ours]
                weights |= {f"{prefix}.{theirs}.weight": projection["kernel"].T}
                weights |= {f"{prefix}.{theirs}.bias": projection["bias"]}
            weights |= _norm(f"{prefix}.final_layer_norm", layer["feed_forward_frame"])
    missing, unexpected = model.load_state_dict({k: _tensor(v) for k, v in weights.items()}, strict=False)
    assert not unexpected, unexpected
    for name in missing:  # the table under its other names, a bias of zero, and the sinusoids, which it makes itself
        assert any(part in name for part in ("embed_tokens", "lm_head", "final_logits_bias", "embed_positions")), name
    return model


def _norm(name: str, frame: Any) -> dict[str, Any]:
    return {f"{name}.weight": frame["norm"]["scale"], f"{name}.bias": frame["norm"]["bias"]}


class TorchTransformer(torch.nn.Module):
    """torch.nn.Transformer between the embeddings and the output, as its tutorials build it."""

    def __init__(self, config: ModelConfig, params: Parameters) -> None:
        super().__init__()
        self.pad, self.scale = config.pad_id, math.sqrt(config.width)
        self.embedding = torch.nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        self.register_buffer("positions", torch.tensor(sinusoids(LONGEST, config.width, "halves")), persistent=False)
        self.dropout = torch.nn.Dropout(config.dropout)
        sizes = (config.width, config.num_heads, config.ffn_width, config.dropout, config.activation)
        options = {"layer_norm_eps": config.norm_epsilon, "batch_first": True}
        encoder = torch.nn.TransformerEncoderLayer(*sizes, **options)
        decoder = torch.nn.TransformerDecoderLayer(*sizes, **options)
        self.encoder = torch.nn.TransformerEncoder(encoder, config.encoder_layers, enable_nested_tensor=False)
        self.decoder = torch.nn.TransformerDecoder(decoder, config.decoder_layers)
        for part in self.modules():  # which torch gives the one rate that it was given
            if isinstance(part, torch.nn.MultiheadAttention):
                part.dropout = config.attention_dropout
            elif isinstance(part, torch.nn.TransformerEncoderLayer | torch.nn.TransformerDecoderLayer):
                part.dropout.p = config.activation_dropout  # between the two products; the others are dropout1 and on
        self.output = torch.nn.Linear(config.width, config.vocab_size, bias=False)
        self.output.weight = self.embedding.weight
        self._load(params)

    def _load(self, params: Parameters) -> None:
        weights = {"embedding.weight": params["embedding"]["table"], "output.weight": params["embedding"]["table"]}
        for side in ("encoder", "decoder"):
            for index, layer in enumerate(_layers(params[side]["layers"])):
                prefix = f"{side}.layers.{index}"
                attentions = [("self_attn", "self_attention")]
                attentions += [("multihead_attn", "cross_attention")] if side == "decoder" else []
                for number, (theirs, ours) in enumerate(attentions, start=1):
                    kernels = [layer[ours][name]["kernel"].T for name in ("query", "key", "value")]
                    weights |= {f"{prefix}.{theirs}.in_proj_weight": np.concatenate(kernels)}
                    weights |= {f"{prefix}.{theirs}.out_proj.weight": layer[ours]["out"]["kernel"].T}
                    weights |= _norm(f"{prefix}.norm{number}", layer[f"{ours}_frame"])
                for theirs, ours in (("linear1", "inner"), ("linear2", "outer")):
                    projection = layer["feed_forward"][ours]
                    weights |= {f"{prefix}.{theirs}.weight": projection["kernel"].T}
                    weights |= {f"{prefix}.{theirs}.bias": projection["bias"]}
                weights |= _norm(f"{prefix}.norm{len(attentions) + 1}", layer["feed_forward_frame"])
        state = self.state_dict()
        for name, value in weights.items():
            assert state[name].shape == value.shape, name
        missing, unexpected = self.load_state_dict({k: _tensor(v) for k, v in weights.items()}, strict=False)
        assert not unexpected, unexpected
        for name in missing:
            assert name.endswith(("in_proj_bias", "out_proj.bias")), name

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scaled vectors and positions."""
        return self.dropout(self.embedding(tokens) * self.scale + self.positions[: tokens.shape[1]])

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits of the token behind each target token."""
        padding = source == self.pad
        causal = torch.triu(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=target.device), 1)
        memory = self.encoder(self.embed(source), src_key_padding_mask=padding)
        features = self.decoder(
            self.embed(target), memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=padding
        )
        return self.output(features)


def ctranslate2_model(config: ModelConfig, params: Parameters, folder: Path) -> Path:
    """Writes a CTranslate2 model with our parameters; its tokens are the ids as text, but for <pad> and </s>."""
    spec = transformer_spec.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=config.norm == "pre",
        activation=common_spec.Activation.RELU,
    )
    table = np.asarray(params["embedding"]["table"])
    for side, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        embeddings = part.embeddings[0] if side == "encoder" else part.embeddings
        embeddings.weight, part.scale_embeddings = table, True
        part.position_encodings.encodings = sinusoids(LONGEST, config.width, "halves")
        for theirs, layer in zip(part.layer, _layers(params[side]["layers"]), strict=True):
            _ctranslate2_attention(theirs.self_attention, layer, "self_attention", fused=3)
            if side == "decoder":
                _ctranslate2_attention(theirs.attention, layer, "cross_attention", fused=2)
            for projection, ours in ((theirs.ffn.linear_0, "inner"), (theirs.ffn.linear_1, "outer")):
                projection.weight = layer["feed_forward"][ours]["kernel"].T
                projection.bias = layer["feed_forward"][ours]["bias"]
            _ctranslate2_norm(theirs.ffn.layer_norm, layer["feed_forward_frame"])
    spec.decoder.projection.weight = table
    tokens = [str(index) for index in range(config.vocab_size)]
    tokens[config.pad_id], tokens[EOS] = "<pad>", "</s>"
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.decoder_start_token, spec.config.add_source_eos = "<pad>", False
    spec.config.unk_token = "<pad>"
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.validate()
    folder.mkdir()
    spec.save(str(folder))
    return folder


def _ctranslate2_attention(theirs: Any, layer: Any, name: str, fused: int) -> None:
    query, key, value, out = (layer[name][part]["kernel"].T for part in ("query", "key", "value", "out"))
    joined = [np.concatenate([query, key, value])] if fused == 3 else [query, np.concatenate([key, value])]
    for projection, kernel in zip(theirs.linear, [*joined, out], strict=True):
        projection.weight, projection.bias = np.ascontiguousarray(kernel), np.zeros(len(kernel), np.float32)
    _ctranslate2_norm(theirs.layer_norm, layer[f"{name}_frame"])


def _ctranslate2_norm(theirs: Any, frame: Any) -> None:
    theirs.gamma, theirs.beta = frame["norm"]["scale"], frame["norm"]["bias"]


def ctranslate2_translator(folder: Path, compute: str, cores: int, parallel: int = 1) -> ctranslate2.Translator:
    """A translator that uses so many cores for each of so many batches at once."""
    return ctranslate2.Translator(
        str(folder), device="cpu", compute_type=compute, intra_threads=cores // parallel, inter_threads=parallel
    )
