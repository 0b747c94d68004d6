"""Where a checkpoint lies: a folder, or by its name on the Hugging Face Hub."""

import re
from pathlib import Path

from transformer_jax.errors import InputError

_WANTED = ("*.safetensors", "*.json", "*.spm", "*.model", "*.txt")
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?")


def local_folder(name: str | Path) -> Path:
    """The folder of a checkpoint, fetched where `name` is no folder but may be a name on the Hub.

    Args:
        name: a folder, `owner/name`, or `owner/name@revision`.

    Raises:
        InputError: where there is no such folder and it cannot be fetched, or has no safetensors there.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    named = _NAME.fullmatch(str(name))
    if named is None:
        raise InputError(f"{name}: no such folder")
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name}: no such folder; to fetch what has this name on the Hub: pip install 'transformer-jax[hub]'"
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(named[1], revision=named[2], allow_patterns=list(_WANTED)))
    except Exception as error:  # of the network, the disk, the Hub: whatever it is, it cannot be fetched
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{name}: no such folder, and it cannot be fetched from the Hub: {reason[0] if reason else error!r}"
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{name}: has no safetensors on the Hub; name a revision that has ({named[1]}@refs/pr/1, say), or open it "
            "by AutoModel.from_pretrained of transformers, whose save_pretrained writes them"
        )
    return folder
