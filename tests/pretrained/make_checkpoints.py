"""Makes the tiny checkpoints beside this file, by transformers: `python make_checkpoints.py [NAME ...]`.

Of each family a model of random weights, far from those that a fresh one has, norms, biases and offsets included; what
it gives for a padded batch: encoder states, logits, and where it decodes the outputs of greedy search and of a beam of
4 with their scores. Needs torch and transformers, which the tests do not.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

FOLDER = Path(__file__).parent / "checkpoints"
WORDS, LONGEST, LIMIT = 43, 19, 9
PENALTIES = (0.6, 1.0, 2.0)
FAIRSEQ = {
    "vocab_size": WORDS,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 14,
    "decoder_ffn_dim": 14,
    "max_position_embeddings": LONGEST,
}
T5 = {
    "vocab_size": WORDS,
    "d_model": 10,
    "d_kv": 3,
    "d_ff": 14,
    "num_layers": 3,
    "num_decoder_layers": 2,  # its cache has no room for more than the first
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "decoder_start_token_id": 0,
}
BERT = {
    "vocab_size": WORDS,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 14,
    "max_position_embeddings": LONGEST,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "marian": (
        "MarianConfig",
        "MarianMTModel",
        {
            **FAIRSEQ,
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": WORDS - 1,
            "decoder_start_token_id": WORDS - 1,
            "eos_token_id": 0,
        },
    ),
    "m2m_100": ("M2M100Config", "M2M100ForConditionalGeneration", {**FAIRSEQ, "scale_embedding": True}),
    "bart": ("BartConfig", "BartForConditionalGeneration", FAIRSEQ),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", {**FAIRSEQ, "scale_embedding": True}),
    "pegasus": (
        "PegasusConfig",
        "PegasusForConditionalGeneration",
        {**FAIRSEQ, "scale_embedding": True, "activation_function": "relu"},
    ),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "t5_v1_1": ("T5Config", "T5ForConditionalGeneration", {**T5, **GATED}),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", {**T5, **GATED}),
    "umt5": ("UMT5Config", "UMT5ForConditionalGeneration", {**T5, **GATED}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": WORDS, "n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": LONGEST}
        | {"bos_token_id": WORDS - 1, "eos_token_id": WORDS - 1},
    ),
    "bert": ("BertConfig", "BertForMaskedLM", BERT),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", BERT),
}


def randomise(model: Any, untied: bool, seed: int) -> None:
    """Weights and biases, norms and offsets of the model, far from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    sharp = ("attn.q_proj.weight",) if model.config.model_type == "marian" else ()
    if untied:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(WORDS, model.config.d_model))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            sinusoids = "embed_positions" in name and model.config.model_type in ("marian", "m2m_100", "pegasus")
            if sinusoids or value.dtype != torch.float32:
                continue
            noise = torch.randn(value.shape, generator=generator)
            norm = "norm" in name.lower() or ".ln_" in name
            # Of T5, whose products of queries and keys are not scaled, and of Marian, whose norms come last: sharper,
            # they would magnify every rounding, by more than what logits may be off.
            spread = 0.1 if name.endswith(("Attention.q.weight", *sharp)) else 0.5
            value.copy_(1 + 0.3 * noise if norm and name.endswith("weight") else spread * noise)


def save(model: Any, folder: Path, untied: bool) -> None:
    """config.json and model.safetensors, each tensor once."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if all(value.data_ptr() != other.data_ptr() for other in found.values()):
            found[name] = value.contiguous()
    safetensors.torch.save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    fields = json.loads(model.config.to_json_string(use_diff=True))
    if untied:  # as the checkpoints of before transformers 5 say it
        fields["tie_word_embeddings"] = False
        fields.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def batch(pad: int, end: int, rows: int = 3, length: int = 7, seed: int = 1) -> np.ndarray:
    """Rows of 7, 5 and 2 tokens, ends included, padded on the right."""
    ids = [token for token in range(3, WORDS - 2) if token not in (pad, end)]
    tokens = np.random.default_rng(seed).choice(ids, (rows, length))
    for row, used in enumerate((7, 5, 2)):
        tokens[row, used - 1] = end
        tokens[row, used:] = pad
    return tokens


def outputs(model: Any) -> dict[str, np.ndarray]:
    """Inputs, and what the model gives for them."""
    config = model.config
    pad = WORDS if config.pad_token_id is None else config.pad_token_id
    end = {"bert": 2, "roberta": 2}.get(config.model_type, config.eos_token_id)
    source = batch(pad, end)
    target = batch(pad, end, seed=2)
    mask = torch.tensor(source != pad)
    tokens = torch.tensor(np.where(source == pad, 0 if pad == WORDS else pad, source))
    if config.model_type == "gpt2":
        found = {"source": source, "logits": model(input_ids=tokens, attention_mask=mask).logits.numpy()}
        return found | continued(model, source, config.eos_token_id)
    if not config.is_encoder_decoder:
        types = np.tile(np.arange(source.shape[1]) % config.type_vocab_size, (len(source), 1))
        logits = model(input_ids=tokens, attention_mask=mask, token_type_ids=torch.tensor(types)).logits
        return {"source": source, "types": types, "logits": logits.numpy()}
    read = np.roll(target, 1, axis=1)
    read[:, 0] = start_of(config)
    given = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.tensor(read))
    found = {"source": source, "read": read, "states": given.encoder_last_hidden_state.numpy()}
    found["logits"] = given.logits.numpy()
    return found | generated(model, tokens, mask, pad)


def start_of(config: Any) -> int:
    """What the decoder starts from."""
    start = config.decoder_start_token_id
    return config.eos_token_id if start is None else start


def generated(model: Any, tokens: torch.Tensor, mask: torch.Tensor, pad: int) -> dict[str, np.ndarray]:
    """Greedy search, and a beam of 4 by each length penalty: ids behind the start, and scores."""
    options: dict[str, Any] = {
        "max_new_tokens": LIMIT,
        "do_sample": False,
        "bad_words_ids": [[pad]],
        "forced_eos_token_id": None,
        "forced_bos_token_id": None,
        "decoder_start_token_id": start_of(model.config),
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=pad, eos_token_id=model.config.eos_token_id, decoder_start_token_id=start_of(model.config)
    )
    end = model.config.eos_token_id
    greedy = model.generate(input_ids=tokens, attention_mask=mask, num_beams=1, **options)
    found = {"greedy": until(end, pad, greedy.sequences)}
    for penalty in PENALTIES:
        # Every open hypothesis is followed to the end, as here: early_stopping is "never".
        beams = {"num_beams": 4, "length_penalty": penalty, "early_stopping": "never"}
        given = model.generate(input_ids=tokens, attention_mask=mask, **beams, **options)
        found[f"beam {penalty}"] = until(end, pad, given.sequences)
        found[f"scores {penalty}"] = given.sequences_scores.numpy()
    return found


def continued(model: Any, prompts: np.ndarray, end: int) -> dict[str, np.ndarray]:
    """What GPT-2 says behind a beginning and the first token of each prompt, as `generated` has it.

    A beam's scores are not divided by lengths, in which a prompt does not count there.
    """
    options: dict[str, Any] = {"max_new_tokens": LIMIT, "do_sample": False, "pad_token_id": end, "eos_token_id": end}
    starts = torch.tensor(np.concatenate([np.full((len(prompts), 1), end), prompts[:, :1]], axis=1))
    options |= {"attention_mask": torch.ones_like(starts)}
    greedy = model.generate(starts, num_beams=1, **options)
    beam = model.generate(starts, num_beams=4, length_penalty=0.0, early_stopping="never", **options)
    return {"greedy": cut(greedy[:, 2:], end), "beam 0.0": cut(beam[:, 2:], end)}


def cut(sequences: torch.Tensor, end: int) -> np.ndarray:
    """Ids up to the end, and behind them -1."""
    tokens = np.full((len(sequences), LIMIT), -1)
    for row, ids in enumerate(sequences.tolist()):
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        tokens[row, : len(ids)] = ids
    return tokens


def until(end: int, pad: int, sequences: torch.Tensor) -> np.ndarray:
    """Ids behind the start up to the end, and padding: where that is 0, a beam search fills with the end instead."""
    tokens = np.full((len(sequences), LIMIT), pad)
    for row, ids in enumerate(sequences[:, 1:].tolist()):
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        tokens[row, : len(ids)] = ids
    return tokens


def telling(found: dict[str, np.ndarray], pad: int) -> bool:
    """Whether the beam's outputs end, in several lengths, and change with the length penalty; true without any."""
    if "beam 1.0" not in found:
        return "greedy" not in found or len({int(n) for n in (found["beam 0.0"] >= 0).sum(1)}) == 3
    beams = [found[f"beam {penalty}"] for penalty in PENALTIES]
    lengths = {int(length) for beam in beams for length in (beam != pad).sum(1)}
    return len(lengths) >= 3 and min(lengths) < LIMIT and not np.array_equal(beams[0], beams[-1])


def main() -> None:
    """All families."""
    torch.set_grad_enabled(False)
    for name in sys.argv[1:] or MODELS:
        config, architecture, fields = MODELS[name]
        untied = fields.get("tie_word_embeddings") is False
        for seed in range(500):
            model = getattr(transformers, architecture)(getattr(transformers, config)(**fields)).eval()
            randomise(model, untied, seed)
            found = outputs(model)
            if telling(found, model.config.pad_token_id):
                break
        else:
            raise SystemExit(f"{name}: no seed whose outputs differ in length")
        save(model, FOLDER / name, untied)
        np.savez(FOLDER / name / "outputs.npz", **found)
        print(name, sum(path.stat().st_size for path in (FOLDER / name).iterdir()), "bytes")


if __name__ == "__main__":
    main()
