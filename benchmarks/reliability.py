"""What a run survives, counted: kills, signals, damage, full disks, dead peers, wrong resumes.

    python -m benchmarks.reliability [--kills 50] [--damages 100] [--seed 0]

Each row is tried with real processes of the command line on a small model (dropout on), and what holds is counted: a
run that was killed, stopped or damaged and started again must end with the metrics and the checkpoint of the run that
nothing happened to, byte for byte. About 20 minutes on 2 cores. Full disks need the right to mount a tmpfs.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "training"), str(ROOT / "tests"), str(ROOT)]

from real_processes import Processes, fingerprints, write_experiment  # noqa: E402

from transformer_jax import runs, sharding  # noqa: E402
from transformer_jax.cli.main import main as command_line  # noqa: E402
from transformer_jax.errors import MISTAKE, PEER_LOST  # noqa: E402
from transformer_jax.initialisation import abstract_parameters  # noqa: E402
from transformer_jax.training.checkpoints import Checkpoints  # noqa: E402

# Many steps, so that a run is not over before a signal is on its way; and many checkpoints.
LONG = ("--training.steps", "240", "--evaluation.every", "60", "--checkpoints.every", "7")


class Machine(NamedTuple):
    """What a run is started on."""

    processes: int = 1
    devices: int = 1  # of a process
    flags: tuple[str, ...] = ()


ONE_DEVICE = Machine()
FOUR_DEVICES = Machine(devices=4, flags=("--mesh.data", "2", "--mesh.fsdp", "2", "--mesh.tensor", "1"))
TWO_PROCESSES = Machine(processes=2)


@dataclasses.dataclass
class Row:
    """What was tried, how often, and how often it held; what did not, in words."""

    what: str
    tried: int = 0
    held: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)

    def count(self, holds: bool, otherwise: str) -> None:
        """Counts one try."""
        self.tried += 1
        self.held += holds
        if not holds:
            self.broken.append(otherwise)


class Bench:
    """The experiment, its compiled programs, and the runs that nothing happened to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        (folder / "experiments").mkdir()
        self.file = write_experiment(folder / "experiments")
        self.straight: dict[Machine, Path] = {}

    def start(self, workdir: Path, machine: Machine = ONE_DEVICE, *, cold: bool = False) -> Processes:
        """Starts the run of a folder, or goes on with it; cold, it has to compile everything first."""
        count, devices, flags = machine
        cache = Path(tempfile.mkdtemp(dir=self.folder)) if cold else self.folder / "compiled"
        return Processes(self.file, workdir, count, cache, *LONG, *flags, devices=devices)

    def finish(self, workdir: Path, machine: Machine = ONE_DEVICE) -> str:
        """Goes on until the end; what went wrong, or nothing."""
        with self.start(workdir, machine) as processes:
            codes, said = processes.end()
        return "" if set(codes) == {0} else f"codes {codes}: {said[0][-1:]}"

    def undisturbed(self, machine: Machine = ONE_DEVICE) -> Path:
        """The run on this machine that nothing happened to."""
        if machine not in self.straight:
            workdir = self.folder / f"straight-{len(self.straight)}"
            wrong = self.finish(workdir, machine)
            if wrong:
                raise SystemExit(f"the undisturbed run failed: {wrong}")
            self.straight[machine] = workdir
        return self.straight[machine]

    def same(self, workdir: Path, machine: Machine = ONE_DEVICE) -> bool:
        """Whether a finished run has the bits of the undisturbed one."""
        other = self.undisturbed(machine)
        alike = (workdir / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
        return alike and fingerprints(workdir) == fingerprints(other)


def has_stepped(said: list[list[str | None]] | list[list[str]]) -> bool:
    """Whether a process has taken a step: until then it compiles."""
    return any(line and line.startswith("step ") for lines in said for line in lines)


def kills(bench: Bench, count: int) -> Row:
    """SIGKILL at random moments: while it compiles, between steps, while it evaluates and saves."""
    row = Row("kills at random moments, survived to the bit")
    bench.undisturbed()

    def one_run(number: int, moments: list[tuple[int, float]]) -> tuple[int, str]:
        workdir, killed = bench.folder / f"killed-{number}", 0
        for step, delay in moments:
            with bench.start(workdir, cold=not step) as processes:
                processes.wait_for(f"step {step}/" if step else "training: ")
                time.sleep(delay)
                processes.all[0].kill()
                codes, said = processes.end()
                killed += codes == [-signal.SIGKILL] and (step > 0 or not has_stepped(said))
        wrong = bench.finish(workdir)
        return killed, wrong or ("" if bench.same(workdir) else "another run came out")

    plans = []
    for start in range(0, count, 10):
        steps = sorted(bench.random.sample(range(1, 120), min(10, count - start) - 2))
        moments = [(0, bench.random.uniform(0, 8)) for _ in range(2)]
        plans.append(moments + [(step, bench.random.uniform(0, 0.05)) for step in steps])
    with ThreadPoolExecutor(2) as pool:
        for moments, (killed, wrong) in zip(plans, pool.map(one_run, range(len(plans)), plans), strict=True):
            for number in range(len(moments)):
                row.count(not wrong and number < killed, f"{wrong}; {killed} of {len(moments)} killed")
    return row


PHASES = {"compiling": "validation: ", "stepping": "step 20/", "saving": "step 35/", "evaluating": "step 59/"}


def signals(bench: Bench) -> Row:
    """Every signal in every phase, one after the other in one run, on three kinds of machine."""
    row = Row("signals in every phase: saved, the right code, on to the same bits")
    machines = {"one process": ONE_DEVICE, "four devices": FOUR_DEVICES, "two processes": TWO_PROCESSES}
    for name, machine in machines.items():
        bench.undisturbed(machine)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            workdir = bench.folder / f"{name}-{number.name}"
            for phase, line in PHASES.items():
                compiling = phase == "compiling"
                with bench.start(workdir, machine, cold=compiling) as processes:
                    processes.wait_for(line)
                    time.sleep(4 if compiling else 0)  # that line is the last before it
                    early = not has_stepped(processes.lines)
                    processes.all[-1].send_signal(number)
                    codes, said = processes.end()
                told = any("saved step" in text for text in said[0])
                holds = set(codes) == {128 + number} and told and early == compiling
                row.count(holds, f"{name}, {number.name} while {phase}: codes {codes}, {said[0][-2:]}")
            wrong = bench.finish(workdir, machine)
            row.count(not wrong and bench.same(workdir, machine), f"{name}, {number.name}: {wrong or 'other bits'}")
    return row


def second_signals(bench: Bench) -> Row:
    """A second signal ends the process at once, also while it compiles."""
    row = Row("a second signal exits at once")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        with bench.start(bench.folder / f"twice-{number.name}", cold=True) as processes:
            processes.wait_for("validation: ")
            time.sleep(4)
            processes.all[0].send_signal(number)
            processes.wait_for(f"{number.name}: saving")
            processes.all[0].send_signal(number)
            codes, said = processes.end()
        holds = codes == [128 + number] and "saved step" not in str(said) and not has_stepped(said)
        row.count(holds, f"{number.name}: {codes}")
    return row


def peers(bench: Bench, count: int) -> Row:
    """Two processes, one of which is killed again and again, either of them."""
    row = Row("peers killed: the other exits by one line, and the run goes on to the same bits")
    machine = TWO_PROCESSES
    workdir = bench.folder / "peers"
    bench.undisturbed(machine)
    for step in sorted(bench.random.sample(range(1, 118), count)):
        victim = bench.random.randrange(2)
        with bench.start(workdir, machine) as processes:
            processes.wait_for(f"step {step}/")
            processes.all[victim].kill()
            codes, said = processes.end()
        errors = [line for line in said[1 - victim] if line.startswith("error: ")]
        row.count(codes[1 - victim] == PEER_LOST and len(errors) == 1, f"step {step}: codes {codes}, {errors}")
    wrong = bench.finish(workdir, machine)
    row.count(not wrong and bench.same(workdir, machine), wrong or "other bits")
    return row


def damage(bench: Bench, count: int) -> Row:
    """Bits flipped, files cut and deleted, over every file of the newest checkpoint."""
    row = Row("damaged checkpoints found, the piece named, the one before it used")
    run = bench.undisturbed()
    experiment = runs.open_run(run)
    mesh = sharding.data_mesh()
    wanted = {"parameters": abstract_parameters(experiment.model, mesh)}
    with Checkpoints(run / "checkpoints") as checkpoints:
        *_, older, newest = checkpoints.steps()
    folder = run / "checkpoints" / str(newest)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    harms = {"truncated": _truncate, "deleted": _delete, "flipped": _flip}
    tries = [(file, harm) for file in files for harm in ("truncated", "deleted")]
    tries += [(bench.random.choice(files), "flipped") for _ in range(max(count - len(tries), len(files)))]
    tries += [(file, "flipped") for file in files]
    for file, harm in tries:
        if file.stat().st_size == 0 and harm != "deleted":
            continue
        copy = bench.folder / "damaged"
        shutil.copytree(run / "checkpoints", copy)
        harms[harm](copy / file.relative_to(run / "checkpoints"), bench.random)
        with Checkpoints(copy) as checkpoints:
            verdicts = {verdict.step: verdict for verdict in checkpoints.verify()}
            restored = checkpoints.restore(wanted)
        said = verdicts[newest].damage or "intact"
        holds = restored is not None and restored.step == older and file.name in said
        row.count(holds, f"{file.relative_to(folder)} {harm}: {said}")
        shutil.rmtree(copy)
    return row


def _truncate(file: Path, random: random.Random) -> None:
    os.truncate(file, random.randrange(file.stat().st_size))


def _delete(file: Path, random: random.Random) -> None:
    file.unlink()


def _flip(file: Path, random: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:  # the run may have been quicker
        while True:
            file.write(bytes(4096))
            file.flush()
    return ballast


def begin(bench: Bench, workdir: Path) -> Path:
    """Starts a run and stops it; its checkpoints, beside it."""
    with bench.start(workdir) as processes:
        processes.wait_for("step 8/")
        processes.all[0].send_signal(signal.SIGTERM)
        processes.end()
    return (workdir / "checkpoints").rename(workdir.with_suffix(".begun"))


def disks(bench: Bench) -> Row:
    """A disk that fills up under a run; one under its checkpoints alone, with both policies."""
    row = Row("disks filled: one line or a warning, older checkpoints intact, on to the same bits")
    for name, place, flags in (
        ("run folder", "", ()),
        ("checkpoints, stop", "checkpoints", ()),
        ("checkpoints, go on", "checkpoints", ("--checkpoints.on-failure", "go_on")),
    ):
        workdir = bench.folder / name.replace(", ", "-").replace(" ", "-")
        begun = begin(bench, workdir) if place else None  # or the mount would be in the way of a run that is new
        with small_disk(workdir / place, "64m"):
            if begun is not None:
                shutil.copytree(begun, workdir / place, dirs_exist_ok=True)
            with bench.start(workdir, Machine(flags=flags)) as processes:
                processes.wait_for("step 15/")
                ballast = fill(workdir / place)
                if flags:
                    processes.wait_for("step 60/")
                    ballast.unlink()
                codes, said = processes.end()
            with Checkpoints(workdir / "checkpoints") as checkpoints:
                intact = all(verdict.damage is None for verdict in checkpoints.verify())
            ballast.unlink(missing_ok=True)
            if flags:
                row.count(codes == [0] and intact, f"{name}: codes {codes}, {said[0][-3:]}")
            else:
                errors = [line for line in said[0] if line.startswith("error: ")]
                row.count(codes == [MISTAKE] and len(errors) == 1 and intact, f"{name}: {codes}, {said[0][-3:]}")
            wrong = bench.finish(workdir)
            row.count(not wrong and bench.same(workdir), f"{name}: {wrong or 'other bits'}")
    return row


def wrong_resumes(bench: Bench) -> Row:
    """Settings, data and tokenizers that are not those of the run; the folder must stay as it was."""
    row = Row("wrong resumes refused by one line, the folder unchanged")
    run = bench.undisturbed()
    flags = [
        ["--seed", "1"],
        ["--model.dropout", "0.2"],
        ["--model.vocab-size", "13"],
        ["--model.width", "8"],
        ["--batch.rows", "8"],
        ["--batch.source-length", "17"],
        ["--schedule.peak", "0.02"],
        ["--optimizer.beta2", "0.99"],
        ["--training.epochs", "3"],
        ["--training.accumulation", "2"],
        ["--stability.max-skipped", "3"],
        ["--evaluation.every", "40"],
        ["--mesh.data", "3"],
        ["--mesh.tensor", "2"],
        ["--model.widht", "6"],
    ]
    for given in flags:
        row.count(*_refused(bench.file, run, given))
    data = bench.file.parent / "train.b"
    content = data.read_bytes()
    try:
        data.write_bytes(content.replace(b"a", b"b", 1))
        row.count(*_refused(bench.file, run, ["--training.remat", "none"]))
    finally:
        data.write_bytes(content)
    tokenizer = run / "tokenizer" / "joint.model"
    content = tokenizer.read_bytes()
    try:
        tokenizer.write_bytes(content[:-1])
        row.count(*_refused(bench.file, run, ["--training.remat", "none"]))
    finally:
        tokenizer.write_bytes(content)
    return row


def _refused(file: Path, run: Path, flags: list[str]) -> tuple[bool, str]:
    before = _digest(run)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = command_line(["train", str(file), "--workdir", str(run), *LONG, *flags])
    errors = [line for line in told.getvalue().splitlines() if line.startswith("error: ")]
    return code == MISTAKE and len(errors) == 1 and _digest(run) == before, f"{flags}: code {code}, {errors}"


def _digest(run: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in run.rglob("*") if file.is_file() and not file.name.startswith(".lock")):
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """Prints the table and one line of JSON; 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.seed)
        parts: dict[str, Callable[[], Row]] = {
            "kills": lambda: kills(bench, arguments.kills),
            "damage": lambda: damage(bench, arguments.damages),
            "signals": lambda: signals(bench),
            "second": lambda: second_signals(bench),
            "peers": lambda: peers(bench, 4),
            "disks": lambda: disks(bench),
            "resumes": lambda: wrong_resumes(bench),
        }
        rows = []
        for name, part in parts.items():
            if not arguments.only or name in arguments.only:
                rows.append(part())
                print(f"| {rows[-1].what} | {rows[-1].held} of {rows[-1].tried} |", flush=True)
                for broken in rows[-1].broken:
                    print(f"    {broken}", flush=True)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "jax": jax.__version__}
    print(json.dumps({**machine, "rows": [dataclasses.asdict(row) for row in rows]}))
    return int(any(row.held < row.tried for row in rows))


if __name__ == "__main__":
    sys.exit(main())
