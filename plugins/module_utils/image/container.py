# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ``engine_figures`` in a container of an image, and read its answer."""

from __future__ import annotations

import inspect
import json
from typing import Any, Dict, List, Mapping

from . import engine_figures

#: The exit code where vLLM's parser refuses the configuration.
REFUSED = 2
#: Where the container has the configuration.
CONFIG = "/etc/vllm/config.yaml"
#: Runs the Python of the image's vllm command, wherever it is installed, with the arguments.
PYTHON = 'exec $(sed -n "1s/^#!//p" "$(command -v vllm)") "$@"'


def command(docker: str, timeout_s: int, unit: Mapping[str, Any]) -> List[str]:
    """The command that asks an image. It reaches no network and changes nothing.

    ``unit``: ``image`` and ``config`` (the path of the configuration); and if there are any, ``weights`` and
    ``weights_target`` (a folder and its path in the container), likewise ``cached`` (the hub's cache, where the weights
    are not in it), and ``gpus`` (their names for the container toolkit).
    """
    folders = {name: unit[f"{name}_target"] for name in ("weights", "cached") if unit.get(name)}
    mounts = [f"--volume={unit['config']}:{CONFIG}:ro"]
    mounts += [f"--volume={unit[name]}:{target}:ro" for name, target in folders.items()]
    return [
        # With an init: the first process of a container ignores the signal of timeout.
        *("timeout", str(timeout_s), docker, "run", "--rm", "--init", "--pull=never", "--network=none"),
        *("--security-opt=no-new-privileges", "--cap-drop=ALL", "--log-driver=none", "--entrypoint=/bin/sh"),
        *("--env=HF_HUB_OFFLINE=1", f"--env=HF_HUB_CACHE={folders.get('cached', folders.get('weights', ''))}"),
        "--env=VLLM_LOGGING_LEVEL=ERROR",
        *(f"--device=nvidia.com/gpu={gpu}" for gpu in unit.get("gpus") or ()),
        *mounts,
        *(unit["image"], "-c", PYTHON, "sh", "-c", inspect.getsource(engine_figures), CONFIG),
    ]


def answer_of(out: str) -> Dict[str, Any]:
    """The program's last line; ``cannot`` if that is no answer."""
    lines = out.strip().splitlines()
    try:
        answer: Dict[str, Any] = json.loads(lines[-1]) if lines else {"cannot": "it said nothing"}
    except ValueError:
        return {"cannot": lines[-1]}
    return answer


def complaint(text: str) -> str:
    """The parser's own sentence, without the list of all options before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or ["it said nothing"])[-1]
