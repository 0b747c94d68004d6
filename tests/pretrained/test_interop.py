"""What we write, opened by transformers; skipped where the extra "interop" is not installed."""

from pathlib import Path

import numpy as np
import pytest

from transformer_jax.pretrained import FAMILIES, read_checkpoint, write_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


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
