"""Where a run happens, and what it shows: all of it placement."""

from transformer_jax.checked import config, require, require_positive


@config
class MeshConfig:
    """Devices along each axis of the mesh; one of them may be -1: all that remain."""

    data: int = -1  # copies of the model, each with a share of the batch
    fsdp: int = 1  # devices that share one copy of parameters and optimizer, and the batch too
    tensor: int = 1  # devices that share each matrix product; divides num_heads

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(size > 0 or size == -1 for size in sizes), f"mesh {sizes}: every axis is above 0, or -1")
        require(sizes.count(-1) <= 1, f"mesh {sizes}: only one axis may be -1")


@config
class ProcessesConfig:
    """The processes of a run; under SLURM, Open MPI, JobSet and on Cloud TPUs jax finds all but `timeout` itself."""

    coordinator: str | None = None  # HOST:PORT of the first process
    count: int | None = None  # number of processes
    index: int | None = None  # of this one, from 0
    timeout: int = 100  # seconds without a sign of life after which a process counts as dead

    def __post_init__(self) -> None:
        given = {"coordinator": self.coordinator, "count": self.count, "index": self.index}
        missing = [name for name, value in given.items() if value is None]
        require(
            len(missing) in (0, 3), f"{', '.join(missing)}: missing; coordinator, count and index go together, or none"
        )
        if self.coordinator is not None and self.count is not None and self.index is not None:
            host, _, port = self.coordinator.rpartition(":")
            require(bool(host) and port.isdigit(), f"coordinator={self.coordinator!r} must be HOST:PORT")
            require(0 <= self.index < self.count, f"index={self.index} must be between 0 and count={self.count} less 1")
        require_positive(self, "timeout")


@config
class LoggingConfig:
    """What is shown and written while training."""

    every: int = 100  # steps between two lines of metrics
    tensorboard: bool = True  # also write TensorBoard events

    def __post_init__(self) -> None:
        require_positive(self, "every")
