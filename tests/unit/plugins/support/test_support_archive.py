# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that tells its secrets wherever it can, and the bundle, which has none of them."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.support import archive, redact
from ansible_collections.gpunode.llm.plugins.modules import support_archive

AUTH = base64.b64encode(b"robot:registry-pass").decode()
FILES = {
    "/etc/vllm/8b.env": "VLLM_API_KEY=key-of-the-api\nWANDB_KEY=key-of-wandb\nHF_HUB_OFFLINE=1\n",
    "/etc/vllm/8b.keys.yaml": "api-key:\n- key-of-the-api\n- second-key\n",
    "/etc/vllm/8b.yaml": "model: org/m\nhf-token: key-of-the-api\n",
    "/var/lib/gpunode/vllm/8b/etc/vllm/8b.env": "VLLM_API_KEY=key-of-before\n",
    "/etc/gpunode/gateway/keys.conf": 'map $a $b {\n  "Bearer key-of-ada" "ada";\n}\n',
    "/etc/huggingface/token": "hf_short",
    "/srv/token": "token-elsewhere",
    "/root/.docker/config.json": json.dumps({"auths": {"r.example.com": {"auth": AUTH}}}),
    "/etc/docker/daemon.json": json.dumps({"proxies": {"http-proxy": "http://ada:daemon-pass@proxy:1"}}),
    "/etc/docker/gpunode-proxy.env": "HTTP_PROXY=http://ada:proxy-pass@proxy:1\n",
    "/etc/apt/auth.conf.d/mirror.conf": "machine m login l password apt-pass\n",
    "/etc/vllm/s3.yaml": (
        "model: org/m\nstorage:\n  access_key: key of s3\n  secret: |\n    line-one-of-it\n    line-two-of-it\n"
    ),
    "/etc/systemd/system/vllm-8b.service": (
        '[Service]\nEnvironment=AZURE_STORAGE_KEY=key-of-azure "LDAP_PW=two words"\nEnvironmentFile=-/srv/site.env\n'
        "ExecStart=/usr/bin/docker run --env=AWS_SECRET_ACCESS_KEY=aws/secret+1 \\\n  '--env=NOTE=plain value' x\n"
    ),
    "/etc/systemd/system/vllm-8b.service.d/site.conf": (
        "[Service]\nEnvironment=ODD=dropped-in \\\n  MORE=on-a-second-line\n"
    ),
    "/srv/site.env": "UNTOLD=out-of-a-file\n",
}
GIVEN = "key-of-the-inventory"
SECRETS = (
    *("key-of-the-api", "key-of-wandb", "second-key", "key-of-before", "hf_short", "token-elsewhere", AUTH),
    *("key-of-ada", "registry-pass", "daemon-pass", "proxy-pass", "apt-pass", GIVEN),
    *("key of s3", "line-one-of-it", "line-two-of-it", "key-of-azure", "two words", "aws/secret+1", "plain value"),
    *("dropped-in", "on-a-second-line", "out-of-a-file"),
)


def fits(path: str, pattern: str) -> bool:
    parts, wanted_parts = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted_parts) and all(
        part == ask or ("*" in ask and part.startswith(ask.split("*")[0]) and part.endswith(ask.split("*")[-1]))
        for part, ask in zip(parts, wanted_parts)
    )


def talkative(files: Mapping[str, str]) -> archive.Surroundings:
    """Every program prints every secret."""
    text = "\n".join(f"line with {secret} and {base64.b64encode(secret.encode()).decode()}" for secret in SECRETS)
    return archive.Surroundings(
        run=lambda command: f"{' '.join(command)}\n{text}\n",
        find=lambda pattern: [path for path in files if fits(path, pattern)],
        read=lambda path: files[path],
    )


def bundle(further: Mapping[str, str]) -> dict[str, str]:
    node = talkative(FILES)
    known = archive.secrets(node, {"/srv/token": redact.of_token}) | {GIVEN}
    texts = {**archive.gather(node, archive.instance_units(["/x/vllm-8b.service"]), 7), **further}
    packed = archive.pack("gpu-1", archive.clean(texts, known), 1e9)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}


def test_every_secret_of_the_node_is_known() -> None:
    known = archive.secrets(talkative(FILES), {"/srv/token": redact.of_token})
    assert set(SECRETS) - known == {GIVEN}


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_in_the_bundle(secret: str) -> None:
    held = bundle({"status.txt": f"said by the controller: {secret}\n"})
    for text in held.values():
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text


def test_what_helps_is_in_the_bundle() -> None:
    held = bundle({})
    assert held["gpu-1/journal/vllm-8b.txt"].startswith("journalctl")
    assert "--lines=7 --unit=vllm-8b" in held["gpu-1/journal/vllm-8b.txt"]
    assert "--lines=7" in held["gpu-1/journal/kernel.txt"]
    assert "model: org/m" in held["gpu-1/files/etc/vllm/8b.yaml"]
    assert held["gpu-1/files/etc/vllm/8b.env"] == "VLLM_API_KEY=(blank)\nWANDB_KEY=(blank)\nHF_HUB_OFFLINE=(blank)\n"
    assert held["gpu-1/files/etc/vllm/8b.keys.yaml"] == "api-key:\n- (blank)\n- (blank)\n"
    assert "http-proxy" in held["gpu-1/files/etc/docker/daemon.json"]
    assert "gpu-1/files/etc/huggingface/token" not in held
    for name in (
        "gpu/nvidia-smi.xml",
        "docker/info.txt",
        "docker/version.txt",
        "system/disks.txt",
        "system/kernel.txt",
    ):
        assert f"gpu-1/{name}" in held


class Module:
    def __init__(self, programs: Mapping[str, tuple[int, str, str]], **params: object) -> None:
        self.programs = programs
        self.params = {"timeout_s": 3, **params}

    def get_bin_path(self, name: str) -> str | None:
        return f"/bin/{name}" if name in self.programs else None

    def run_command(self, argv: list[str], errors: str) -> tuple[int, str, str]:
        assert argv[:3] == ["timeout", "--kill-after=5", "3"]
        return self.programs[argv[3]]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"a": (0, "well\n", "")}, "well\n"),
        ({"a": (1, "", "no\n")}, "\nno\n"),
        ({"a": (124, "half", "")}, "half\n(a did not end within 3 s)\n"),
        ({}, "a is not there\n"),
    ],
)
def test_a_failing_program_is_reported(message, text) -> None:
    assert support_archive.surroundings(Module(message)).run(["a"]) == text


def test_the_file_is_for_root_alone(tmp_path) -> None:
    path = tmp_path / "new" / "support.tar.gz"
    support_archive.write(str(path), b"x")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"x", 0o600)
    assert [file.name for file in path.parent.iterdir()] == ["support.tar.gz"]


def test_where_a_site_keeps_its_secrets() -> None:
    places = support_archive.further_places({"token_path": "/srv/token", "config_dir": "/srv/vllm"})
    assert list(places) == ["/srv/token", "/srv/vllm/*.env", "/srv/vllm/*.keys.yaml", "/srv/vllm/*.yaml"]
    assert support_archive.further_places({"token_path": None, "config_dir": None}) == {}
