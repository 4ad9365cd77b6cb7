# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle of a node that has told its secrets wherever it could."""

from __future__ import annotations

import base64
import json
import shlex
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from scenario import nodes, on_node, run_play

TOKEN = "hf_lab_good"
KEYS = ("first-key-of-operations", "second-key-of-operations", "offline-secret-mode")
PROXY = "proxy/word 7"
REGISTRY = "registry-word-7"
DROP_IN = "/etc/systemd/system/vllm-tiny.service.d"
GONE = "key-of-last-year"
SECRETS = (TOKEN, *KEYS, PROXY, "proxy%2Fword%207", REGISTRY, base64.b64encode(f"ada:{REGISTRY}".encode()).decode())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The texts of the bundle, with a journal that holds every secret, and some of the node's own beside ours."""
    auth = base64.b64encode(f"ada:{REGISTRY}".encode()).decode()
    config = json.dumps({"auths": {"r.example.com": {"auth": auth}}})
    on_node(f"mkdir -p /root/.docker && echo {shlex.quote(config)} >/root/.docker/config.json")
    proxy = f'Acquire::http::Proxy::none.example.com "http://ada:{quote(PROXY, safe="")}@proxy:3128";'
    on_node(f"echo {shlex.quote(proxy)} >/etc/apt/apt.conf.d/99proxy")
    # The engine writes every address that it is asked for into its journal.
    for secret in (*SECRETS, GONE):
        on_node(f"curl -s 'http://127.0.0.1:8000/secret?is={quote(secret, safe='')}'")
    on_node(f"mkdir -p {DROP_IN} && echo '# {KEYS[0]}' >{DROP_IN}/note.conf")
    folder = tmp_path_factory.mktemp("support")
    result = run_play(
        "playbooks/logs.yml", "-e", f"logs_dir={folder}", "-e", f'{{"vllm_api_keys": ["{GONE}"]}}', "-vvv"
    )
    assert result.status == 0, result.text[-3000:]
    for secret in (*KEYS[1:], REGISTRY, GONE):
        assert secret not in result.text.replace(f'["{GONE}"]', "")
    with tarfile.open(folder / f"{nodes()[0]}.tar.gz") as tar:
        return {Path(m.name).relative_to(nodes()[0]).as_posix(): tar.extractfile(m).read().decode() for m in tar}


@pytest.mark.parametrize("secret", (*SECRETS, GONE))
def test_a_secret_is_in_no_text(bundle: dict[str, str], secret: str) -> None:
    assert [name for name, text in bundle.items() if secret in text] == []


def test_the_text_around_secrets_is_kept(bundle: dict[str, str]) -> None:
    assert bundle[f"files{DROP_IN}/note.conf"] == "# (blotted out)\n"
    assert "/secret?is=(blotted out)" in bundle["journal/vllm-tiny.txt"]


def test_what_helps_is_there(bundle: dict[str, str]) -> None:
    assert "tiny" in bundle["status.txt"]
    assert "serving" in bundle["status.json"]
    assert "8b" in bundle["plan.txt"]
    assert "ansible-core" in bundle["versions.txt"]
    assert "gpunode.llm 1" in bundle["versions.txt"]
    assert "Application startup complete" in bundle["journal/vllm-tiny.txt"]
    assert "<nvidia_smi_log>" in bundle["gpu/nvidia-smi.xml"]
    assert "Server Version" in bundle["docker/info.txt"]
    assert "rack=12" in bundle["files/etc/docker/daemon.json"]
    assert "VLLM_API_KEY=(blank)" in bundle["files/etc/vllm/tiny.env"]
    assert "- (blank)" in bundle["files/etc/vllm/tiny.keys.yaml"]
    assert "Filesystem" in bundle["system/disks.txt"]


def test_nothing_is_left_on_the_node(bundle: dict[str, str]) -> None:
    assert on_node("ls /var/lib/gpunode").split() == ["brought.json", "vllm"]


def test_a_check_gathers_nothing() -> None:
    result = run_play("playbooks/logs.yml", "--check", "-e", "logs_dir=/nowhere/at/all")
    assert result.status == 0, result.text[-3000:]
    assert not Path("/nowhere").exists()
