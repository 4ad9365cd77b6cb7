# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hub answers as the real one does and breaks as told; the modules' opener understands both."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import opener as hub_opener
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Hub, HubError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Snapshot

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab" / "hub"))

import server

WEIGHTS = bytes(range(256)) * 1000
OPEN, GATED, PRIVATE = Snapshot("lab/open"), Snapshot("lab/gated"), Snapshot("lab/private")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    repositories = {"open": {}, "gated": {"gated": "manual"}, "private": {"private": True}, "cdn": {}}
    for name, settings in repositories.items():
        folder = root / "lab" / name
        (folder / "original").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(WEIGHTS)
        (folder / ".hub.json").write_text(json.dumps(settings))
    server.Handler.log_message = lambda *args: None
    hub = server.Hub(("127.0.0.1", 0), root)
    elsewhere = {"cdn": f"http://localhost:{hub.server_port}"}
    (root / "lab" / "cdn" / ".hub.json").write_text(json.dumps(elsewhere))
    threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{hub.server_port}"
    hub.shutdown()


@pytest.fixture(autouse=True)
def _well(address):
    yield
    lab(address, "reset", b"")


def lab(address, page, body=None):
    return json.loads(urllib.request.urlopen(f"{address}/_lab/{page}", data=body, timeout=5).read())


def fault(address, **settings):
    lab(address, "faults", json.dumps(settings).encode())


def get(address, path, **headers):
    request = urllib.request.Request(f"{address}/{path}", headers=headers)
    with urllib.request.build_opener().open(request, timeout=5) as answer:
        return answer.status, answer.headers, answer.read()


def hub(address, token="") -> Hub:
    return Hub(address, hub_opener.opener(5), lambda seconds: None, token)


@pytest.mark.parametrize(
    ("token", "snapshot", "kind"),
    [
        ("", OPEN, None),
        ("hf_lab_no_licence", OPEN, None),
        ("hf_lab_good", GATED, None),
        ("hf_lab_good", PRIVATE, None),
        ("", GATED, "gated_no_token"),
        ("hf_lab_no_licence", GATED, "gated"),
        ("hf_lab_no_scope", GATED, "scope"),
        ("", PRIVATE, "no_repository"),
        ("hf_lab_no_licence", PRIVATE, "no_repository"),
        ("hf_lab_good", Snapshot("lab/none"), "no_repository"),
        ("hf_lab_good", Snapshot("lab/open", "f" * 40), "no_revision"),
    ],
)
def test_access(address, token, snapshot, kind):
    try:
        hub(address, token).check_access(snapshot)
        refused = None
    except HubError as refusal:
        refused = refusal.kind
    assert refused == kind


def test_whoami(address):
    assert hub(address, "hf_lab_good").account() == "lab-good"
    for token in ("", "hf_other"):
        with pytest.raises(HubError, match="not valid"):
            hub(address, token).account()


def test_listing_is_what_the_files_are(address):
    client = hub(address)
    commit = client.commit(OPEN)
    files = {f.path: f for f in client.tree(OPEN, commit)}
    assert files["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["config.json"].oid == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert ".hub.json" not in files
    assert hub(address).commit(Snapshot("lab/cdn")) != commit


def test_pages(address):
    _status, headers, body = get(address, "api/models/lab/open/tree/main?recursive=true&limit=1")
    assert len(json.loads(body)) == 1
    assert 'rel="next"' in headers["Link"]


def test_ranges(address):
    path = "lab/open/resolve/main/model.safetensors"
    status, headers, body = get(address, path, Range="bytes=100-")
    assert (status, body, headers["Content-Range"]) == (
        206,
        WEIGHTS[100:],
        f"bytes 100-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
    )
    assert get(address, path, Range="bytes=-5")[2] == WEIGHTS[-5:]
    assert get(address, path, Range="bytes=5-7")[2] == WEIGHTS[5:8]
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(address, path, Range=f"bytes={len(WEIGHTS)}-")


def test_large_files_may_live_elsewhere(address):
    path = "lab/cdn/resolve/main/model.safetensors"
    assert get(address, path)[2] == WEIGHTS
    with pytest.raises(urllib.error.HTTPError, match="400"):  # urllib takes the token along to the signed address
        get(address, path, Authorization="Bearer hf_lab_good")


def test_bytes_are_counted(address):
    get(address, "lab/open/resolve/main/config.json")
    get(address, "lab/open/resolve/main/model.safetensors", Range="bytes=10-")
    counters = lab(address, "counters")
    assert counters["total_bytes"] == 2 + len(WEIGHTS) - 10
    assert counters["bytes"]["/lab/open/resolve/main/config.json"] == 2


def test_cut(address):
    fault(address, kind="cut", at=0.5, path="model")
    path = "lab/open/resolve/main/model.safetensors"
    with pytest.raises(Exception, match="IncompleteRead"):
        get(address, path)
    assert lab(address, "counters")["total_bytes"] == len(WEIGHTS) // 2
    assert get(address, path)[2] == WEIGHTS


def test_wrong(address):
    fault(address, kind="wrong", at=7, path="model")
    path = "lab/open/resolve/main/model.safetensors"
    assert get(address, path)[2][7] == WEIGHTS[7] ^ 0xFF
    assert get(address, path)[2] == WEIGHTS


def test_status(address):
    fault(address, kind="status", status=429, retry_after=2, times=1, method="*")
    answer = hub_opener.opener(5)("GET", f"{address}/api/models/lab/open", {})
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    fault(address, kind="status", status=503, times=2, method="*")
    assert hub(address).commit(OPEN)


def test_slow(address):
    fault(address, kind="slow", rate=len(WEIGHTS) * 4)
    import time

    started = time.monotonic()
    get(address, "lab/open/resolve/main/model.safetensors")
    assert time.monotonic() - started > 0.2


def test_stall(address):
    fault(address, kind="stall", at=0.5, seconds=0.1, path="model")
    with pytest.raises(Exception, match="IncompleteRead"):
        get(address, "lab/open/resolve/main/model.safetensors")


def test_hold(address):
    """What was asked for is in flight until the fault is taken away, and comes whole then."""
    fault(address, kind="hold", at=0.5, path="model")
    path, arrived = "lab/open/resolve/main/model.safetensors", []
    asking = threading.Thread(target=lambda: arrived.append(get(address, path)[2]))
    asking.start()
    while sum(lab(address, "counters")["bytes"].values()) <= len(WEIGHTS) / 2:
        assert asking.is_alive()
    assert arrived == []
    lab(address, "reset", b"")
    asking.join(30)
    assert arrived == [WEIGHTS]


def test_hold_what_is_no_file(address):
    fault(address, kind="hold", at=0, path="^/api/")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(hub(address).commit(OPEN)))
    asking.start()
    while not lab(address, "counters")["total_requests"]:
        assert asking.is_alive()
    assert answers == []
    lab(address, "faults", b"[]")
    assert asking.is_alive()
    lab(address, "reset", b"")
    asking.join(30)
    assert len(answers) == 1


@pytest.mark.parametrize("body", [b"{", b'{"kind": "odd"}', b'{"none": 1}'])
def test_a_fault_that_is_none(address, body):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        lab(address, "faults", body)


def test_nobody_answers():
    answer = hub_opener.opener(1)("GET", "http://127.0.0.1:9/x", {})
    assert answer.status == 0
    assert "refused" in answer.reason
