"""The tokenizers of every family, by their files alone, and what transformers makes of them; see make_tokenizers.py."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.pretrained import FAMILIES
from transformer_jax.pretrained.files import Files
from transformer_jax.pretrained.folder import read_tokenizers
from transformer_jax.pretrained.new_tokens import with_tokens
from transformer_jax.pretrained.words import fairseq_table

FOLDER = Path(__file__).parent / "tokenizers"
NAMES = sorted(path.name for path in FOLDER.iterdir())
OF_LANGUAGES = [name for name in NAMES if name.startswith(("m2m", "mbart", "nllb"))]


def opened(name, *, folder=None, **languages):
    """The tokenizers of a folder, for a model of the vocabulary and the special ids of its config.json."""
    folder = folder or FOLDER / name
    fields = json.loads((folder / "config.json").read_text())
    gaps = 2  # rows of a model beyond the pieces of its tokenizer
    pad = fields["vocab_size"] if fields["model_type"] == "gpt2" else fields["pad_token_id"]  # a row of its own
    start = {"bart": 2, "mbart": 2, "m2m_100": 2}.get(fields["model_type"], pad)
    config = ModelConfig(vocab_size=fields["vocab_size"] + gaps, pad_id=pad, start_id=start)
    languages = languages or given(name)["languages"]
    return read_tokenizers(folder, config, fields, (languages.get("source_language"), languages.get("target_language")))


def given(name):
    expected = json.loads((FOLDER / name / "expected.json").read_text())
    if name == "gpt2":  # which leaves the end out; here, what is trained on has one
        expected |= {side: [[*ids, 0] for ids in expected[side]] for side in ("source", "target")}
    return expected


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_the_same_ids_and_texts(name):
    tokenizers, expected = opened(name), given(name)
    source, target = tokenizers.source, tokenizers.target
    assert list(map(source.framed, source.encode(expected["texts"]))) == expected["source"]
    read = [[target.special.start, *target.framed(ids)] for ids in target.encode(expected["texts"])]
    if name.startswith("mbart") and not name.startswith("mbart50"):  # its decoder starts from the language
        assert [[*ids[1:], ids[0]] for ids in read] == expected["target"]
    else:
        assert [ids[1:] for ids in read] == expected["target"]
    for text, ids, decoded in zip(expected["texts"], read, expected["decoded"], strict=True):
        if target.knows(ids):
            assert target.decode([ids]) == [decoded]
            if text.isascii():  # bytes of other letters are pieces of their own in some
                assert "".join(target.surfaces(ids)).strip() == decoded
    assert any(map(target.knows, read))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_run_keeps_is_the_same_tokenizer(name, tmp_path):
    tokenizers = opened(name)
    tokenizers.save(tmp_path)
    again = Tokenizers.load(tmp_path)
    assert again.digest == tokenizers.digest
    assert again.joint == tokenizers.joint
    assert again.public == tokenizers.public
    texts = given(name)["texts"]
    assert again.target.encode(texts) == tokenizers.target.encode(texts)
    assert again.source.special == tokenizers.source.special


@pytest.mark.parametrize("name", NAMES)
def test_blank_lines_and_what_is_no_text(name):
    source = opened(name).source
    assert source.encode(["", " ", "\t "]) == [[], [], []]
    with pytest.raises(InputError, match="half of a surrogate pair"):
        source.encode(["a", "\ud800"])


@pytest.mark.parametrize("name", ["mbart", "mbart50", "t5", "pegasus"])
def test_both_kinds_of_files_are_one_tokenizer(name):
    """The model and the tokenizer.json that transformers makes of it."""
    texts = given(name)["texts"]
    first, second = opened(name), opened(f"{name}_json")
    assert first.source.encode(texts) == second.source.encode(texts)
    assert replace(first.target.special, others=()) == replace(second.target.special, others=())
    ids = first.target.encode(texts)[0]
    assert first.target.pieces(ids) == second.target.pieces(ids)


@pytest.mark.parametrize("name", OF_LANGUAGES)
def test_languages(name):
    with pytest.raises(InputError, match=re.escape(f"{FOLDER / name}: source_language='tlh': not among ")):
        opened(name, source_language="tlh")
    own = given(name)["languages"]
    there = opened(name)
    back = opened(name, source_language=own["target_language"], target_language=own["source_language"])
    assert there.source.special != back.source.special
    assert there.digest != back.digest


@pytest.mark.parametrize("name", OF_LANGUAGES)
def test_a_piece_of_text_is_no_language(name):
    target = opened(name).target
    piece = next(piece for piece in target.written if piece.isalpha() and piece.islower())
    with pytest.raises(InputError, match=re.escape(f"target_language={piece!r}: not among ")):
        opened(name, **{**given(name)["languages"], "target_language": piece})


@pytest.mark.parametrize("name", ["t5", "pegasus_json", "bart", "marian"])
def test_a_language_where_there_is_no_such_choice(name):
    with pytest.raises(InputError, match="source_language='deu': it has no such choice"):
        opened(name, source_language="deu")


def test_the_earlier_tokenizer_of_nllb_is_refused(tmp_path):
    shutil.copytree(FOLDER / "nllb_json", tmp_path / "nllb")
    config = json.loads((tmp_path / "nllb" / "tokenizer_config.json").read_text())
    (tmp_path / "nllb" / "tokenizer_config.json").write_text(json.dumps({**config, "legacy_behaviour": True}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: legacy_behaviour=true"):
        opened("nllb_json", folder=tmp_path / "nllb")


@pytest.mark.parametrize("name", OF_LANGUAGES)
def test_special_tokens_write_nothing(name):
    target = opened(name).target
    (ids,) = target.encode(["a man"])
    others = [token for token in target.special.others if token not in ids]
    assert len(others) > 3
    assert target.decode([[*target.framed(ids), *others]]) == target.decode([ids])


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_around_sentences_is_not_written_in_them(name):
    """Padding above all: an encoder leaves it out."""
    source = opened(name).source
    (ids,) = source.encode(["a <pad> man </s> [PAD] <s> <|endoftext|>"])
    assert source.special.marks.isdisjoint(ids)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gpt2"])
def test_new_tokens_are_read_back_from_the_files(name, tmp_path):
    """All else stays where it was, languages too."""
    before, new = opened(name), ["<2xx>", "Qux"]
    tokenizers = Tokenizers.of(with_tokens(before.public, new))
    text = "<2xx> two men Qux"
    (ids,) = tokenizers.source.encode([text])
    (first,), (last,) = tokenizers.source.encode(new)
    assert (ids[0], ids[-1]) == (first, last)
    assert tokenizers.source.encode(["two men"])[0] == before.source.encode(["two men"])[0]
    assert before.source.encode([text])[0] != ids
    for file, data in tokenizers.public.files.items():
        (tmp_path / file).write_bytes(data)
    fields = json.loads((FOLDER / name / "config.json").read_text())
    size = max(fields["vocab_size"], *(1 + token for token in (first, last)))
    (tmp_path / "config.json").write_text(json.dumps({**fields, "vocab_size": size}))
    again = opened(name, folder=tmp_path)
    assert again.source.framed(again.source.encode([text])[0]) == tokenizers.source.framed(ids)
    assert again.source.decode([ids]) == tokenizers.source.decode([ids])
    assert again.source.decode([ids])[0].replace(" ", "") == text.replace(" ", "")
    with pytest.raises(InputError, match="new_tokens: 'Qux' is in the vocabulary already"):
        with_tokens(tokenizers.public, ["Qux"])


def test_a_language_that_nothing_names_is_asked_for():
    with pytest.raises(InputError, match="source_language must be named: it has __"):
        opened("m2m_100", target_language="de")


def test_the_target_language_of_marian_stands_before_the_source():
    tokenizers = opened("marian", target_language="fra")
    (ids,) = tokenizers.source.encode(["a man"])
    assert tokenizers.source.framed(ids) == opened("marian").source.framed(
        opened("marian").source.encode([">>fra<< a man"])[0]
    )
    with pytest.raises(InputError, match=re.escape("target_language='tlh': not among >>deu<<, >>fra<<")):
        opened("marian", target_language="tlh")


def test_what_is_missing_or_damaged_is_named(tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(FOLDER / "t5", folder)
    (folder / "spiece.model").write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(f"{folder / 'spiece.model'}: not a SentencePiece model")):
        opened("t5", folder=folder)
    (folder / "spiece.model").unlink()
    with pytest.raises(
        InputError, match=re.escape(f"{folder}: no tokenizer here: neither tokenizer.json nor source.spm")
    ):
        opened("t5", folder=folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(
        InputError, match=re.escape(f"{folder / 'tokenizer.json'}: not a file of the tokenizers library")
    ):
        opened("t5", folder=folder)
    shutil.copy(FOLDER / "bart" / "tokenizer.json", folder)
    with pytest.raises(
        InputError, match=r"tokenizer\.json: a piece with the id 299, but the model has a vocabulary of"
    ):
        opened("t5", folder=folder)


def without(piece):
    table = json.loads((FOLDER / "marian" / "vocab.json").read_text())
    return {own: token for own, token in table.items() if own != piece}


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("marian", "vocab.json", None, "vocab.json: missing; it says the ids of the pieces"),
        ("marian", "vocab.json", [1], "vocab.json: no JSON object"),
        ("marian", "vocab.json", {"a": -1}, "vocab.json: ids=[-1] is no list of ids"),
        ("marian", "vocab.json", {"a": 1, "b": 1}, "vocab.json: no table of pieces with an id each"),
        ("marian", "vocab.json", {"a": 10**12}, "vocab.json: no table of pieces with an id each"),
        ("marian", "vocab.json", without("</s>"), "the end is not in the vocabulary of its tokenizer"),
        ("marian", "vocab.json", without("<unk>"), "the unknown is not in the vocabulary of its tokenizer"),
        (
            "mbart",
            "special_tokens_map.json",
            {"additional_special_tokens": [5]},
            "additional_special_tokens: 5 is no token",
        ),
        (
            "mbart",
            "tokenizer_config.json",
            {"tokenizer_class": 5},
            "tokenizer_config.json: tokenizer_class=5 is no text",
        ),
        (
            "t5",
            "tokenizer_config.json",
            {"extra_ids": 10**9},
            "tokenizer_config.json: extra_ids=1000000000: 0 to 10,000",
        ),
        (
            "t5",
            "tokenizer_config.json",
            {"extra_ids": 500},
            "its tokenizer has 537 pieces, but the model has a vocabulary",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:-8] else "",
)
def test_odd_files_are_a_line_each(name, file, content, message, tmp_path):
    folder = tmp_path / name
    shutil.copytree(FOLDER / name, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        opened(name, folder=folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_forced_first_token_stands_before_every_target(tmp_path):
    shutil.copytree(FOLDER / "t5", tmp_path / "t5")
    for forced in (5, 10**4):
        (tmp_path / "t5" / "generation_config.json").write_text(json.dumps({"forced_bos_token_id": forced}))
        if forced == 5:
            special = opened("t5", folder=tmp_path / "t5").target.special
            assert (special.before, opened("t5").target.special.before) == ((5,), ())
    with pytest.raises(InputError, match=r"generation_config.json: forced_bos_token_id=10000: not in the vocabulary"):
        opened("t5", folder=tmp_path / "t5")


def test_an_end_that_cannot_be(tmp_path):
    for end in (10**6, 37):
        shutil.copytree(FOLDER / "marian", tmp_path / str(end))
        fields = json.loads((FOLDER / "marian" / "config.json").read_text()) | {"eos_token_id": end}
        (tmp_path / str(end) / "config.json").write_text(json.dumps(fields))
        with pytest.raises(
            InputError, match=f"config.json: eos_token_id={end}: with padding 37 and a vocabulary of 40"
        ):
            opened("marian", folder=tmp_path / str(end))


def test_a_run_whose_files_are_damaged(tmp_path):
    opened("marian").save(tmp_path)
    (tmp_path / "public.json").write_text('{"files": ["source.spm"]}')
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'public.json'}: damaged")):
        Tokenizers.load(tmp_path)
    (tmp_path / "public.json").write_text('{"files": ["none.spm"]}')
    with pytest.raises(InputError, match=r"none\.spm: cannot be read"):
        Tokenizers.load(tmp_path)


def test_tables_by_hand(tmp_path):
    """Of mBART and NLLB, and of Pegasus, whose unknown piece is 105."""
    files = Files(tmp_path)
    files.data["special_tokens_map.json"] = b'{"additional_special_tokens": ["ace_Arab", {"content": "eng_Latn"}]}'
    pieces = ["<unk>", "<s>", "</s>", "_a", "b"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    assert fairseq_table(pieces, files) == [*special, "_a", "b", "ace_Arab", "eng_Latn", "<mask>"]
    table = FAMILIES["pegasus"].table(["<pad>", "</s>", "<unk>", "_a"], files)
    assert (table[:4], table[4], table[104:]) == (
        ["<pad>", "</s>", "<mask_1>", "<mask_2>"],
        "<unk_2>",
        ["<unk_102>", "<unk>", "_a"],
    )


def test_the_whole_suite_has_every_family():
    types = {json.loads((FOLDER / name / "config.json").read_text())["model_type"] for name in NAMES}
    assert types == {"bart", "gpt2", "m2m_100", "marian", "mbart", "pegasus", "roberta", "t5"}
