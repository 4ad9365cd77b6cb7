# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of the network between the nodes of one engine: an all-reduce in the engine's own image, and its record."""

from __future__ import annotations

import inspect
import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..node import files as node_files
from ..units import job as units_job
from . import all_reduce, container

#: The unit that runs it, and its container.
UNIT = "gpunode-network-proof"
#: The last proof of a node. A new one is due when a node, an address, an interface or an adapter is another.
RECORD = "/var/lib/gpunode/network-proof.json"
#: Devices of RDMA adapters.
RDMA = "/dev/infiniband"


def command(docker: str, proof: Mapping[str, Any]) -> List[str]:
    """The command of one node.

    ``proof``: ``image``, ``head``, ``port``, ``rank`` and ``size``; ``gpu`` (a GPU's name for the container toolkit, if
    there is one), ``interface`` and ``hcas`` (the network that it takes).
    """
    devices = [f"--device=nvidia.com/gpu={proof['gpu']}"] if proof.get("gpu") else []
    devices += [f"--device={RDMA}", "--ulimit=memlock=-1"] if proof.get("hcas") else []
    interface, hcas = proof.get("interface") or "", ",".join(proof.get("hcas") or ())
    told = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface and f"={interface}"}
    told["NCCL_IB_HCA"] = hcas and f"={hcas}"
    return [
        *(docker, "run", "--rm", "--init", "--pull=never", f"--name={UNIT}", "--network=host", "--shm-size=1g"),
        *("--security-opt=no-new-privileges", "--cap-drop=ALL", "--log-driver=none"),
        "--entrypoint=/bin/sh",
        *devices,
        *(f"--env={name}={value}" for name, value in told.items() if value),
        *(proof["image"], "-c", container.PYTHON, "sh", "-c", inspect.getsource(all_reduce)),
        *(str(proof[name]) for name in ("head", "port", "rank", "size")),
    ]


def job(docker: str, proof: Mapping[str, Any]) -> units_job.JobSpec:
    """The command as work of systemd: all nodes are at it together, while the play asks one after the other."""
    # systemd expands $ in a command line.
    argv = [word.replace("$", "$$") for word in command(docker, proof)]
    limit = str(all_reduce.TIMEOUT_S * 3)
    return units_job.JobSpec(UNIT, argv, "Proof of the network between nodes", properties={"RuntimeMaxSec": limit})


def answer_of(lines: Sequence[str]) -> Optional[Dict[str, Any]]:
    """The program's answer in the log of the job; None if there is none."""
    for line in reversed(lines):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "gbit_s" in answer:
            return answer
    return None


def last(path: str = RECORD) -> Dict[str, Any]:
    """The record of the last proof; empty if there is none."""
    try:
        record = json.loads(node_files.text_of(path))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def remember(key: str, answer: Mapping[str, Any], path: str = RECORD) -> None:
    node_files.write_atomically(path, json.dumps({"key": key, **answer}) + "\n")


def trouble(
    proof: Mapping[str, Any], name: str, floor_gbit_s: float, answer: Optional[Mapping[str, Any]], lines: Sequence[str]
) -> str:
    """Why the network does not do, in a sentence; empty if it does."""
    over = f"the network of {name} ({proof['interface']}, {proof['address']})"
    if answer is None:
        last_line = next((line.strip().rstrip(".") for line in reversed(lines) if line.strip()), "it said nothing")
        return (
            f"An all-reduce over {over} failed: {last_line}. All TCP ports must be open between its {proof['size']}"
            " nodes; vllm_node_address and vllm_node_interface choose another network."
        )
    if not answer["right"]:
        return f"An all-reduce over {over} had a wrong sum: its adapters or their drivers damage data."
    if answer["gbit_s"] < floor_gbit_s:
        return (
            f"An all-reduce over {over} ran at {answer['gbit_s']:g} Gbit/s with {answer['backend']}, and"
            f" vllm_link_floor_gbit_s wants at least {floor_gbit_s:g}: choose a faster network with vllm_node_address,"
            " vllm_node_interface or vllm_rdma_adapters, or set a lower floor."
        )
    return ""


def praise(proof: Mapping[str, Any], name: str, answer: Mapping[str, Any]) -> str:
    """The figure in a sentence."""
    return (
        f"{name}: the network between its {proof['size']} nodes ({proof['interface']}, {proof['address']}) carries"
        f" {answer['gbit_s']:g} Gbit/s in an all-reduce with {answer['backend']}"
    )
