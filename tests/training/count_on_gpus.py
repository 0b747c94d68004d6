"""Prints, as JSON, the collectives of a step on two GPUs that share one copy of the parameters."""

import json

import jax
from parallel import ROWS, SOURCE, TARGET, TIED, make_batch

from transformer_jax.config import BatchConfig, Experiment, MeshConfig, Numerals, TrainingConfig
from transformer_jax.programs import collectives, moved_by_kind
from transformer_jax.sharding import make_mesh
from transformer_jax.training.step import Trainer

trainer = Trainer(
    Experiment(
        data=Numerals(),
        model=TIED,
        batch=BatchConfig(rows=ROWS, source_length=SOURCE, target_length=TARGET),
        training=TrainingConfig(steps=10),
    ),
    make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2]),
    total_steps=10,
)
step = trainer.train_step.lower(trainer.abstract_state, make_batch(), trainer.asked(0)).compile()
print(json.dumps(moved_by_kind(collectives(step.as_text()))))
