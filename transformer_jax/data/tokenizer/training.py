"""Tokenizers trained on the training text, the same bytes every time."""

import io
import re
from collections.abc import Iterable

import sentencepiece

from transformer_jax.config import ModelConfig, TokenizerConfig
from transformer_jax.data.tokenizer.pair import Tokenizers
from transformer_jax.data.tokenizer.sentence_piece import EOS_ID, PAD_ID, UNK_ID, SentencePiece, mask_piece
from transformer_jax.errors import InputError

_LONGEST_LINE = 2**30  # bytes; SentencePiece drops longer lines from the training text without an error


def train_tokenizers(
    config: TokenizerConfig, model: ModelConfig, sources: Iterable[str], targets: Iterable[str]
) -> Tokenizers:
    """Tokenizers of the sizes that `model` asks for, trained on both sides of the training text.

    The same text in the same order gives the same bytes.

    Raises:
        InputError: on a vocabulary larger than the text allows, or too small for its characters.
    """
    if config.joint:
        joint = _train(config, "model.vocab_size", model.vocab_size, _each(sources, targets))
        return Tokenizers(joint, joint)
    if model.source_vocab_size is None:
        source = _train(config, "model.vocab_size", model.vocab_size, sources)
    else:
        source = _train(config, "model.source_vocab_size", model.source_vocab_size, sources)
    return Tokenizers(source, _train(config, "model.vocab_size", model.vocab_size, targets))


def _each(*sides: Iterable[str]) -> Iterable[str]:
    for side in sides:
        yield from side


def _train(config: TokenizerConfig, flag: str, vocab_size: int, texts: Iterable[str]) -> SentencePiece:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=config.algorithm,
            vocab_size=vocab_size,
            character_coverage=config.character_coverage,
            split_digits=config.split_digits,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            control_symbols=[mask_piece(index) for index in range(config.masks)],
            max_sentence_length=_LONGEST_LINE,
            num_threads=1,  # the number of threads is written into the model, and sums of unigram depend on it
            minloglevel=2,  # errors come as exceptions; the rest is noise
        )
    except RuntimeError as error:
        raise InputError(_explain(flag, vocab_size, str(error))) from None
    return SentencePiece(model.getvalue())


def _explain(flag: str, vocab_size: int, message: str) -> str:
    if largest := re.search(r"set it to a value <= (\d+)", message):
        return f"{flag}={vocab_size}: more pieces than the training text allows; at most {largest[1]}"
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{flag}={vocab_size}: too few pieces for the characters of the training text; "
            f"at least {smallest[1]}, or a lower tokenizer.character_coverage"
        )
    if "insert_id" in message:
        return f"{flag}={vocab_size}: too few pieces: the special ones alone are {UNK_ID + 1}, and tokenizer.masks"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return "no tokenizer can be trained: the training text is empty"
    return f"{flag}={vocab_size}: SentencePiece cannot train on this: {' '.join(message.split())}"
