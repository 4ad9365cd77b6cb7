# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a container sees the GPUs, and goes on seeing them when systemd reads its units anew."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.modules import gpu_proof

ONE = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n"
TWO = ONE + "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n"
LOST = (255, "Failed to initialize NVML: Unknown Error\n")


class Failed(Exception):
    """What fail_json does."""


class Module:
    """A node whose docker answers from a list."""

    params = {"timeout": 60}

    def __init__(self, run, *inside):
        self.run, self.inside, self.commands = run, iter(inside), []

    def run_command(self, argv):
        self.commands.append(argv)
        if "run" in argv:
            return self.run[0], "", self.run[1]
        return (*next(self.inside), "") if "exec" in argv else (0, "", "")

    def fail_json(self, msg):
        raise Failed(msg)

    def warn(self, msg):
        self.warned = msg


def node(method="cdi", uuids=("GPU-1",)):
    return {"image": "i:1", "method": method, "uuids": list(uuids)}


@pytest.mark.parametrize(
    ("method", "uuids", "inside", "kept"),
    [
        ("cdi", ["GPU-1"], [(0, ONE), (0, ONE)], True),
        ("runtime", ["GPU-2", "GPU-1"], [(0, TWO), (0, TWO)], True),
        ("runtime", ["GPU-1"], [(0, ONE), LOST], False),
        ("cdi", ["GPU-1", "GPU-2"], [(0, TWO), (0, ONE)], False),
    ],
)
def test_they_are_seen_and_kept(method, uuids, inside, kept):
    module = Module((0, ""), *inside)
    assert gpu_proof.prove(module, node(method, uuids)) is kept
    assert ["systemctl", "daemon-reload"] in module.commands
    assert (
        module.commands[0]
        == module.commands[-1]
        == ["timeout", "--kill-after=5", "60", "docker", "rm", "--force", "gpunode-gpu-proof"]
    )
    (started,) = [argv for argv in module.commands if "run" in argv]
    assert ("--device=nvidia.com/gpu=all" in started) is (method == "cdi")


@pytest.mark.parametrize(
    ("run", "inside", "says"),
    [
        ((125, "docker: CDI device injection failed"), [], "gpunode-cdi"),
        ((0, ""), [LOST], "Failed to initialize NVML"),
        ((0, ""), [(0, TWO)], "other GPUs than the node: GPU-2 not outside."),
        ((124, ""), [], "did not answer within 60 s"),
    ],
)
def test_missing_gpus_are_reported_and_nothing_is_left(run, inside, says):
    module = Module(run, *inside)
    with pytest.raises(Failed, match=says):
        gpu_proof.prove(module, node())
    assert module.commands[-1] == module.commands[0]
    assert "rm" in module.commands[0]


def test_gpus_lost_with_cdi_are_a_failure_that_names_runc():
    with pytest.raises(Failed, match=r"CDI; runc 1\.1\.3 to 1\.1\.6 .* docker_keep_existing: false"):
        gpu_proof.report_loss(Module(None), "cdi")


def test_gpus_lost_with_the_legacy_hook_are_a_warning():
    module = Module(None)
    gpu_proof.report_loss(module, "runtime")
    assert "legacy hook; Docker 25" in module.warned
