"""Text to ids and back: tokenizers trained here, and those of public checkpoints."""

from transformer_jax.data.tokenizer.base import SPACE, SpecialTokens, Tokenizer, is_text
from transformer_jax.data.tokenizer.json_tokenizer import JsonTokenizer
from transformer_jax.data.tokenizer.pair import Tokenizers
from transformer_jax.data.tokenizer.public import Public, PublicSide
from transformer_jax.data.tokenizer.sentence_piece import EOS_ID, OWN, PAD_ID, UNK_ID, SentencePiece
from transformer_jax.data.tokenizer.training import train_tokenizers

__all__ = [
    "EOS_ID",
    "OWN",
    "PAD_ID",
    "SPACE",
    "UNK_ID",
    "JsonTokenizer",
    "Public",
    "PublicSide",
    "SentencePiece",
    "SpecialTokens",
    "Tokenizer",
    "Tokenizers",
    "is_text",
    "train_tokenizers",
]
