import re
from pathlib import Path

import pytest

from transformer_jax.config import ModelConfig, TokenizerConfig
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, SentencePiece, Tokenizers, train_tokenizers
from transformer_jax.errors import InputError

SOURCES = ["two men ride a horse", "a man rides two horses", "the horse rides a man"] * 5
TARGETS = ["zwei Männer reiten ein Pferd", "ein Mann reitet zwei Pferde", "das Pferd reitet einen Mann"] * 5


def train(vocab_size: int = 61, source_vocab_size: int | None = None, **fields) -> Tokenizers:
    share = "target" if source_vocab_size else "all"
    model = ModelConfig(vocab_size=vocab_size, source_vocab_size=source_vocab_size, share_embeddings=share)
    return train_tokenizers(TokenizerConfig(**fields), model, SOURCES, TARGETS)


@pytest.mark.parametrize(("algorithm", "vocab_size"), [("bpe", 61), ("unigram", 31)])
def test_training_is_deterministic_and_reads_back_what_it_wrote(algorithm: str, vocab_size: int, tmp_path: Path):
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        train(vocab_size, algorithm=algorithm).source.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tokenizer = SentencePiece.load(paths[0])
    assert tokenizer.vocab_size == vocab_size
    ids = tokenizer.encode(SOURCES + TARGETS)
    assert tokenizer.decode(ids) == SOURCES + TARGETS
    assert {PAD_ID, EOS_ID, UNK_ID}.isdisjoint(token for sentence in ids for token in sentence)


def test_special_ids_are_fixed_and_not_decoded():
    tokenizer = train().source
    assert tokenizer.pieces([PAD_ID, EOS_ID, UNK_ID]) == ["<pad>", "</s>", "<unk>"]
    (ids,) = tokenizer.encode(["a horse"])
    assert tokenizer.decode([[PAD_ID, *ids, EOS_ID, PAD_ID], []]) == ["a horse", ""]
    assert "".join(tokenizer.pieces(ids)) == "▁a▁horse"
    assert UNK_ID in tokenizer.encode(["Ω"])[0]


def test_what_every_piece_writes():
    """In a text that was read, the unknown stands for letters; as it is written, it is a word of its own."""
    tokenizer = train().source
    ids = tokenizer.framed([*tokenizer.encode(["a"])[0], UNK_ID])
    assert tokenizer.surfaces(ids) == [" a", " \u2047 ", ""]
    assert tokenizer.surfaces(ids, written=False) == [" a", "\u2047", ""]


def test_white_space_alone_has_no_ids():
    assert train().source.encode(["", " ", "\t\u00a0 "]) == [[], [], []]


def test_joint_vocabulary_is_one_object_and_survives_saving(tmp_path: Path):
    tokenizers = train()
    tokenizers.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["joint.model"]
    loaded = Tokenizers.load(tmp_path)
    assert tokenizers.source is tokenizers.target
    assert loaded.source is loaded.target
    assert loaded.digest == tokenizers.digest


def test_separate_vocabularies_have_their_own_sizes_and_survive_saving(tmp_path: Path):
    tokenizers = train(43, 37, joint=False)
    tokenizers.save(tmp_path / "new folder")
    loaded = Tokenizers.load(tmp_path / "new folder")
    assert (loaded.source.vocab_size, loaded.target.vocab_size) == (37, 43)
    assert loaded.digest == tokenizers.digest
    assert Tokenizers(loaded.target, loaded.source).digest != loaded.digest


def test_split_digits_makes_every_digit_a_piece():
    texts = ["1984 1984 1984 84"] * 5
    config = TokenizerConfig(split_digits=True)
    tokenizer = train_tokenizers(config, ModelConfig(vocab_size=8), texts, []).source
    assert tokenizer.pieces(tokenizer.encode(["1984"])[0]) == ["▁", "1", "9", "8", "4"]


def test_a_line_of_many_bytes_is_not_left_out_of_training():
    long_line = "Ω " * 50_000
    tokenizer = train_tokenizers(TokenizerConfig(), ModelConfig(vocab_size=5), [long_line], []).source
    assert UNK_ID not in tokenizer.encode(["Ω"])[0]


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_too_large_a_vocabulary_names_the_largest_which_works(algorithm: str):
    with pytest.raises(InputError, match=r"^model\.vocab_size=9973: .*at most \d+$") as error:
        train(9973, algorithm=algorithm)
    largest = int(re.findall(r"\d+", str(error.value))[-1])
    assert train(largest, algorithm=algorithm).source.vocab_size == largest


def test_too_small_a_vocabulary_names_the_smallest_which_works():
    with pytest.raises(InputError, match=r"^model\.vocab_size=5: too few pieces .*at least \d+") as error:
        train(5)
    smallest = int(re.search(r"at least (\d+)", str(error.value))[1])
    assert train(smallest).source.vocab_size == smallest


def test_mistakes_of_one_side_name_its_own_flag():
    with pytest.raises(InputError, match=r"^model\.source_vocab_size=9973"):
        train(43, 9973, joint=False)
    with pytest.raises(InputError, match=r"^model\.vocab_size=2: too few pieces"):
        train(2)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_empty_training_text_is_refused(texts: list[str]):
    with pytest.raises(InputError, match="the training text is empty"):
        train_tokenizers(TokenizerConfig(), ModelConfig(), texts, texts)


def test_missing_and_foreign_tokenizers_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: no tokenizer here")):
        Tokenizers.load(tmp_path)
    train(43, 37, joint=False).save(tmp_path)
    (tmp_path / "target.model").unlink()
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'target.model'}: no tokenizer here")):
        Tokenizers.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x0a\x03abc"])
def test_bytes_that_are_no_model_are_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "joint.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: not a SentencePiece model")):
        Tokenizers.load(tmp_path)


def test_a_model_with_other_special_ids_is_refused(tmp_path: Path):
    import sentencepiece

    with (tmp_path / "joint.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SOURCES), model_writer=file, vocab_size=37, model_type="bpe", minloglevel=2
        )
    with pytest.raises(InputError, match=r"joint\.model: a SentencePiece model with the special ids .*'unk': 0"):
        Tokenizers.load(tmp_path)
