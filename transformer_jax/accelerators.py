"""What accelerators can do at most, as their makers publish it."""

# (how jax calls a device begins, bfloat16 operations a second without sparsity, bytes a second of its memory)
_PEAKS = (
    ("NVIDIA B200", 2250e12, 8.0e12),
    ("NVIDIA H200", 989e12, 4.8e12),
    ("NVIDIA H100 PCIe", 756e12, 2.0e12),
    ("NVIDIA H100 NVL", 835e12, 3.9e12),
    ("NVIDIA H100", 989e12, 3.35e12),
    ("NVIDIA GH200", 989e12, 4.0e12),
    ("NVIDIA A100-SXM4-80GB", 312e12, 2.04e12),
    ("NVIDIA A100", 312e12, 1.56e12),
    ("NVIDIA L40S", 362e12, 0.86e12),
    ("NVIDIA A10", 125e12, 0.6e12),
    ("NVIDIA L4", 121e12, 0.3e12),
    ("TPU v6 lite", 918e12, 1.64e12),
    ("TPU v5 lite", 197e12, 0.82e12),
    ("TPU v5", 459e12, 2.77e12),
    ("TPU v4", 275e12, 1.23e12),
)


def peak_operations(device_kind: str) -> float | None:
    """Operations a second in bfloat16 of one device, by its `device_kind`; None where the device is not known."""
    return next((operations for name, operations, _ in _PEAKS if device_kind.startswith(name)), None)


def peak_bandwidth(device_kind: str) -> float | None:
    """Bytes a second that one device reads or writes its memory with; None where the device is not known."""
    return next((bandwidth for name, _, bandwidth in _PEAKS if device_kind.startswith(name)), None)
