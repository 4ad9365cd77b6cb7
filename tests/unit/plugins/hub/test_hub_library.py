# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How huggingface_hub is called, and how its troubles are sorted. The library itself is on the nodes only."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import client as hub_client
from ansible_collections.gpunode.llm.plugins.module_utils.hub.file import HashedFile
from ansible_collections.gpunode.llm.plugins.module_utils.hub.job import Job, Passing, PullError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, RepoFile

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
CONTENT = b"weights"
FILE = RepoFile("sub/model.safetensors", 7, "0" * 40, hashlib.sha256(CONTENT).hexdigest(), "")
XET = RepoFile(FILE.path, 7, FILE.oid, FILE.sha256, "f" * 64)


class Response:
    def __init__(self, status, url="https://hub.example/x", **headers) -> None:
        self.status_code, self.url, self.reason_phrase = status, url, "Reason"
        self.headers = {key.replace("_", "-"): value for key, value in headers.items()}


class HfHubHTTPError(Exception):
    def __init__(self, response, message=None) -> None:
        super().__init__("long text")
        self.response, self.server_message = response, message


class GatedRepoError(HfHubHTTPError):
    pass


class TransportError(Exception):
    pass


class Library:
    """Stands for huggingface_hub, remembers the calls."""

    def __init__(self) -> None:
        self.calls, self.listings = [], []
        modules = {
            name: types.ModuleType(name)
            for name in (
                "httpx2",
                "huggingface_hub",
                "huggingface_hub.errors",
                "huggingface_hub.file_download",
                "huggingface_hub.hf_api",
                "huggingface_hub.utils",
                "huggingface_hub.utils._http",
                "huggingface_hub.constants",
            )
        }
        self.modules = modules
        top = modules["huggingface_hub"]
        top.constants = modules["huggingface_hub.constants"]
        modules["httpx2"].TransportError = TransportError
        errors = modules["huggingface_hub.errors"]
        errors.HfHubHTTPError, errors.GatedRepoError, errors.RepositoryNotFoundError = (
            HfHubHTTPError,
            GatedRepoError,
            type("Gone", (HfHubHTTPError,), {}),
        )
        modules["huggingface_hub.utils"].build_hf_headers = lambda **options: {"authorization": "Bearer x"}
        modules["huggingface_hub.utils"]._http = modules["huggingface_hub.utils._http"]
        modules["huggingface_hub.utils._http"].default_client_factory = lambda: types.SimpleNamespace(
            event_hooks={"request": [self.calls.append], "response": []}
        )
        self.factory = None
        top.set_client_factory = lambda factory: setattr(self, "factory", factory)
        modules["huggingface_hub.hf_api"].RepoFile = types.SimpleNamespace
        modules["huggingface_hub.file_download"].http_get = self.http_get
        top.HfApi = lambda endpoint: types.SimpleNamespace(list_repo_tree=self.list_repo_tree)
        top.hf_hub_url = lambda repo, path, revision, endpoint: f"{endpoint}/{repo}/resolve/{revision}/{path}"
        top.hf_hub_download = self.hf_hub_download
        top.snapshot_download = lambda *args, **options: self.calls.append((args, options))

    def list_repo_tree(self, repo_id, recursive, revision):
        answer = self.listings.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def http_get(self, url, target, **options):
        self.calls.append((url, options))
        target.write(CONTENT[target.size :])

    def hf_hub_download(self, repo_id, path, revision, local_dir, endpoint):
        self.calls.append((repo_id, path, revision))
        there = Path(local_dir) / path
        there.parent.mkdir(parents=True)
        there.write_bytes(CONTENT)
        return str(there)


@pytest.fixture
def library(monkeypatch):
    made = Library()
    for name, module in made.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: made.calls.append(("sleep", seconds)))
    return made


def client(tmp_path, **options) -> hub_client.Client:
    messages: list[str] = []
    job = Job(str(tmp_path), "org/name", COMMIT, endpoint="https://hub.example", attempts=3, **options)
    return hub_client.Client(job, messages.append)


def listed(path, **options):
    lfs = types.SimpleNamespace(sha256="a" * 64)
    return types.SimpleNamespace(
        **{"path": path, "size": 3, "blob_id": "b" * 40, "lfs": lfs, "xet_hash": None, **options}
    )


def test_listing(library, tmp_path):
    library.listings = [[listed("a"), listed("c", lfs=None, xet_hash="e" * 64), "a folder"]]
    files = client(tmp_path).tree()
    assert files == [RepoFile("a", 3, "b" * 40, "a" * 64), RepoFile("c", 3, "b" * 40, "", "e" * 64)]
    assert library.modules["huggingface_hub.constants"].DOWNLOAD_CHUNK_SIZE == hub_client.PIECE


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://hub.example/api/models/org/name/tree/x?cursor=2", True),
        ("https://HUB.example:443/x", True),
        ("http://hub.example/api/models/org/name/tree/x?cursor=2", False),
        ("https://hub.example:8443/x", False),
        ("https://elsewhere.example/api/models/org/name/tree/x?cursor=2", False),
    ],
)
def test_the_next_page_of_a_listing_gets_the_token_on_the_hub_alone(library, tmp_path, url, sent):
    """The library asks for it with the token wherever it is said to be."""
    client(tmp_path)
    request = types.SimpleNamespace(url=url, headers={"authorization": "Bearer x"})
    hooks = library.factory().event_hooks["request"]
    for hook in hooks:
        hook(request)
    assert ("authorization" in request.headers) is sent
    assert library.calls == [request], "the library's own hook is not left out"


def test_listing_of_a_busy_hub(library, tmp_path):
    library.listings = [HfHubHTTPError(Response(429, retry_after="5")), TransportError("reset"), [listed("a")]]
    assert len(client(tmp_path).tree()) == 1
    assert library.calls == [("sleep", 5.0), ("sleep", 4.0)]


def test_listing_that_never_comes(library, tmp_path):
    library.listings = [TransportError("reset")] * 3
    with pytest.raises(PullError, match=r"the listing of org/name: TransportError: reset \(3 attempts\)"):
        client(tmp_path).tree()


def test_a_listing_may_not_lead_out(library, tmp_path):
    library.listings = [[listed("../../etc/passwd")]]
    with pytest.raises(ValueError, match="outside"):
        client(tmp_path).tree()


def target(tmp_path, file) -> HashedFile:
    return HashedFile(str(tmp_path / "part.incomplete"), file, lambda amount: None)


@pytest.mark.parametrize("file", [FILE, XET])
def test_by_http_with_an_offset(library, tmp_path, file):
    into = target(tmp_path, file)
    client(tmp_path).transfer(file, into)
    ((url, options),) = library.calls
    assert url == f"https://hub.example/org/name/resolve/{COMMIT}/sub/model.safetensors"
    assert (options["resume_size"], options["expected_size"]) == (0, 7)
    assert options["headers"] == {"authorization": "Bearer x", "Accept-Encoding": "identity"}
    assert into.seal() == file.etag
    into.close()


def test_by_xet(library, tmp_path):
    into = target(tmp_path, XET)
    client(tmp_path, xet=True).transfer(XET, into)
    assert library.calls == [("org/name", XET.path, COMMIT)]
    assert into.seal() == XET.etag
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part.incomplete"]
    into.close()


def test_seal(library, tmp_path):
    client(tmp_path, ignore_patterns=["original/*"], allow_patterns=["*.json"]).seal()
    ((args, options),) = library.calls
    assert args == ("org/name",)
    assert (options["revision"], options["ignore_patterns"]) == (COMMIT, ["original/*"])
    assert options["allow_patterns"] == ["*.json"]
    assert options["cache_dir"] == str(tmp_path / "hub")


def test_the_listing_is_for_every_user(library, tmp_path):
    path = Path(Cache(str(tmp_path)).listing("org/name", COMMIT))

    def download(*args, **options):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o600)

    library.modules["huggingface_hub"].snapshot_download = download
    client(tmp_path).seal()
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("trouble", "retry_after", "message"),
    [
        (HfHubHTTPError(Response(503, retry_after="7")), 7.0, "the hub answers 503: Reason"),
        (HfHubHTTPError(Response(503, retry_after="soon"), "busy"), None, "the hub answers 503: busy"),
        (HfHubHTTPError(Response(403, "https://cdn.example/x?sig=run-out")), None, "403"),
        (HfHubHTTPError(Response(416)), None, "416"),
        (TransportError(""), None, "the connection broke"),
        (OSError("Consistency check failed: size 3\nPlease retry"), None, "Consistency check failed: size 3"),
    ],
)
def test_transient_errors(library, tmp_path, trouble, retry_after, message):
    passing = client(tmp_path).translate(trouble)
    assert isinstance(passing, Passing)
    assert passing.retry_after == retry_after
    assert message in str(passing)
    assert "sig=" not in str(passing)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (HfHubHTTPError(Response(404), "Entry not found"), "404: Entry not found"),
        (HfHubHTTPError(Response(403), "no scope"), "403: no scope"),
        (GatedRepoError(Response(403, "https://cdn.example/"), "ask"), "403: ask"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (PullError("told"), "told"),
    ],
)
def test_permanent_errors(library, tmp_path, trouble, message):
    with pytest.raises(PullError, match=message):
        client(tmp_path).translate(trouble)


def test_a_bug_is_not_hidden(library, tmp_path):
    with pytest.raises(KeyError):
        client(tmp_path).translate(KeyError("x"))
