# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that reaches nothing: it takes no bundle that was changed, and serves from the one that was not.

In this order: what is refused comes before there is anything on the node.
"""

from __future__ import annotations

import json

import pytest
from conftest import cut_off
from scenario import docker, nodes, on_node, run_play, wrong_answers

SERVERS = ("gpunode-lab-lab:80", "gpunode-lab-registry:5000", "gpunode-lab-hub:80")
DEBIAN = "apt/*/debian/dists/*/main/binary-*/Packages.xz"  # whatever mirror the node has
DOCKER = "apt/lab.gpunode.test/docker/linux/debian/dists/*/stable/binary-*/Packages.gz"
DEB = "apt/lab.gpunode.test/docker/linux/debian/dists/*/pool/stable/*/docker-ce_*.deb"

# One bit of a file, at its middle. `member` is a part of a tar, of which the path says enough.
FLIP = """
import glob, sys, tarfile
path, member = sys.argv[1:]
(path,) = glob.glob(path)
at, size = 0, __import__('os').stat(path).st_size
if member:
    found = max((m for m in tarfile.open(path) if member in m.name and m.isreg()), key=lambda m: m.size)
    at, size = found.offset_data, found.size
with open(path, 'r+b') as stream:
    stream.seek(at + size // 2)
    byte = stream.read(1)[0]
    stream.seek(at + size // 2)
    stream.write(bytes([byte ^ 1]))
"""

# What somebody does who changes a bundle and knows about its manifest.
RESEAL = """
import hashlib, json, pathlib
bundle = pathlib.Path('/srv/forged')
manifest = json.loads((bundle / 'manifest.json').read_text())
for path, entry in manifest['files'].items():
    if path.startswith('apt/'):
        entry['sha256'] = hashlib.sha256((bundle / path).read_bytes()).hexdigest()
(bundle / 'manifest.json').write_text(json.dumps(manifest))
"""


def python(script: str, *args: str) -> None:
    on_node(f"python3 - {' '.join(map(repr, args))} <<'EOF'\n{script}\nEOF")


def test_nothing_is_reached(island):
    servers = [server.split(":") for server in SERVERS]
    form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
    addresses = [f"{docker('inspect', '-f', form, box)}:{port}" for box, port in servers]
    for node, reached in ((nodes()[1], True), (island, False)):
        for address in addresses:
            result = on_node(f"curl -sS -m 5 -o /dev/null http://{address}/ && echo reached", check=False, node=node)
            assert (result == "reached") is reached, (node, address, result)
    assert on_node("getent hosts lab.gpunode.test hub.gpunode.test", check=False) == ""


def test_a_flipped_byte_is_named_before_anything_changes(deploy):
    python(FLIP, "/srv/bundle.tar", "huggingface/hub/models--gpunode--tiny-llama/blobs/")
    result = deploy()
    assert result.status != 0
    assert "The bundle /srv/bundle.tar is damaged: huggingface/hub/models--gpunode--tiny-llama/blobs/" in result.words
    assert "differs from its SHA-256" in result.words
    assert result.changed == 0
    assert on_node("ls /srv /etc/docker /var/lib/huggingface /opt/huggingface-hub 2>/dev/null", check=False) == (
        "/srv:\nbundle.tar"
    )
    python(FLIP, "/srv/bundle.tar", "huggingface/hub/models--gpunode--tiny-llama/blobs/")


@pytest.fixture(scope="module")
def forged(island):
    on_node("mkdir -p /srv/forged && tar -xf /srv/bundle.tar -C /srv/forged")
    yield "/srv/forged"
    on_node("rm -rf /srv/forged")


# A repository that nobody signed, by a record whose suite would have apt trust it.
RECORD = """
import hashlib, json, pathlib, sys
bundle, listed = pathlib.Path('/srv/forged'), sys.argv[1] == 'listed'
row = {'path': 'apt/zz', 'suite': './\\nTrusted: yes', 'components': [], 'own': False}
manifest = json.loads((bundle / 'manifest.json').read_text())
for path, text in {'apt/zz.json': json.dumps({'repositories': [row]}), 'apt/zz/Packages': ''}.items():
    (bundle / path).parent.mkdir(exist_ok=True)
    (bundle / path).write_text(text)
    entry = {'size': len(text), 'sha256': hashlib.sha256(text.encode()).hexdigest()}
    manifest['files'].update({path: entry} if listed else {})
(bundle / 'manifest.json').write_text(json.dumps(manifest))
"""


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("unlisted", "'apt/zz.json' is there but not in its manifest: remove it"),
        ("listed", "apt/zz.json of the bundle /srv/forged is invalid: './\\nTrusted: yes' is not a suite or component"),
    ],
)
def test_a_forged_record_does_not_change_apts_sources(deploy, forged, listed, message):
    on_node(f"cp {forged}/manifest.json /srv/manifest.json")
    python(RECORD, listed)
    result = deploy("-e", f"bundle={forged}")
    on_node(f"mv /srv/manifest.json {forged}/manifest.json && rm -r {forged}/apt/zz.json {forged}/apt/zz")
    assert result.status != 0
    assert message in result.words
    assert "rusted" not in on_node("cat /var/lib/gpunode/bundle/sources.list.d/distribution.sources", check=False)
    assert on_node("command -v dockerd", check=False) == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(DEBIAN, "apt does not take the packages of /srv/forged: ", id="the distribution's index"),
        pytest.param(DOCKER, "apt does not take file:///srv/forged/apt/", id="Docker's index"),
        pytest.param(DEB, "docker-ce_", id="a package"),
    ],
)
def test_apt_believes_signatures_and_not_the_manifest(deploy, forged, changed, message):
    python(FLIP, f"{forged}/{changed}", "")
    python(RESEAL)
    result = deploy("-e", f"bundle={forged}")
    python(FLIP, f"{forged}/{changed}", "")
    assert result.status != 0
    assert message in result.words
    assert "Hash Sum mismatch" in result.words
    assert on_node("command -v dockerd", check=False) == ""


def test_it_serves(deploy, island):
    result = deploy()
    assert result.status == 0, result.text
    assert wrong_answers(node=island) == {}


def test_what_came_from_where(deploy):
    manifest = on_node("cat /var/lib/huggingface/hub/models--gpunode--tiny-llama/manifests/*.json")
    assert json.loads(manifest)["origin"].endswith(", linked; hashes: its manifest")
    assert "file:///srv/bundle/apt/" in on_node("cat /etc/apt/sources.list.d/docker.sources")
    assert on_node("ls /opt/huggingface-hub /etc/huggingface 2>/dev/null", check=False) == ""


def test_a_second_run_changes_nothing(deploy):
    result = deploy()
    assert (result.status, result.changed) == (0, 0), result.text


def test_the_folder_may_go(deploy):
    on_node("mv /srv/bundle /srv/gone && rm /srv/bundle.tar")
    result = deploy()
    assert (result.status, result.changed) == (0, 0), result.text


def test_a_bundle_for_another_system(deploy):
    on_node('sed -i \'s/"Debian [a-z]*"/"Debian sid"/\' /srv/gone/manifest.json')
    result = deploy("-e", "bundle=/srv/gone")
    assert result.status != 0
    assert "The bundle is for Debian sid on " in result.words


def test_a_second_bundle_fetches_nothing(maker):
    """Nor could it."""
    cut_off(maker)
    settings = "model=tiny gpus=1xH100 bundle=/srv/bundle tar=true"
    result = run_play("playbooks/bundle.yml", "-e", f"bundle_host={maker} {settings}")
    assert (result.status, result.changed) == (0, 0), result.text
