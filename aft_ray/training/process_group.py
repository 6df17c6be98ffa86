"""The process group of a training's workers, which listens only on the address that the other workers need.

torch's own rendezvous opens its key-value store on all interfaces, without a token. Here the main worker hands the store a
socket that is bound already: to the loopback interface if all workers share a machine, else to the node's cluster address.
"""

from __future__ import annotations

import datetime
import os
import socket
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

LOOPBACK = "127.0.0.1"
SHUTDOWN_S = 30.0


class BoundTorchConfig(TorchConfig):
    """Ray's `TorchConfig` with a process group whose sockets are bound to one address. backend: gloo or nccl."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _BoundBackend


class _BoundBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        count = len(worker_group)
        addresses = set(worker_group.execute(ray.util.get_node_ip_address))
        host = LOOPBACK if len(addresses) == 1 else worker_group.execute_single(0, ray.util.get_node_ip_address)
        port = worker_group.execute_single(0, listen, host)
        timeout = datetime.timedelta(seconds=backend_config.timeout_s)
        joining = [
            worker_group.execute_single_async(rank, join, backend_config.backend, rank, count, host, port, timeout)
            for rank in range(count)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        if len(worker_group) > 1:
            ray.wait(worker_group.execute_async(leave), num_returns=len(worker_group), timeout=SHUTDOWN_S)


_listening: list[socket.socket] = []
"""The main worker's socket between `listen` and `join`."""


def listen(host: str) -> int:
    """Opens a socket on `host` for the store; returns its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.create_server((host, 0), family=family)
    _listening[:] = [opened]
    return int(opened.getsockname()[1])


def join(backend: str, rank: int, world_size: int, host: str, port: int, timeout: datetime.timedelta) -> None:
    """Joins this worker to the group. On one machine the workers' own sockets are bound to the loopback interface too."""
    if host == LOOPBACK:
        name = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name
    is_main = rank == 0
    store = dist.TCPStore(
        host,
        port,
        world_size,
        is_main,
        timeout,
        wait_for_workers=False,
        master_listen_fd=_listening.pop().detach() if is_main else None,
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
