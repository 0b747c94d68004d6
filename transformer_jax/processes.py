"""The processes of one run: how they find each other, agree, and notice that one of them has died.

With one process all of this is the identity. With many, each runs the same program; the coordinator, process 0, is the
one that writes files and talks to whoever watches. What only one process can know or do reaches the others by `agree`
and `on_coordinator`; what any of them may be told, by `highest`.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from transformer_jax.config import ProcessesConfig
from transformer_jax.errors import FAILED_CHECK, MISTAKE, PEER_LOST, InputError, explain, first_line

_GOODBYE = b"\0"  # a connection that ends without it is that of a process that died
_CHUNK = 1024  # bytes; messages are padded to a multiple, so that few programs are compiled
_KEEPALIVE_PROBES = 3
_GRACE = 3  # seconds
_PATIENCE = 60  # seconds at least, in which the processes have to find each other
_TPU = "the Cloud TPU"

_leaving = threading.Lock()
_peers: list[socket.socket] = []  # connections to the others, while the processes are connected


@contextlib.contextmanager
def started(config: ProcessesConfig) -> Iterator[None]:
    """Within the context, the processes of a run are connected; a peer that dies ends this process with PEER_LOST.

    An error of this process is told and ends it at once: to leave in good order it would have to wait for its peers.
    Explicit settings are used where they are given; else what SLURM, Open MPI, Kubernetes or a Cloud TPU say; else
    there is this process alone.

    Raises:
        InputError: when the processes do not find each other.
    """
    if not _connect(config) or jax.process_count() == 1:
        yield
        return
    host = _own_address() if config.coordinator is None else config.coordinator.rpartition(":")[0]
    try:
        with _watched(host, config.timeout):
            yield
            barrier("the end")
    except KeyboardInterrupt:
        leave("error: interrupted", 128 + signal.SIGINT)
    except Exception as error:
        if (explained := explain(error)) is None:
            time.sleep(_GRACE)  # a peer's death makes collectives fail: whoever waits for it tells it better
            explained = traceback.format_exc().strip(), FAILED_CHECK
        leave(*explained)


def is_coordinator() -> bool:
    """Whether this is the process that writes and talks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: Any) -> Any:
    """The coordinator's value on every process; it must survive JSON."""
    if jax.process_count() == 1:
        return value
    content = json.dumps(value).encode() if is_coordinator() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    buffer = np.zeros(-(-size // _CHUNK) * _CHUNK, np.uint8)
    buffer[: len(content)] = np.frombuffer(content, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
    return json.loads(received[:size].tobytes())


def highest(value: int) -> int:
    """The largest value that any process gives."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def on_coordinator(action: Callable[[], object]) -> None:
    """Does something on the coordinator, while the others wait.

    Raises:
        InputError: on every process, when the action raises it.
    """
    if jax.process_count() == 1:
        action()
        return
    failure: InputError | None = None
    if is_coordinator():
        try:
            action()
        except InputError as error:  # any other ends this process, and thereby those that wait for it
            failure = error
    message = agree(None if failure is None else f"{failure}")
    if failure is not None:
        raise failure
    if message is not None:
        raise InputError(f"process 0: {message}")


def _connect(config: ProcessesConfig) -> bool:
    """Starts jax.distributed where there is more than one process; whether it did."""
    # Signals are ours: jax's own service would catch SIGTERM and keep it from the run.
    jax.config.update("jax_enable_preemption_service", False)
    launcher = None if config.coordinator is not None else _launcher()
    found: dict[str, Any] = {}
    if config.coordinator is None and launcher is None:
        return False
    if config.coordinator is not None:
        found = {
            "coordinator_address": config.coordinator,
            "num_processes": config.count,
            "process_id": config.index,
            "cluster_detection_method": "deactivate",
        }
    place = config.coordinator or f"the addresses that {launcher} gives"
    wait = max(config.timeout, _PATIENCE)
    why = f"not all were there within {wait} seconds"  # where jax's own time is over, it aborts
    alarm = threading.Timer(wait, leave, (f"error: {_not_found(place, why)}", MISTAKE))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            **found,
            heartbeat_timeout_seconds=config.timeout,
            initialization_timeout=wait + 30,
            shutdown_timeout_seconds=config.timeout,
        )
    except (RuntimeError, ValueError) as error:
        if launcher == _TPU and "defined" in str(error):  # jax found no cluster around the TPU of this host
            return False
        raise InputError(_not_found(place, first_line(error))) from None
    finally:
        alarm.cancel()
    return True


def _not_found(place: str, why: str) -> str:
    return (
        f"the processes did not find each other at {place}: {why}; --processes.coordinator HOST:PORT, "
        "--processes.count and --processes.index name them explicitly"
    )


def _launcher() -> str | None:
    """What started this process as one of many, where jax can find the others by it."""
    env = os.environ
    if int(env.get("SLURM_NTASKS", 1)) > 1 and {"SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST"} <= set(env):
        return "SLURM"
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1 and "OMPI_MCA_orte_hnp_uri" in env:
        return "Open MPI"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes"
    if os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0"):  # of one host or of many
        return _TPU
    return None


@contextlib.contextmanager
def _watched(host: str, timeout: int) -> Iterator[None]:
    """Within the context, the death of any process ends all of them, by one line and PEER_LOST.

    Every process holds a connection to the coordinator and waits for its end: the kernel ends it at once when a
    process dies, and by its keep-alive probes within `timeout` seconds when a host does. jax's heartbeats would abort
    with a page of C++; they remain for a process that hangs.
    """
    try:
        connections = _meet(host, timeout)
    except OSError as error:
        raise InputError(
            f"the processes cannot watch each other: process 0 at {host} is not reached by all at a port of its own "
            f"({error}); open the ports between the hosts"
        ) from None
    _hold_up_aborts()
    _peers.extend(connections.values())
    for peer, connection in connections.items():
        arguments = (connection, f"process {jax.process_index()}: process {peer}")
        threading.Thread(target=_wait_for_end, args=arguments, daemon=True, name=f"peer {peer}").start()
    yield
    while _peers:
        with contextlib.suppress(OSError):
            _peers.pop().sendall(_GOODBYE)


def _hold_up_aborts() -> None:
    """Gives whoever watches the peers some seconds to end this process before an abort does.

    jax's client aborts as soon as the coordinator's service is gone, from a thread in C++ that no lock of Python stops.
    The handler is the C library's own sleep: called with the number of the signal, 6, it takes 6 seconds.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def _meet(host: str, timeout: int) -> dict[int, socket.socket]:
    """Connections to the other processes: of the coordinator, at this host, to each, of each to the coordinator."""
    if not is_coordinator():
        host, port = agree(None)
        connection = socket.create_connection((host, port), timeout=timeout)
        connection.sendall(f"{jax.process_index():8d}".encode())
        return {0: _kept_alive(connection, timeout)}
    with socket.create_server(("", 0), backlog=jax.process_count()) as server:
        server.settimeout(timeout)
        agree([host, server.getsockname()[1]])
        connections = {}
        for _ in range(jax.process_count() - 1):
            connection, _ = server.accept()
            connection.settimeout(timeout)
            said = connection.recv(8, socket.MSG_WAITALL)
            if not said.strip().isdigit():
                raise OSError("somebody else called")
            connections[int(said)] = _kept_alive(connection, timeout)
        return connections


def _own_address() -> str:
    """The address at which the other hosts reach this one: that of the route to them.

    The host's own name would not do: many systems give it an address of the loopback.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))  # finds the route; nothing is sent
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address


def _kept_alive(connection: socket.socket, timeout: int) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = max(timeout // (_KEEPALIVE_PROBES + 1), 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), interval)
    if hasattr(socket, "TCP_KEEPCNT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    return connection


def _wait_for_end(connection: socket.socket, who: str) -> None:
    """Waits for a peer's end. Without it nothing can be saved, and what computes with it hangs."""
    try:
        said = connection.recv(1)
    except OSError:
        said = b""
    if said == _GOODBYE:
        return
    again = "start all processes again with the same command: they go on from the newest checkpoint"
    if said == b"":
        leave(f"error: {who} has died; {again}", PEER_LOST)
    if said == bytes([PEER_LOST]):
        leave(f"error: {who} tells of the death of another; {again}", PEER_LOST)
    leave(f"error: {who} has stopped with an error of its own, which it tells", said[0])


def leave(line: str, code: int) -> NoReturn:
    """Ends this process at once, and all others with the same code.

    The line does not go through the buffers of Python, which another thread may be using.
    """
    _leaving.acquire()  # for good: who comes second, told by a peer of what the first has just told it, has to wait
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
    for peer in _peers:
        with contextlib.suppress(OSError):
            peer.sendall(bytes([code]))
    os._exit(code)
