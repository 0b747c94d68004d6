"""An experiment as data: frozen dataclasses, checked as they are made. Imports no jax.

A field is of one of two kinds. An *identity* field changes the numbers of a run: a resume with another value is
refused. A *placement* field says where or how the run happens and may differ on a resume. The comment behind a field
is its `--help` text.
"""

from transformer_jax.config.data import BatchConfig, TokenizerConfig
from transformer_jax.config.debug import debug_variant
from transformer_jax.config.decoding import DecodingConfig
from transformer_jax.config.experiment import Experiment, from_json, identity_difference, identity_of, to_json
from transformer_jax.config.filters import FilterConfig
from transformer_jax.config.finetuning import FinetuningConfig
from transformer_jax.config.machine import LoggingConfig, MeshConfig, ProcessesConfig
from transformer_jax.config.mixture import MixtureConfig, Task
from transformer_jax.config.model import ModelConfig
from transformer_jax.config.objectives import (
    CausalLanguageModel,
    Classification,
    Denoising,
    MaskedLanguageModel,
    ObjectiveConfig,
    PrefixLanguageModel,
    SpanCorruption,
    Translation,
    reads_pairs,
)
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
from transformer_jax.config.sources import (
    DataConfig,
    HuggingFaceDataset,
    JsonLines,
    Numerals,
    OwnData,
    Parquet,
    PlainText,
    SacrebleuSet,
    TensorflowDataset,
    TextFiles,
    TsvFiles,
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
    "CausalLanguageModel",
    "CheckpointConfig",
    "Classification",
    "DataConfig",
    "DecodingConfig",
    "Denoising",
    "EvaluationConfig",
    "Experiment",
    "FilterConfig",
    "FinetuningConfig",
    "HuggingFaceDataset",
    "JsonLines",
    "Lion",
    "LoggingConfig",
    "MaskedLanguageModel",
    "MeshConfig",
    "MixtureConfig",
    "ModelConfig",
    "Muon",
    "Numerals",
    "ObjectiveConfig",
    "OptimizerConfig",
    "OwnData",
    "PaperSchedule",
    "Parquet",
    "PlainText",
    "PrefixLanguageModel",
    "ProcessesConfig",
    "SacrebleuSet",
    "Schedule",
    "ScheduleConfig",
    "ScheduleFree",
    "SpanCorruption",
    "StabilityConfig",
    "Task",
    "TensorflowDataset",
    "TextFiles",
    "TokenizerConfig",
    "TrainingConfig",
    "Translation",
    "TsvFiles",
    "debug_variant",
    "from_json",
    "identity_difference",
    "identity_of",
    "reads_pairs",
    "to_json",
]
