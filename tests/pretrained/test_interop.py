"""What we write, opened by transformers; skipped where the extra "interop" is not installed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from whole import TOKENIZERS, write_whole

from transformer_jax.config import (
    BatchConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    LoggingConfig,
    ModelConfig,
    Numerals,
    Schedule,
    TrainingConfig,
)
from transformer_jax.data.sources import load_pairs
from transformer_jax.pretrained import FAMILIES, load_pretrained, read_checkpoint, save_pretrained, write_checkpoint
from transformer_jax.runs import RunFolder
from transformer_jax.sharding import data_mesh
from transformer_jax.training.loop import train
from transformer_jax.translation import Line, Translator, read_parameters

FOLDER = Path(__file__).parent / "checkpoints"
GREEDY = DecodingConfig(beam=1)
WHOLE = {
    "bart": {},
    "m2m_100": {"source_language": "en", "target_language": "de"},
    "marian": {},
    "mbart_json": {"source_language": "en_XX", "target_language": "de_DE"},
    "mbart50_json": {"source_language": "en_XX", "target_language": "de_DE"},
    "nllb_json": {"source_language": "eng_Latn", "target_language": "deu_Latn"},
    "pegasus_json": {},
    "t5_json": {},
}

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def numerals(norm):
    """Numbers below 2,000 in a model that learns most of them in a minute."""
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "width": 64, "num_heads": 4, "ffn_width": 128}
    return Experiment(
        data=Numerals(limit=2_000, test_numbers=100, validation_numbers=50),
        batch=BatchConfig(rows=32, source_length=64, target_length=64),
        model=ModelConfig(vocab_size=180, norm=norm, dropout=0.0, **sizes),
        schedule=Schedule(kind="linear", peak=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=400),
        evaluation=EvaluationConfig(every=400, translations=0),
        logging=LoggingConfig(tensorboard=False),
        decoding=GREEDY,
    )


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_transformers_gives_the_same(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    own, given = read_checkpoint(FOLDER / name), np.load(FOLDER / name / "outputs.npz")
    write_checkpoint(tmp_path, own)
    architecture = getattr(transformers, FAMILIES[own.model_type].architecture)
    model, report = architecture.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert all("embed_positions" in key for key in report["missing_keys"])  # sinusoids, which it computes
    source = given["source"]
    shown = source != own.config.pad_id
    inputs = {"input_ids": torch.tensor(np.where(shown, source, 0 if name == "gpt2" else own.config.pad_id))}
    inputs["attention_mask"] = torch.tensor(shown)
    if "types" in given:
        inputs["token_type_ids"] = torch.tensor(given["types"])
    if "read" in given:
        inputs["decoder_input_ids"] = torch.tensor(given["read"])
    with torch.no_grad():
        logits = model.eval()(**inputs).logits.numpy()
    np.testing.assert_array_equal(logits, given["logits"])


def test_a_model_trained_here_translates_the_same_everywhere(tmp_path):
    """Numerals, trained a little: greedy in transformers, in CTranslate2 and here, and come back."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    ctranslate2 = pytest.importorskip("ctranslate2")
    for norm in ("post", "pre"):
        run, folder = tmp_path / f"{norm} run", tmp_path / norm
        experiment = numerals(norm)
        assert train(experiment, run) == 0
        mine = Translator.from_run(run, decoding=GREEDY)
        save_pretrained(
            folder, experiment.model, read_parameters(RunFolder(run), experiment, data_mesh())[0], mine.tokenizers
        )
        pairs = load_pairs(experiment.data, "test")
        lines = pairs.sources
        expected = mine.translate(lines)
        assert sum(own == right for own, right in zip(expected, pairs.targets, strict=True)) > len(lines) // 2
        assert Translator.from_pretrained(folder).translate(lines) == expected

        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            given = model.generate(**tokenizer(lines, return_tensors="pt", padding=True), max_new_tokens=99)
        assert tokenizer.batch_decode(given, skip_special_tokens=True) == expected

        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(folder / "ct2"))
        translator = ctranslate2.Translator(str(folder / "ct2"))
        pieces = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(lines)["input_ids"]]
        found = translator.translate_batch(pieces, beam_size=1, max_decoding_length=99)
        ids = [tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in found]
        assert tokenizer.batch_decode(ids, skip_special_tokens=True) == expected


@pytest.mark.parametrize("name", sorted(path.name for path in TOKENIZERS.iterdir() if path.name in WHOLE))
def test_what_goes_out_opens_whole(name, tmp_path):
    """Model and tokenizer by the Auto classes, and what they make of a line, with the settings that came along."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    languages = WHOLE[name]
    model, params, tokenizers = load_pretrained(write_whole(name, tmp_path / "in"), **languages)
    save_pretrained(tmp_path / "out", model, params, tokenizers)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    codes = {theirs_name: code for theirs_name, code in zip(("src_lang", "tgt_lang"), languages.values(), strict=False)}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", **codes)
    line = "two horses ride"
    source = tokenizers.source.framed(tokenizers.source.encode([line])[0])
    inputs = tokenizer(line, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == source
    special = tokenizers.target.special
    options = {"forced_bos_token_id": special.before[0]} if special.before else {}
    options |= {"decoder_start_token_id": special.start, "max_new_tokens": 9, "num_beams": 1, "do_sample": False}
    options |= {"eos_token_id": special.eos, "pad_token_id": special.pad, "bad_words_ids": [[special.pad]]}
    with torch.no_grad():
        given = theirs.generate(**inputs, **options)[0, 1:].tolist()
    decoding = replace(GREEDY, extra_length=max(9 - len(source), 1))
    (mine,) = Translator(model.config, params, tokenizers, decoding).stream([Line(line)])
    (part,) = mine.hypotheses[0].parts
    length = min(len(given), len(part.target))
    assert length > len(special.before)  # which is forced on both
    assert given[:length] == list(part.target)[:length]
