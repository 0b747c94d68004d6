"""Where a checkpoint lies: a folder, or by its name on the Hugging Face Hub."""

import re
from pathlib import Path

from transformer_jax.errors import InputError

_WANTED = ("*.safetensors", "*.json", "*.spm", "*.model", "*.txt")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(name: str | Path) -> Path:
    """The folder of a checkpoint, fetched where `name` is no folder but may be a name on the Hub.

    Raises:
        InputError: where there is no such folder and it cannot be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _NAME.fullmatch(str(name)):
        raise InputError(f"{name}: no such folder")
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name}: no such folder; to fetch what has this name on the Hub: pip install 'transformer-jax[hub]'"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=list(_WANTED)))
    except Exception as error:  # of the network, the disk, the Hub: whatever it is, it cannot be fetched
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{name}: no such folder, and it cannot be fetched from the Hub: {reason[0] if reason else error!r}"
        ) from None
