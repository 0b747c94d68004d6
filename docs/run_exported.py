"""Translates lines with what `transformer-jax export` wrote: `python run_exported.py FOLDER < in.en > out.de`."""

import sys
from pathlib import Path

import jax.numpy as jnp
import sentencepiece
from jax import export

folder, text = Path(sys.argv[1]), sys.stdin.buffer.read().decode()
weights = list(jnp.load(folder / "parameters.npz").values())
translate = export.deserialize(bytearray((folder / "translate.jax_export").read_bytes()))
source, target = (
    sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model")) for side in ("source", "target")
)
rows = [[*source.encode(line), source.eos_id()] for line in (text.removesuffix("\n").split("\n") if text else [])]
longest = translate.in_avals[-1].shape[1]
assert all(len(row) <= longest for row in rows), f"a line is longer than {longest} tokens: split it"
padded = jnp.array([row + [0] * (longest - len(row)) for row in rows], jnp.int32).reshape(-1, longest)
outputs = translate.call(weights, padded)[0][:, 0].tolist() if rows else []
print("".join(f"{target.decode([token for token in row if token > 1])}\n" for row in outputs), end="")
