"""What a run is made with: versions, the commit, the processor."""

import contextlib
import importlib.metadata
import platform
import subprocess

_VERSIONS_OF = (
    "transformer-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "sentencepiece",
    "sacrebleu",
)


def versions() -> dict[str, str | None]:
    """The versions of Python and of the packages on which the numbers of a run depend."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS_OF}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a source folder
        return None


def commit() -> str | None:
    """The commit of the working directory's repository, with -dirty where tracked files differ; None without one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def processor() -> str:
    """The model of the host's processor, on whose vector units the bits of a run on the CPU depend."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
