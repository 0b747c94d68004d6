"""Tiny checkpoints of every family, and what transformers gives for them; see make_checkpoints.py."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from transformer_jax import sharding
from transformer_jax.config import MeshConfig
from transformer_jax.decoding import BeamSearch, Greedy, Prefix
from transformer_jax.errors import InputError
from transformer_jax.inference import decoding_parameters, start_cache, step_model
from transformer_jax.models import Transformer
from transformer_jax.pretrained import FAMILIES, read_checkpoint, write_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
NAMES = sorted(path.name for path in FOLDER.iterdir())
BOTH_SIDES = [name for name in NAMES if name not in ("gpt2", "bert", "roberta")]
LIMIT = 9
COMPUTED = {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}


@functools.cache
def checkpoint(name):
    return read_checkpoint(FOLDER / name)


@functools.cache
def given(name):
    arrays = np.load(FOLDER / name / "outputs.npz")
    return {key: jnp.asarray(arrays[key]) for key in arrays}


def apply(name, *inputs, **options):
    own = checkpoint(name)
    return Transformer(own.config).apply({"params": own.params}, *inputs, **options)


def segments(name, tokens):
    return jnp.asarray(tokens != checkpoint(name).config.pad_id, jnp.int32)


def test_every_family_has_a_checkpoint():
    assert {json.loads((FOLDER / name / "config.json").read_text())["model_type"] for name in NAMES} == set(FAMILIES)


class TestNumbers:
    @pytest.mark.parametrize("name", BOTH_SIDES)
    def test_encoder_states_and_logits(self, name):
        source, read = given(name)["source"], given(name)["read"]
        own = segments(name, source)
        states, _ = apply(name, source, own, method="encode")
        logits, _ = apply(name, source, read, source_segments=own)
        shown = np.asarray(own) > 0
        np.testing.assert_allclose(states[shown], given(name)["states"][shown], atol=2e-5)
        shown = np.asarray(segments(name, read)) > 0
        shown[:, 0] = True  # the start, which is padding in some families
        np.testing.assert_allclose(logits[shown], given(name)["logits"][shown], atol=2e-5)

    @pytest.mark.parametrize("name", ["bert", "roberta"])
    def test_masked_tokens(self, name):
        source = given(name)["source"]
        own, types = segments(name, source), given(name)["types"]
        logits = apply(name, source, own, types=types, method="encode_logits")
        shown = np.asarray(segments(name, source)) > 0
        np.testing.assert_allclose(logits[shown], given(name)["logits"][shown], atol=2e-5)

    def test_a_decoder_alone(self):
        source = given("gpt2")["source"]
        logits, _ = apply("gpt2", source, method="decode")
        shown = np.asarray(segments("gpt2", source)) > 0
        np.testing.assert_allclose(logits[shown][:, :-1], given("gpt2")["logits"][shown], atol=2e-5)
        assert (logits[..., -1] < -1e8).all()  # our padding, which has no probability

    @pytest.mark.parametrize("name", BOTH_SIDES)
    def test_padding_changes_nothing(self, name):
        source, read = given(name)["source"], given(name)["read"]
        together, _ = apply(name, source, read, source_segments=segments(name, source))
        for row, length in enumerate((7, 5, 2)):
            alone, _ = apply(name, source[row : row + 1, :length], read[row : row + 1, :length])
            np.testing.assert_allclose(together[row, :length], alone[0], atol=1e-5)


class TestDecoding:
    def search(self, name, strategy):
        own, source = checkpoint(name), given(name)["source"]
        model, params = Transformer(own.config), decoding_parameters(own.params)
        end = own.settings["eos_token_id"]
        cache = start_cache(
            model, params, source, rows=len(source) * strategy.rows, beams=strategy.beams, capacity=LIMIT
        )
        step = step_model(model, params, end)
        return strategy.search(step, cache, jnp.full(len(source), LIMIT), max_length=LIMIT)

    @pytest.mark.parametrize("name", BOTH_SIDES)
    def test_greedy_search(self, name):
        assert np.array_equal(self.search(name, Greedy()).tokens[:, 0], given(name)["greedy"])

    @pytest.mark.parametrize("penalty", [0.6, 1.0, 2.0])
    @pytest.mark.parametrize("name", BOTH_SIDES)
    def test_a_beam_of_four(self, name, penalty):
        strategy = BeamSearch(4, length_penalty=penalty, length_offset=0.0, narrow_ends=True)
        found = self.search(name, strategy)
        assert np.array_equal(found.tokens[:, 0], given(name)[f"beam {penalty}"])
        np.testing.assert_allclose(found.scores[:, 0], given(name)[f"scores {penalty}"], atol=1e-4)

    @pytest.mark.parametrize(
        ("strategy", "kind"), [(Greedy(), "greedy"), (BeamSearch(4, 0.0, narrow_ends=True), "beam 0.0")]
    )
    def test_a_decoder_alone_goes_on_with_a_prompt(self, strategy, kind):
        """Behind its beginning, from which it starts, and one more token, which is a prefix here."""
        own, prompts = checkpoint("gpt2"), given("gpt2")["source"][:, :1]
        model, params, limit = Transformer(own.config), decoding_parameters(own.params), LIMIT + 1
        cache = start_cache(
            model, params, None, rows=len(prompts) * strategy.rows, beams=strategy.beams, capacity=limit
        )
        constraints = (Prefix(prompts, jnp.full(len(prompts), 1)),)
        step, limits = step_model(model, params, own.settings["eos_token_id"]), jnp.full(len(prompts), limit)
        found = strategy.search(step, cache, limits, max_length=limit, constraints=constraints)
        for row, expected in enumerate(given("gpt2")[kind].tolist()):
            length = int(found.lengths[row, 0])
            assert found.tokens[row, 0, :length].tolist()[1:] == [token for token in expected if token >= 0]


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["t5_v1_1", "gpt2"])
    def test_in_several_files(self, name, tmp_path):
        own = checkpoint(name)
        write_checkpoint(tmp_path, own)
        write_checkpoint(tmp_path, own, shard_bytes=4_000)
        files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
        assert len(files) > 4
        assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
        assert all(path.stat().st_size < 6_000 for path in tmp_path.glob("*.safetensors"))
        again = read_checkpoint(tmp_path)
        assert jax.tree.all(jax.tree.map(np.array_equal, again.params, own.params))
        write_checkpoint(tmp_path, own)
        assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]

    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_written_is_what_was_read(self, name, tmp_path):
        own = checkpoint(name)
        write_checkpoint(tmp_path, own)
        again = read_checkpoint(tmp_path)
        assert again.config == own.config
        assert jax.tree.all(jax.tree.map(np.array_equal, again.params, own.params))
        written, read = (
            safetensors.numpy.load_file(folder / "model.safetensors") for folder in (tmp_path, FOLDER / name)
        )
        computed = COMPUTED if own.config.positions == "halves" else set()  # which Pegasus writes
        assert written.keys() == read.keys() - computed
        for tensor, value in written.items():
            assert np.array_equal(value, read[tensor]), tensor
        assert own.settings.keys() <= again.settings.keys()

    @pytest.mark.parametrize(
        ("name", "fields", "told"),
        [
            ("marian", {"token_types": 2}, "model.token_types=2: a model of type 'marian' has 0 here"),
            ("t5", {"dropout": 0.3}, "model.attention_dropout=0.1: a model of type 't5' has 0.3 here"),
            ("bert", {"gated": True}, "model.gated=True: a model of type 'bert' has False here"),
        ],
    )
    def test_another_model_than_the_family_has(self, name, fields, told, tmp_path):
        own = checkpoint(name)
        with pytest.raises(InputError) as error:
            write_checkpoint(tmp_path, replace(own, config=replace(own.config, **fields)))
        assert str(error.value) == told
        assert not list(tmp_path.iterdir())

    def test_a_constant_that_was_trained(self, tmp_path):
        own = checkpoint("gpt2")
        params = {**own.params, "output_bias": own.params["output_bias"] + 1.0}
        with pytest.raises(InputError, match="output_bias: a GPT2LMHeadModel has no such parameter, and this one was"):
            write_checkpoint(tmp_path, replace(own, params=params))
        assert not list(tmp_path.iterdir())

    def test_bfloat16(self, tmp_path):
        own = read_checkpoint(FOLDER / "t5", dtype="bfloat16")
        assert {leaf.dtype for leaf in jax.tree.leaves(own.params)} == {jnp.dtype("bfloat16")}
        write_checkpoint(tmp_path, own)
        again = read_checkpoint(tmp_path, dtype="bfloat16")
        assert jax.tree.all(jax.tree.map(np.array_equal, again.params, own.params))


def test_several_files(tmp_path):
    tensors = safetensors.numpy.load_file(FOLDER / "bart" / "model.safetensors")
    shutil.copy(FOLDER / "bart" / "config.json", tmp_path)
    homes = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(tensors)}
    for file in set(homes.values()):
        own = {name: tensor for name, tensor in tensors.items() if homes[name] == file}
        safetensors.numpy.save_file(own, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    params = read_checkpoint(tmp_path).params
    assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("bart").params))
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-1\.safetensors: missing, though model\.safetensors\.index\.json"):
        read_checkpoint(tmp_path)


def test_each_device_gets_its_part():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=4), jax.devices())
    params = read_checkpoint(FOLDER / "marian", mesh).params
    kernel = params["encoder"]["layers"]["self_attention"]["query"]["kernel"]  # [2, 12, 12]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 3, 12)}
    assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("marian").params))


class TestOtherFormsOfTheSame:
    """Names and copies that checkpoints of earlier times have."""

    def changed(self, name, folder, change):
        shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True)
        tensors = safetensors.numpy.load_file(FOLDER / name / "model.safetensors")
        safetensors.numpy.save_file(change(tensors), folder / "model.safetensors")
        return read_checkpoint(folder).params

    def test_copies_of_the_embedding(self, tmp_path):
        def with_copies(tensors):
            shared = tensors["model.shared.weight"]
            names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
            sinusoids = {"model.encoder.embed_positions.weight": np.ones((3, 2), np.float32)}  # computed, not read
            return tensors | {name: shared.copy() for name in names} | sinusoids

        params = self.changed("marian", tmp_path, with_copies)
        assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("marian").params))

    def test_gamma_and_beta(self, tmp_path):
        def renamed(tensors):
            old = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in tensors}
            old = {name: new.replace("LayerNorm.bias", "LayerNorm.beta") for name, new in old.items()}
            return {old[name]: tensor for name, tensor in tensors.items()}

        params = self.changed("bert", tmp_path, renamed)
        assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("bert").params))

    @pytest.mark.parametrize("kept", ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"])
    def test_the_embedding_by_another_name_and_no_bias_on_the_logits(self, kept, tmp_path):
        def moved(tensors):
            tensors[kept] = tensors.pop("model.shared.weight")
            del tensors["final_logits_bias"]
            return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}  # as a BartModel has them

        params = self.changed("bart", tmp_path, moved)
        assert not params["output_bias"].any()
        expected = {**checkpoint("bart").params, "output_bias": params["output_bias"]}
        assert jax.tree.all(jax.tree.map(np.array_equal, params, expected))

    def test_an_untied_t5_without_the_shared_name(self, tmp_path):
        def moved(tensors):
            tensors["decoder.embed_tokens.weight"] = tensors.pop("shared.weight")
            return tensors

        params = self.changed("t5_v1_1", tmp_path, moved)
        assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("t5_v1_1").params))

    def test_an_untied_bart(self, tmp_path):
        shutil.copytree(FOLDER / "bart", tmp_path, dirs_exist_ok=True)
        settings = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": False}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
        tensors["lm_head.weight"] = 2 * tensors["model.shared.weight"]
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
        own = read_checkpoint(tmp_path)
        assert np.array_equal(own.params["output"]["kernel"].T, tensors["lm_head.weight"])
        write_checkpoint(tmp_path / "again", own)
        assert read_checkpoint(tmp_path / "again").config.share_embeddings == "inputs"

    def test_no_prefix(self, tmp_path):
        params = self.changed(
            "gpt2", tmp_path, lambda tensors: {name.removeprefix("transformer."): x for name, x in tensors.items()}
        )
        assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint("gpt2").params))

    def test_a_t5_that_is_tied_and_not_scaled(self, tmp_path):
        """As transformers 5 writes a model that said it was not tied."""
        shutil.copytree(FOLDER / "t5", tmp_path, dirs_exist_ok=True)
        settings = json.loads((tmp_path / "config.json").read_text())
        settings |= {"tie_word_embeddings": True, "scale_decoder_outputs": False}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        config = read_checkpoint(tmp_path).config
        assert (config.share_embeddings, config.scale_outputs) == ("all", False)
        assert checkpoint("t5").config.scale_outputs
        assert checkpoint("t5_v1_1").config.share_embeddings == "inputs"
        assert not checkpoint("t5_v1_1").config.scale_outputs


class TestRefused:
    """One line that names what is wrong, and where."""

    @pytest.fixture
    def folder(self, tmp_path):
        shutil.copytree(FOLDER / "bart", tmp_path, dirs_exist_ok=True)
        return tmp_path

    def refused(self, folder, message):
        with pytest.raises(InputError, match=message) as error:
            read_checkpoint(folder)
        assert "\n" not in str(error.value)
        assert str(folder) in str(error.value)

    def edit(self, folder, **fields):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def change(self, folder, change):
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        change(tensors)
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"model_type": "llama"}, r"config\.json: model_type='llama': not among bart, bert"),
            ({"d_model": None}, r"config\.json: d_model is missing"),
            ({"d_model": "12"}, r"config\.json: d_model='12' is no whole number"),
            ({"dropout": 7}, r"config\.json: dropout=7 is no number from 0 to 1"),
            ({"model_type": ["bart"]}, r"config\.json: model_type=\['bart'\]: not among bart, bert"),
            ({"activation_function": ["gelu"]}, r"config\.json: activation_function=\['gelu'\] is no text"),
            (
                {"encoder_layers": 0},
                r"config\.json: not the parts of a BartForConditionalGeneration: decoder/layers/cross",
            ),
            ({"decoder_start_token_id": 43}, r"ModelConfig: start_id=43 is not in the vocabulary of 43"),
            ({"activation_function": "tanh"}, r"activation_function='tanh': not among gelu"),
            ({"encoder_ffn_dim": 15}, r"encoder_ffn_dim=15 and decoder_ffn_dim=14: both sides"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_settings(self, folder, fields, message):
        self.edit(folder, **fields)
        self.refused(folder, message)

    def test_a_tensor_that_is_missing(self, folder):
        self.change(folder, lambda tensors: tensors.pop("model.decoder.layers.1.fc2.bias"))
        self.refused(
            folder, r"model\.decoder\.layers\.1\.fc2\.bias: no such tensor; config\.json asks for one of \[12\]"
        )

    def test_a_tensor_too_many(self, folder):
        self.change(folder, lambda tensors: tensors.update({"model.decoder.gate": np.ones(3, np.float32)}))
        self.refused(folder, r"model\.decoder\.gate: a tensor that a BartForConditionalGeneration does not have")

    def test_another_shape(self, folder):
        self.edit(folder, vocab_size=44)
        self.refused(folder, r"model\.shared\.weight: a tensor of \[43, 12\]; config\.json asks for \[44, 12\]")

    def test_an_output_that_is_not_tied(self, folder):
        self.change(folder, lambda tensors: tensors.update({"lm_head.weight": np.ones((43, 12), np.float32)}))
        self.refused(folder, r"lm_head\.weight: not the same as model\.shared\.weight, to which config\.json ties it")

    def test_a_file_cut_short(self, folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        self.refused(folder, r"model\.safetensors: a damaged file; download it again")

    def test_pickles(self, folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        self.refused(
            folder,
            r"pytorch_model\.bin: not opened: no safetensors, and reading a pickle can run code; where you trust it",
        )

    def test_nothing(self, folder):
        (folder / "model.safetensors").unlink()
        self.refused(folder, "no checkpoint here: neither model.safetensors nor")

    @pytest.mark.parametrize("text", ["", "[]", "{"])
    def test_no_settings(self, folder, text):
        (folder / "config.json").write_text(text)
        self.refused(folder, r"config\.json: no JSON")

    def test_no_folder(self, tmp_path):
        self.refused(tmp_path / "nowhere", r"nowhere/config\.json: no model here: No such file")

    def test_an_index_of_nonsense(self, folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')
        self.refused(folder, r"model\.safetensors\.index\.json: no list of tensors")
