"""Makes the tiny tokenizers beside this file, by transformers: `python make_tokenizers.py`.

Of each family the files as its checkpoints have them, and what transformers makes of a few texts: ids of both sides,
and the text of these ids again. Needs transformers, sentencepiece and protobuf, which the tests do not all.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import transformers

FOLDER = Path(__file__).parent / "tokenizers"
ENGLISH = ["two men ride a horse", "a man rides two horses", "the horse rides a man, and two men"] * 5
GERMAN = ["zwei Männer reiten ein Pferd", "ein Mann reitet zwei Pferde", "das Pferd reitet einen Mann"] * 5
TEXTS = ["two horses ride", "ein Pferd, zwei Männer", "the Ω man", "a"]
MARIAN_LANGUAGES = [">>deu<<", ">>fra<<"]
M2M_LANGUAGES = transformers.models.m2m_100.tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES["m2m100"]
LANGUAGES = {
    "mbart": transformers.models.mbart.tokenization_mbart.FAIRSEQ_LANGUAGE_CODES,
    "mbart50": transformers.models.mbart50.tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES,
    "nllb": transformers.models.nllb.tokenization_nllb.FAIRSEQ_LANGUAGE_CODES,
}


def model(texts: list[str], size: int = 47, **fields: Any) -> bytes:
    """A SentencePiece model of these texts."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **{"model_type": "unigram", "normalization_rule_name": "identity", **fields},  # whose tables are large
    )
    return written.getvalue()


def pieces(data: bytes) -> list[str]:
    """The pieces of a model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def write(name: str, files: dict[str, Any]) -> Path:
    """A folder with these files."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, content in files.items():
        data = content if isinstance(content, bytes) else (json.dumps(content, ensure_ascii=False) + "\n").encode()
        (folder / file).write_bytes(data)
    return folder


def tell(folder: Path, tokenizer: Any, config: dict[str, Any], **languages: str) -> None:
    """What the tokenizer makes of the texts, and config.json."""
    source = tokenizer(TEXTS)["input_ids"]
    target = tokenizer(text_target=TEXTS)["input_ids"]
    decoded = [tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in target]
    found = {"texts": TEXTS, "languages": languages, "source": source, "target": target, "decoded": decoded}
    size = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    config = {"vocab_size": size, "pad_token_id": tokenizer.pad_token_id, **config}
    (folder / "config.json").write_text(json.dumps(config, sort_keys=True) + "\n")
    (folder / "expected.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")
    print(folder.name, size, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def marian() -> None:
    """Two models, one table of pieces."""
    source, target = model(ENGLISH), model(GERMAN)
    table = ["</s>", "<unk>", *MARIAN_LANGUAGES]
    table += [piece for piece in dict.fromkeys(pieces(source) + pieces(target)) if not piece.startswith("<")]
    ids = {piece: token for token, piece in enumerate([*table, "<pad>"])}
    folder = write("marian", {"source.spm": source, "target.spm": target, "vocab.json": ids})
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder, source_lang="eng", target_lang="deu")
    global TEXTS
    TEXTS = [*TEXTS, ">>fra<< a man"]
    tell(folder, tokenizer, {"model_type": "marian", "eos_token_id": 0, "decoder_start_token_id": ids["<pad>"]})
    TEXTS = TEXTS[:-1]


def m2m_100() -> None:
    """A model, a table of pieces, and languages behind them."""
    data = model(ENGLISH + GERMAN, 53)
    table = ["<s>", "<pad>", "</s>", "<unk>", *pieces(data)[3:]]
    special = [f"__{code}__" for code in M2M_LANGUAGES]
    folder = write(
        "m2m_100",
        {
            "sentencepiece.bpe.model": data,
            "vocab.json": {piece: token for token, piece in enumerate(table)},
            "special_tokens_map.json": {"additional_special_tokens": special},
            "tokenizer_config.json": {"tokenizer_class": "M2M100Tokenizer"},
        },
    )
    tokenizer = transformers.M2M100Tokenizer.from_pretrained(folder, src_lang="en", tgt_lang="de")
    tell(folder, tokenizer, {"model_type": "m2m_100"}, source_language="en", target_language="de")


def of_languages(name: str, model_type: str, kind: str, source: str, target: str) -> None:
    """mBART, mBART-50 and NLLB, by a SentencePiece model; and by the tokenizer.json that is made of it."""
    data = model(ENGLISH + GERMAN, 53, model_type="bpe" if name == "nllb" else "unigram")
    special = {"additional_special_tokens": LANGUAGES[name]}
    folder = write(
        name,
        {
            "sentencepiece.bpe.model": data,
            "special_tokens_map.json": special,
            "tokenizer_config.json": {"tokenizer_class": kind, **special},
        },
    )
    tokenizer = getattr(transformers, kind).from_pretrained(folder, src_lang=source, tgt_lang=target)
    config = {"model_type": model_type, "eos_token_id": 2}
    if name == "nllb":  # of so small a model transformers counts one piece more
        shutil.rmtree(folder)
    else:
        tell(folder, tokenizer, config, source_language=source, target_language=target)
    as_json(name, tokenizer, config, source_language=source, target_language=target)


def as_json(name: str, tokenizer: Any, config: dict[str, Any], **languages: str) -> None:
    """The same tokenizer as a tokenizer.json."""
    folder = FOLDER / f"{name}_json"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save_pretrained(folder)
    tell(folder, tokenizer, config, **languages)


def of_model(name: str, kind: str, config: dict[str, Any], **fields: Any) -> None:
    """T5 and Pegasus, by a SentencePiece model; and by the tokenizer.json that is made of it."""
    data = model(ENGLISH + GERMAN, 53, **fields)
    folder = write(name, {"spiece.model": data, "tokenizer_config.json": {"tokenizer_class": kind}})
    tokenizer = getattr(transformers, kind).from_pretrained(folder)
    tell(folder, tokenizer, config)
    as_json(name, tokenizer, config)


def byte_level(name: str, special: list[str]) -> Path:
    """The tokenizer.json of a byte-level BPE."""
    own = tokenizers.ByteLevelBPETokenizer()
    own.train_from_iterator(ENGLISH + GERMAN, vocab_size=300, special_tokens=special, show_progress=False)
    folder = write(name, {})
    own._tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def main() -> None:
    """All of them."""
    marian()
    m2m_100()
    of_languages("mbart", "mbart", "MBartTokenizer", "en_XX", "de_DE")
    of_languages("mbart50", "mbart", "MBart50Tokenizer", "en_XX", "de_DE")
    of_languages("nllb", "m2m_100", "NllbTokenizer", "eng_Latn", "deu_Latn")
    t5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    of_model("t5", "T5Tokenizer", {"model_type": "t5", "eos_token_id": 1}, **t5)
    of_model("pegasus", "PegasusTokenizer", {"model_type": "pegasus", "eos_token_id": 1}, **t5)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    for kind in ("bart", "roberta"):
        folder = byte_level(kind, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        (folder / "tokenizer_config.json").write_text(json.dumps({**marks, "cls_token": "<s>", "sep_token": "</s>"}))
        architecture = transformers.BartTokenizer if kind == "bart" else transformers.RobertaTokenizer
        tell(folder, architecture.from_pretrained(folder), {"model_type": kind, "eos_token_id": 2})
    folder = byte_level("gpt2", ["<|endoftext|>"])
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder, pad_token="<|endoftext|>")
    tell(folder, tokenizer, {"model_type": "gpt2", "eos_token_id": 0})


if __name__ == "__main__":
    main()
