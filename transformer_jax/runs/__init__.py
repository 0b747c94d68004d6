"""The run folder: the experiment file it starts from, what it holds, the record of its sessions, its lock."""

from transformer_jax.runs.experiment_file import load_experiment
from transformer_jax.runs.folder import (
    RunFolder,
    check_digests,
    has_trained,
    open_run,
    read_sessions,
    record_session,
    recorded_digests,
    start,
)
from transformer_jax.runs.lock import InUseError, is_in_use, lock

__all__ = [
    "InUseError",
    "RunFolder",
    "check_digests",
    "has_trained",
    "is_in_use",
    "load_experiment",
    "lock",
    "open_run",
    "read_sessions",
    "record_session",
    "recorded_digests",
    "start",
]
