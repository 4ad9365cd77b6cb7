# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's stand-ins say what was recorded from the real tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

STAND_INS = Path(__file__).resolve().parents[2] / "lab" / "stand-ins"
ADDED = {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}


def nvidia_ctk(*args: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess:
    command = [sys.executable, str(STAND_INS / "nvidia-ctk"), *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        (None, [], ADDED),
        ("{}", [], ADDED),
        ('{"log-driver": "local"}', [], {"log-driver": "local", **ADDED}),
        ('{"runtimes": {"k": {"path": "k"}}}', [], {"runtimes": {"k": {"path": "k"}, **ADDED["runtimes"]}}),
        ("{}", ["--cdi.enabled"], {"features": {"cdi": True}, **ADDED}),
        ('{"features": {"containerd-snapshotter": true}}', ["--cdi.enabled"], {"features": {"cdi": True}, **ADDED}),
        ('{"features": {"buildkit": true}}', [], {"features": {"buildkit": True}, **ADDED}),
        ('{"runtimes": {"nvidia": {"path": "/own", "runtimeArgs": ["-x"]}}}', [], ADDED),
        ('{"mtu": 1500.0, "x": 9007199254740993} {"more": 1}', [], {"mtu": 1500, "x": 9007199254740992, **ADDED}),
        ("{}", ["--set-as-default"], {"default-runtime": "nvidia", **ADDED}),
    ],
)
def test_configure(tmp_path: Path, before: str | None, options: list[str], after: dict) -> None:
    file = tmp_path / "daemon.json"
    if before is not None:
        file.write_text(before)
    result = nvidia_ctk("runtime", "configure", "--runtime=docker", f"--config={file}", *options)
    assert result.returncode == 0
    assert file.read_text() == json.dumps(after, indent=4, sort_keys=True)
    for words in (f"Loading config from {file}", f"Wrote updated config to {file}", "docker daemon be restarted."):
        assert words in result.stderr
    again = file.read_bytes()
    nvidia_ctk("runtime", "configure", "--runtime=docker", f"--config={file}", *options)
    assert file.read_bytes() == again


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    result = nvidia_ctk("runtime", "configure", f"--config={file}", "--dry-run")
    assert json.loads(result.stdout) == ADDED
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ('{"a": ', 1, "unable to load config for runtime docker: unexpected EOF"),
        ("", 1, "unable to load config for runtime docker: EOF"),
        ("[]", 1, "cannot unmarshal"),
        ("null", 2, "panic: assignment to entry in nil map"),
        ('{"runtimes": null}', 2, "panic: interface conversion"),
        ('{"runtimes": []}', 2, "panic: interface conversion"),
    ],
)
def test_broken_file_stays(tmp_path: Path, text: str, status: int, message: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    result = nvidia_ctk("runtime", "configure", f"--config={file}")
    assert (result.returncode, file.read_text()) == (status, text)
    assert message in result.stderr


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "daemon.json").symlink_to("real.json")
    assert nvidia_ctk("runtime", "configure", f"--config={tmp_path}/daemon.json").returncode == 0
    assert (tmp_path / "daemon.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == ADDED


def test_no_driver(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    result = nvidia_ctk("cdi", "generate", path=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 1
    assert "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND" in result.stderr


def test_spec(tmp_path: Path) -> None:
    tags = "".join(
        f"<minor_number>{minor}</minor_number>\n<uuid>GPU-{minor}</uuid>\n<uuid>MIG-{minor}</uuid>\n"
        for minor in (0, 1)
    )
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'EOF'\n{tags}EOF\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    output = tmp_path / "cdi" / "nvidia.yaml"
    assert nvidia_ctk("cdi", "generate", f"--output={output}", path=f"{tmp_path}:/usr/bin:/bin").returncode == 0
    spec = yaml.safe_load(output.read_text())
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "nvidia.com/gpu")
    nodes = {
        device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]
    }
    assert nodes == {
        "0": ["/dev/nvidia0"],
        "1": ["/dev/nvidia1"],
        "GPU-0": ["/dev/nvidia0"],
        "GPU-1": ["/dev/nvidia1"],
        "all": ["/dev/nvidia0", "/dev/nvidia1"],
    }
    listed = nvidia_ctk("cdi", "list", f"--spec-dir={output.parent}")
    assert listed.stdout.split() == [f"nvidia.com/gpu={name}" for name in sorted(nodes)]
    assert "Found 5 CDI devices" in listed.stderr


def test_no_spec(tmp_path: Path) -> None:
    result = nvidia_ctk("cdi", "list", f"--spec-dir={tmp_path}")
    assert (result.returncode, result.stdout) == (0, "")
    assert "Found 0 CDI devices" in result.stderr
