# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An all-reduce over the nodes of one engine, and how fast it was.

Runs inside a container of the engine's image, with the image's Python, on every node at the same time:
``all_reduce.py HEAD PORT RANK SIZE``. The last line on stdout is JSON: ``gbit_s`` (float: the bandwidth of the slowest
link, each way), ``backend`` (str: nccl or gloo) and ``right`` (bool: whether the sum was right).
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from typing import Any

#: How long a node waits for the others, in seconds; and what is sent how often.
TIMEOUT_S = 120
MIB, TIMES = 64, 5


def bandwidth(size: int, bytes_each: int, seconds: float) -> float:
    """Gbit/s each way: in a ring, each node sends and receives this share of the bytes."""
    return 2 * (size - 1) / size * bytes_each * 8 / seconds / 1e9


def measured(head: str, port: str, rank: int, size: int) -> dict[str, Any]:
    """Reduce some tensors over all nodes, with NCCL where there is a GPU."""
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available()
    backend, device = ("nccl", "cuda:0") if gpu else ("gloo", "cpu")
    where = f"tcp://[{head}]:{port}" if ":" in head else f"tcp://{head}:{port}"
    wait = datetime.timedelta(seconds=TIMEOUT_S)
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=size, timeout=wait)
    one = torch.ones(MIB << 18, dtype=torch.float32, device=device)
    seconds, right = [], True
    # The first one makes the connections.
    for _time in range(TIMES + 1):
        tensor = one.clone()
        dist.barrier()
        began = time.monotonic()
        dist.all_reduce(tensor)
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
        right = right and bool((tensor == size).all())
    dist.barrier()
    dist.destroy_process_group()
    best = sorted(seconds[1:])[TIMES // 2]
    return {"gbit_s": round(bandwidth(size, MIB << 20, best), 2), "backend": backend, "right": right}


def main(arguments: list[str]) -> None:
    head, port, rank, size = arguments
    sys.stdout.write(json.dumps(measured(head, port, int(rank), int(size))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
