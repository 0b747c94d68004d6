"""Translates lines with what `transformer-jax export` wrote: `python run_exported.py FOLDER < in.en > out.de`."""

import sys
from pathlib import Path

import jax.numpy as jnp
import sentencepiece
from jax import export

folder, lines = Path(sys.argv[1]), sys.stdin.read().split("\n")[:-1]
weights = list(jnp.load(folder / "parameters.npz").values())
translate = export.deserialize(bytearray((folder / "translate.jax_export").read_bytes()))
source, target = (
    sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model")) for side in ("source", "target")
)
rows = [[*ids, source.eos_id()] for ids in source.encode(lines)]
longest = translate.in_avals[-1].shape[1]
assert max(map(len, rows)) <= longest, f"a line is longer than {longest} tokens: split it"
tokens, lengths, scores = translate.call(
    weights, jnp.array([row + [0] * (longest - len(row)) for row in rows], jnp.int32)
)
outputs = zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True)
print("\n".join(target.decode([[t for t in row[:length] if t != target.eos_id()] for row, length in outputs])))
