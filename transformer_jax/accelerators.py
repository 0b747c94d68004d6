"""What accelerators can do at most, as their makers publish it."""

# How jax calls a device begins: (bfloat16 operations a second without sparsity, bytes a second of its memory).
_PEAKS = {
    "NVIDIA A10": (125e12, 0.6e12),
    "NVIDIA A10G": (70e12, 0.6e12),
    "NVIDIA A100": (312e12, 1.56e12),
    "NVIDIA A100 80GB PCIe": (312e12, 1.94e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
    "NVIDIA B200": (2250e12, 8.0e12),
    "NVIDIA GH200 480GB": (989e12, 4.0e12),
    "NVIDIA GH200 144G": (989e12, 4.9e12),
    "NVIDIA H100": (989e12, 3.35e12),
    "NVIDIA H100 NVL": (835e12, 3.9e12),
    "NVIDIA H100 PCIe": (756e12, 2.0e12),
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA H200 NVL": (835e12, 4.8e12),
    "NVIDIA L4": (121e12, 0.3e12),
    "NVIDIA L40": (181e12, 0.864e12),
    "NVIDIA L40S": (362e12, 0.864e12),
    "TPU v4": (275e12, 1.23e12),
    "TPU v4 lite": (138e12, 0.614e12),
    "TPU v5": (459e12, 2.77e12),
    "TPU v5 lite": (197e12, 0.82e12),
    "TPU v5e": (197e12, 0.82e12),
    "TPU v5p": (459e12, 2.77e12),
    "TPU v6 lite": (918e12, 1.64e12),
    "TPU v6e": (918e12, 1.64e12),
}

# Short names, such as h100, a100-80gb-pcie or v5e, of the devices above.
SHORT_NAMES = {kind.split(" ", 1)[1].lower().replace(" ", "-"): kind for kind in _PEAKS}


def peak_operations(device_kind: str) -> float | None:
    """Operations a second in bfloat16 of one device, by its `device_kind`; None where the device is not known."""
    return _peaks(device_kind)[0]


def peak_bandwidth(device_kind: str) -> float | None:
    """Bytes a second that one device reads or writes its memory with; None where the device is not known."""
    return _peaks(device_kind)[1]


def _peaks(device_kind: str) -> tuple[float, float] | tuple[None, None]:
    known = [name for name in _PEAKS if device_kind.startswith(name)]
    return _PEAKS[max(known, key=len)] if known else (None, None)
