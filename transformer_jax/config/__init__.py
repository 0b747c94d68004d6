"""An experiment as data: frozen dataclasses, checked as they are made. Imports no jax.

A field is of one of two kinds. An *identity* field changes the numbers of a run: a resume with another value is
refused. A *placement* field says where or how the run happens and may differ on a resume. The comment behind a field
is its `--help` text.
"""

from transformer_jax.config.data import (
    BatchConfig,
    DataConfig,
    Numerals,
    TensorflowDataset,
    TextFiles,
    TokenizerConfig,
    TsvFiles,
)
from transformer_jax.config.decoding import DecodingConfig
from transformer_jax.config.experiment import Experiment, from_json, identity_difference, to_json
from transformer_jax.config.finetuning import FinetuningConfig
from transformer_jax.config.machine import LoggingConfig, MeshConfig, ProcessesConfig
from transformer_jax.config.model import ModelConfig
from transformer_jax.config.optimizer import (
    Adafactor,
    Adam,
    AdamW,
    Lion,
    Muon,
    OptimizerConfig,
    PaperSchedule,
    Schedule,
    ScheduleConfig,
    ScheduleFree,
)
from transformer_jax.config.training import (
    CheckpointConfig,
    EvaluationConfig,
    StabilityConfig,
    TrainingConfig,
)

__all__ = [
    "Adafactor",
    "Adam",
    "AdamW",
    "BatchConfig",
    "CheckpointConfig",
    "DataConfig",
    "DecodingConfig",
    "EvaluationConfig",
    "Experiment",
    "FinetuningConfig",
    "Lion",
    "LoggingConfig",
    "MeshConfig",
    "ModelConfig",
    "Muon",
    "Numerals",
    "OptimizerConfig",
    "PaperSchedule",
    "ProcessesConfig",
    "Schedule",
    "ScheduleConfig",
    "ScheduleFree",
    "StabilityConfig",
    "TensorflowDataset",
    "TextFiles",
    "TokenizerConfig",
    "TrainingConfig",
    "TsvFiles",
    "from_json",
    "identity_difference",
    "to_json",
]
