"""Real processes of the command line, on loopback, and the small run that they train."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from reversed_words import write_pairs

from transformer_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
TIMEOUT = 10  # seconds after which a peer counts as dead

EXPERIMENT = """
from transformer_jax.config import *

def get_config():
    return Experiment(
        data=TextFiles(dir={dir!r}, train=("train.a", "train.b"), validation=("held.a", "held.b")),
        batch=BatchConfig(rows=4, source_length=13, target_length=11),
        model=ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=1, ffn_width=10, vocab_size=12),
        schedule=Schedule(kind="constant", peak=1e-2, warmup_steps=3),
        training=TrainingConfig(steps=48),
        evaluation=EvaluationConfig(every=24, translations=0),
        checkpoints=CheckpointConfig(every=8, newest=2),
        decoding=DecodingConfig(beam=1, extra_length=3),
        logging=LoggingConfig(every=1, tensorboard=False),
    )
"""


def write_experiment(folder):
    """The file of an experiment of forty-eight quick steps, beside its data; 13 lines are evaluated."""
    write_pairs(folder, "train", 53, seed=1)
    write_pairs(folder, "held", 13, seed=2)  # on two processes the last batch is ragged
    file = folder / "reversed_words.py"
    file.write_text(EXPERIMENT.format(dir=str(folder)))
    return file


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """The processes of one start of a run; their standard error is read as it comes."""

    def __init__(self, file, workdir, count, cache, *flags, devices=1, of_the_others=()):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "transformer_jax.cli.main", "train", str(file), "--workdir", str(workdir)]
        if count > 1:
            command += ["--processes.coordinator", f"127.0.0.1:{free_port()}", "--processes.count", str(count)]
            command += ["--processes.timeout", str(TIMEOUT)]
        self.all = [
            subprocess.Popen(
                [*command, *_index(index, count), *flags, *(of_the_others if index else ())],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]
        self.lines = [[] for _ in self.all]
        self.arrived = threading.Condition()
        self.readers = [threading.Thread(target=self.read, args=(index,)) for index in range(count)]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.all:
            process.kill()  # SIGTERM is what a run survives
            process.wait()
        for reader in self.readers:
            reader.join()
        for process in self.all:
            process.stderr.close()

    def read(self, index):
        for line in self.all[index].stderr:
            with self.arrived:
                self.lines[index].append(line.rstrip("\n"))
                self.arrived.notify_all()
        with self.arrived:
            self.lines[index].append(None)  # the end
            self.arrived.notify_all()

    def wait_for(self, beginning, index=0):
        """Returns when a line of the process begins so."""

        def seen():
            lines = self.lines[index]
            return None in lines or any(line.startswith(beginning) for line in lines)

        with self.arrived:
            self.arrived.wait_for(seen)
            assert any(line and line.startswith(beginning) for line in self.lines[index]), self.lines

    def end(self, timeout=None):
        """The exit codes, and what each process said."""
        codes = [process.wait(timeout) for process in self.all]
        for reader in self.readers:
            reader.join()
        said = [[line for line in lines if line and not line.startswith("[Gloo]")] for lines in self.lines]
        return codes, said


def _index(index, count):
    return ["--processes.index", str(index)] if count > 1 else []


def fingerprints(workdir):
    """Of every leaf of every item of the last checkpoint: 64 bits that change with any bit."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.leaves(checkpoints.steps()[-1])
