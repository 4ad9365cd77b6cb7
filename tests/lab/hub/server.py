# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Hugging Face hub for the lab: what the real client asks for, plus faults on demand and a count of bytes.

A repository is a folder, ``ROOT/ORG/NAME/`` with its files and, where it is not a plain public one, ``.hub.json``:
``{"gated": "manual", "private": true, "commit": "40 hex", "cdn": "http://name:port"}``, every key optional. The commit
follows from the content unless it is given. With ``cdn`` large files are answered by a redirect to this server under
that other name, as the real hub does; the token must not come along.

Tokens: ``hf_lab_good`` may read everything, ``hf_lab_no_licence`` has not been granted any gated repository,
``hf_lab_no_scope`` is a fine-grained token whose permissions leave gated repositories out; every other one is refused.

Under ``/_lab/``, for tests (never part of the real hub):

    GET    /_lab/counters   bytes and requests, in all and per file
    GET    /_lab/faults     the faults in force
    POST   /_lab/faults     one fault, or a list of them, see Fault
    DELETE /_lab/faults     none any more
    POST   /_lab/reset      counters to nothing, faults gone
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import hashlib
import json
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKENS = {"hf_lab_good": "good", "hf_lab_no_licence": "no_licence", "hf_lab_no_scope": "no_scope"}
LFS_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.onnx", "*.h5", "*.msgpack", "*.model")
CHUNK = 64 * 1024
BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclasses.dataclass
class Fault:
    """One thing that goes wrong, ``times`` times (-1 = always), for the requests whose path matches ``path``.

    kind ``status``  answers ``status`` (with ``retry_after`` seconds where given)
         ``cut``     drops the connection once byte ``at`` of the file was sent (a fraction below 1 is a share of it)
         ``stall``   sends nothing more from byte ``at`` on, for ``seconds``, then drops the connection
         ``wrong``   sends byte ``at`` inverted
         ``slow``    holds all matching answers together to ``rate`` bytes a second
         ``hold``    sends a byte a second from byte ``at`` on, so that nobody gives up, until the fault is taken away
    """

    kind: str
    path: str = ".*"
    method: str = "GET"
    times: int = 1
    status: int = 503
    retry_after: float | None = None
    at: float = 0.5
    seconds: float = 3600.0
    rate: float = 1_000_000.0

    def __post_init__(self) -> None:
        if self.kind not in ("status", "cut", "stall", "wrong", "slow", "hold"):
            raise ValueError(f"unknown fault kind {self.kind!r}")
        self.pattern = re.compile(self.path)
        self.free_at = 0.0
        if self.kind in ("slow", "hold"):
            self.times = -1

    def offset(self, size: int) -> int:
        return int(self.at * size) if self.at < 1 else int(self.at)


class Lab:
    """What tests change while the server runs. Every access is under one lock."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.Lock())
        self.faults: list[Fault] = []
        self.clear_counters()

    def clear_counters(self) -> None:
        self.bytes: dict[str, int] = {}
        self.requests: dict[str, int] = {}

    def count_request(self, key: str) -> None:
        with self.lock:
            self.requests[key] = self.requests.get(key, 0) + 1

    def count_bytes(self, path: str, amount: int) -> None:
        with self.lock:
            self.bytes[path] = self.bytes.get(path, 0) + amount

    def take(self, kind: str, method: str, path: str, span: tuple[int, int, int] | None = None) -> Fault | None:
        """The first fault of this kind in force. ``span`` = (first, end, file size) of the bytes about to be sent."""
        with self.lock:
            for fault in self.faults:
                if fault.kind != kind or fault.times == 0 or fault.method not in (method, "*"):
                    continue
                if not fault.pattern.search(path):
                    continue
                if span and not span[0] <= fault.offset(span[2]) < span[1]:
                    continue
                if fault.times > 0:
                    fault.times -= 1
                return fault
        return None

    def throttle(self, fault: Fault, amount: int) -> None:
        """One link for all: each chunk waits until the chunks before it have passed."""
        with self.lock:
            now = time.monotonic()
            fault.free_at = max(fault.free_at, now) + amount / fault.rate
            wait = fault.free_at - now
        if wait > 0:
            time.sleep(wait)

    def hold(self, fault: Fault) -> bool:
        """Wait a second, or until the fault is taken away; whether it is still in force."""
        with self.lock:
            return not self.lock.wait_for(lambda: all(one is not fault for one in self.faults), 1)

    def clear_faults(self) -> None:
        with self.lock:
            self.faults = []
            self.lock.notify_all()

    def counters(self) -> dict[str, Any]:
        with self.lock:
            return {
                "total_bytes": sum(self.bytes.values()),
                "total_requests": sum(self.requests.values()),
                "bytes": dict(self.bytes),
                "requests": dict(self.requests),
            }


@dataclasses.dataclass(frozen=True)
class File:
    path: str
    size: int
    oid: str
    sha256: str
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


class Repository:
    """One folder, hashed once and again whenever a file in it changed."""

    def __init__(self, folder: Path, repo_id: str) -> None:
        self.folder = folder
        self.repo_id = repo_id
        self.lock = threading.Lock()
        self.stamp: tuple[Any, ...] = ()
        self.hashed: dict[tuple[Any, ...], File] = {}
        self.files: dict[str, File] = {}
        self.settings: dict[str, Any] = {}
        self.commit = ""

    def refresh(self) -> Repository:
        with self.lock:
            found = sorted(p for p in self.folder.rglob("*") if p.is_file())
            stamp = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found)
            if stamp != self.stamp:
                self.read(found)
                self.stamp = stamp
        return self

    def read(self, found: list[Path]) -> None:
        settings = self.folder / ".hub.json"
        self.settings = json.loads(settings.read_text()) if settings.exists() else {}
        files = [self.hash(p) for p in found if p != settings]
        self.files = {f.path: f for f in files}
        content = self.repo_id + "".join(f"\n{f.path}\0{f.oid}" for f in files)
        self.commit = self.settings.get("commit") or hashlib.sha1(content.encode()).hexdigest()

    def hash(self, path: Path) -> File:
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self.hashed:
            sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {stat.st_size}\0".encode())
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    sha256.update(chunk)
                    blob.update(chunk)
            name = path.relative_to(self.folder).as_posix()
            lfs = any(fnmatch.fnmatch(name, pattern) for pattern in LFS_PATTERNS)
            self.hashed[key] = File(name, stat.st_size, blob.hexdigest(), sha256.hexdigest(), lfs)
        return self.hashed[key]

    def has_revision(self, revision: str) -> bool:
        return revision in ("main", self.commit, "refs/heads/main")

    def info(self) -> dict[str, Any]:
        return {
            "_id": hashlib.sha1(self.repo_id.encode()).hexdigest()[:24],
            "id": self.repo_id,
            "modelId": self.repo_id,
            "sha": self.commit,
            "siblings": [{"rfilename": name} for name in self.files],
            "private": bool(self.settings.get("private", False)),
            "gated": self.settings.get("gated", False),
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def tree(self, under: str) -> list[dict[str, Any]]:
        prefix = f"{under.strip('/')}/" if under.strip("/") else ""
        entries = []
        for file in self.files.values():
            if not file.path.startswith(prefix):
                continue
            entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": file.path}
            if file.lfs:
                entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
            entries.append(entry)
        return entries


class Refusal(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], root: Path) -> None:
        self.root = root
        self.lab = Lab()
        self.repositories: dict[str, Repository] = {}
        self.lock = threading.Lock()
        super().__init__(address, Handler)

    def repository(self, repo_id: str) -> Repository | None:
        folder = self.root / repo_id
        if repo_id.count("/") != 1 or ".." in repo_id.split("/") or not folder.is_dir():
            return None
        with self.lock:
            known = self.repositories.setdefault(repo_id, Repository(folder, repo_id))
        return known.refresh()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    # -- the verbs ------------------------------------------------------------------------------------------------
    def do_GET(self) -> None:
        self.dispatch()

    def do_HEAD(self) -> None:
        self.dispatch()

    def do_POST(self) -> None:
        self.dispatch()

    def do_DELETE(self) -> None:
        self.dispatch()

    def dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            if path.startswith("/_lab/"):
                self.admin(path)
                return
            self.server.lab.count_request(f"{self.command} {path}")
            fault = self.server.lab.take("status", self.command, path)
            if fault:
                extra = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                self.answer(fault.status, {"error": "the lab was told to answer this"}, extra)
                return
            self.route(path)
        except Refusal as refusal:
            extra = {"X-Error-Message": refusal.message}
            if refusal.code:
                extra["X-Error-Code"] = refusal.code
            self.answer(refusal.status, {"error": refusal.message}, extra)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def route(self, path: str) -> None:
        for pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match:
                handler(self, **match.groupdict())
                return
        raise Refusal(404, None, "Not Found")

    # -- who asks -------------------------------------------------------------------------------------------------
    def who(self) -> str | None:
        """The kind of token that came with the request; None without one. A token that is unknown is refused here."""
        kind, _space, token = (self.headers.get("Authorization") or "").partition(" ")
        if not token:
            return None
        if kind.lower() != "bearer" or token.strip() not in TOKENS:
            raise Refusal(401, None, BAD_TOKEN)
        return TOKENS[token.strip()]

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        who = self.who()
        repository = self.server.repository(repo_id)
        if repository is None or (repository.settings.get("private") and who != "good"):
            # The hub does not say whether a repository that one may not see exists.
            if who is None:
                raise Refusal(401, "RepoNotFound", "Invalid username or password.")
            raise Refusal(404, "RepoNotFound", "Repository not found")
        if revision is not None and not repository.has_revision(revision):
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository

    def check_licence(self, repository: Repository) -> None:
        if not repository.settings.get("gated"):
            return
        who, repo_id = self.who(), repository.repo_id
        if who is None:
            raise Refusal(
                401,
                "GatedRepo",
                f"Access to model {repo_id} is restricted. You must have access to it and be authenticated to access"
                " it. Please log in.",
            )
        if who == "no_licence":
            raise Refusal(
                403,
                "GatedRepo",
                f"Access to model {repo_id} is restricted and you are not in the authorized list."
                f" Visit https://huggingface.co/{repo_id} to ask for access.",
            )
        if who == "no_scope":
            raise Refusal(
                403,
                None,
                "Please enable access to public gated repositories in your fine-grained token settings to view this"
                " repository.",
            )

    # -- the hub's pages ------------------------------------------------------------------------------------------
    def whoami(self) -> None:
        who = self.who()
        if who is None:
            raise Refusal(401, None, BAD_TOKEN)
        role = "fineGrained" if who == "no_scope" else "read"
        token = {"displayName": f"lab {who}", "role": role}
        auth = {"type": "access_token", "accessToken": token}
        user = {"type": "user", "name": f"lab-{who}", "fullname": f"Lab {who}", "orgs": [], "auth": auth}
        self.answer(200, user)

    def info(self, repo_id: str, revision: str | None = None) -> None:
        self.answer(200, self.repository(repo_id, revision).info())

    def tree(self, repo_id: str, revision: str, under: str | None = None) -> None:
        # One page, whatever its length: the real hub sends a Link header after 1,000 entries.
        entries = self.repository(repo_id, revision).tree(under or "")
        query = parse_qs(urlsplit(self.path).query)
        limit, first = int(query.get("limit", ["1000"])[0]), int(query.get("cursor", ["0"])[0])
        extra = {}
        if first + limit < len(entries):
            base = f"http://{self.headers.get('Host')}{urlsplit(self.path).path}"
            extra["Link"] = f'<{base}?recursive=true&expand=false&limit={limit}&cursor={first + limit}>; rel="next"'
        self.answer(200, entries[first : first + limit], extra)

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self.repository(repo_id, revision)
        self.check_licence(repository)
        file = repository.files.get(name)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes", "ETag": f'"{file.etag}"'}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
            if repository.settings.get("cdn"):
                there = f"{repository.settings['cdn']}/_cdn/{repo_id}/{file.sha256}/{quote(name)}"
                self.answer(302, {}, headers | {"Location": there})
                return
        self.send_file(repository.folder / name, file, headers)

    def cdn(self, repo_id: str, sha256: str, name: str) -> None:
        if self.headers.get("Authorization"):
            raise Refusal(400, None, "Only one auth mechanism allowed: a signed address takes no Authorization header")
        repository = self.server.repository(repo_id)
        file = repository.files.get(name) if repository else None
        if repository is None or file is None or file.sha256 != sha256:
            raise Refusal(403, None, "the signed address is not valid any more")
        self.send_file(repository.folder / name, file, {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"'})

    # -- bytes ----------------------------------------------------------------------------------------------------
    def span(self, size: int) -> tuple[int, int] | None:
        """First byte and end that the Range header asks for; None where it cannot be met."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not match or match.groups() == ("", ""):
            return 0, size
        first, last = match.groups()
        if not first:
            return max(0, size - int(last)), size
        end = min(size, int(last) + 1) if last else size
        return (int(first), end) if int(first) < size and int(first) < end else None

    def send_file(self, path: Path, file: File, headers: dict[str, str]) -> None:
        span = self.span(file.size)
        if span is None:
            self.answer(416, {}, headers | {"Content-Range": f"bytes */{file.size}"})
            return
        first, end = span
        self.send_response(206 if "Range" in self.headers else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{file.size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - first))
        self.end_headers()
        if self.command != "HEAD":
            self.send_bytes(path, file, first, end)

    def send_bytes(self, path: Path, file: File, first: int, end: int) -> None:
        lab, url = self.server.lab, unquote(urlsplit(self.path).path)
        span = (first, end, file.size)
        cut, stall = lab.take("cut", "GET", url, span), lab.take("stall", "GET", url, span)
        wrong, slow = lab.take("wrong", "GET", url, span), lab.take("slow", "GET", url)
        hold = lab.take("hold", "GET", url)
        held_from = hold.offset(file.size) if hold else end
        stops = [f.offset(file.size) for f in (cut, stall) if f]
        stop = min([*stops, end])
        with path.open("rb") as stream:
            stream.seek(first)
            while first < stop:
                if hold and first >= held_from and not lab.hold(hold):
                    hold, held_from = None, end
                until = first + 1 if first >= held_from else min(stop, held_from)
                chunk = bytearray(stream.read(min(CHUNK, until - first)))
                if wrong and first <= wrong.offset(file.size) < first + len(chunk):
                    chunk[wrong.offset(file.size) - first] ^= 0xFF
                if slow:
                    lab.throttle(slow, len(chunk))
                # First counted: a client that has the last byte may ask for the count at once.
                lab.count_bytes(url, len(chunk))
                self.wfile.write(chunk)
                first += len(chunk)
        if stops:
            if stall and stop == stall.offset(file.size):
                time.sleep(stall.seconds)
            self.close_connection = True

    # -- for tests ------------------------------------------------------------------------------------------------
    def admin(self, path: str) -> None:
        lab = self.server.lab
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = (self.command, path)
        try:
            if what == ("POST", "/_lab/faults"):
                given = json.loads(body)
                faults = [Fault(**one) for one in (given if isinstance(given, list) else [given])]
                with lab.lock:
                    lab.faults += faults
            elif what in (("DELETE", "/_lab/faults"), ("POST", "/_lab/reset")):
                lab.clear_faults()
                if path.endswith("reset"):
                    lab.clear_counters()
            elif what not in (("GET", "/_lab/counters"), ("GET", "/_lab/faults")):
                raise Refusal(404, None, "no such page in the lab")
        except (ValueError, TypeError) as problem:
            raise Refusal(400, None, str(problem)) from problem
        if path.endswith("counters"):
            self.answer(200, lab.counters())
        else:
            self.answer(200, [dataclasses.asdict(fault) for fault in lab.faults])

    # -- answers --------------------------------------------------------------------------------------------------
    def answer(self, status: int, body: Any, extra: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.send_held(content)

    def send_held(self, content: bytes) -> None:
        lab, path = self.server.lab, unquote(urlsplit(self.path).path)
        hold = None if path.startswith("/_lab/") else lab.take("hold", self.command, path)
        at = hold.offset(len(content)) if hold else len(content)
        self.wfile.write(content[:at])
        while hold and at < len(content) and lab.hold(hold):
            self.wfile.write(content[at : at + 1])
            at += 1
        self.wfile.write(content[at:])

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{formatdate()} {self.client_address[0]} {format % args}", flush=True)


REPO = r"(?P<repo_id>[^/]+/[^/]+)"
ROUTES = [
    (re.compile(r"/api/whoami-v2"), Handler.whoami),
    (re.compile(rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<under>.*))?"), Handler.tree),
    (re.compile(rf"/api/models/{REPO}/revision/(?P<revision>[^/]+)"), Handler.info),
    (re.compile(rf"/api/models/{REPO}"), Handler.info),
    (re.compile(rf"/_cdn/{REPO}/(?P<sha256>[0-9a-f]{{64}})/(?P<name>.+)"), Handler.cdn),
    (re.compile(rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)"), Handler.resolve),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hugging Face hub for the lab")
    parser.add_argument("--root", type=Path, required=True, help="folder of ORG/NAME/ repositories")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    hub = Hub((options.host, options.port), options.root)
    print(f"hub on {options.host}:{hub.server_port} from {options.root}", flush=True)
    hub.serve_forever()


if __name__ == "__main__":
    main()
