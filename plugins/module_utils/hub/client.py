# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only file that calls huggingface_hub. Runs in its venv on the node, never in a module or on the controller."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any, Callable

from ..node import web
from .file import HashedFile
from .job import Job, Passing, PullError
from .snapshot import Cache, RepoFile

#: The hub serves larger files through xet only.
LARGEST_PLAIN_FILE = 50_000_000_000
PIECE = 256 * 1024
#: Errors that a retry cannot fix.
FINAL = (400, 401, 404, 410)


class Client:
    def __init__(self, job: Job, say: Callable[[str], None]) -> None:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.utils import _http, build_hf_headers

        # The block size of a download. The default is ten times as large, and a block that is not complete when the
        # connection or the process ends is downloaded again.
        constants.DOWNLOAD_CHUNK_SIZE = PIECE
        huggingface_hub.set_client_factory(lambda: self.kept_to_the_hub(_http.default_client_factory()))
        self.job, self.say = job, say
        self.api = huggingface_hub.HfApi(endpoint=job.endpoint)
        # No compression: byte offsets must stay valid when a download resumes.
        self.headers = {**build_hf_headers(library_name="gpunode.llm"), "Accept-Encoding": "identity"}

    def kept_to_the_hub(self, client: Any) -> Any:
        """The library's HTTP client, limited to send the token to the hub's scheme, host and port.

        The library would send it to any address that a listing names as its next page. A mirror may pass on the
        hub's own addresses, or write http although it serves TLS.
        """

        def keep(request: Any) -> None:
            if not web.same_origin(str(request.url), self.job.endpoint):
                request.headers.pop("authorization", None)

        hooks = client.event_hooks
        client.event_hooks = {**hooks, "request": [*hooks["request"], keep]}
        return client

    def tree(self) -> list[RepoFile]:
        """The listing of the revision. Retries: it is the first request to a hub that may be busy."""
        for attempt in range(1, self.job.attempts + 1):
            try:
                return [self.file(f) for f in self.listing()]
            except Exception as trouble:
                passing = self.translate(trouble)
                if attempt == self.job.attempts:
                    raise PullError(f"the listing of {self.job.repo_id}: {passing} ({attempt} attempts)") from trouble
                self.say(f"the listing of {self.job.repo_id}: {passing}; again")
                time.sleep(passing.retry_after if passing.retry_after is not None else min(2.0**attempt, 60.0))
        raise AssertionError("unreachable")

    def listing(self) -> list[Any]:
        from huggingface_hub.hf_api import RepoFile as Listed

        entries = self.api.list_repo_tree(self.job.repo_id, recursive=True, revision=self.job.commit)
        return [entry for entry in entries if isinstance(entry, Listed)]

    def file(self, listed: Any) -> RepoFile:
        sha256 = listed.lfs.sha256 if listed.lfs else ""
        return RepoFile(listed.path, listed.size, listed.blob_id, sha256, getattr(listed, "xet_hash", None) or "")

    def transfer(self, file: RepoFile, target: HashedFile) -> None:
        """Download the rest of a file into ``target``."""
        try:
            if file.xet_hash and (self.job.xet or file.size > LARGEST_PLAIN_FILE):
                self.by_xet(file, target)
            else:
                self.by_http(file, target)
        except Exception as trouble:
            raise self.translate(trouble) from trouble

    def by_http(self, file: RepoFile, target: HashedFile) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        url = hf_hub_url(self.job.repo_id, file.path, revision=self.job.commit, endpoint=self.job.endpoint)
        http_get(
            url,
            target,
            resume_size=target.size,
            headers=dict(self.headers),
            expected_size=file.size,
            displayed_filename=file.path,
        )

    def by_xet(self, file: RepoFile, target: HashedFile) -> None:
        """Download through hf_xet, with several connections per file. An interrupted file starts again."""
        from huggingface_hub import hf_hub_download

        folder = f"{target.path}.xet"
        path = hf_hub_download(
            self.job.repo_id, file.path, revision=self.job.commit, local_dir=folder, endpoint=self.job.endpoint
        )
        target.adopt(path)
        shutil.rmtree(folder, ignore_errors=True)

    def translate(self, trouble: Exception) -> Passing:
        """Return a transient error; raise a permanent one."""
        import httpx2
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        if isinstance(trouble, (Passing, PullError)):
            raise trouble
        if isinstance(trouble, HfHubHTTPError):
            status = trouble.response.status_code
            reason = f"the hub answers {status}: {trouble.server_message or trouble.response.reason_phrase}"
            # From another host, 403 means an expired signed address: the next attempt gets a new one.
            refused = status == 403 and str(trouble.response.url).startswith(self.job.endpoint)
            if refused or status in FINAL or isinstance(trouble, (GatedRepoError, RepositoryNotFoundError)):
                raise PullError(f"{self.job.repo_id}: {reason}") from trouble
            return Passing(reason, _seconds(trouble.response.headers.get("retry-after")))
        if isinstance(trouble, httpx2.TransportError):
            return Passing(f"{type(trouble).__name__}: {str(trouble) or 'the connection broke'}")
        if isinstance(trouble, OSError) and trouble.errno is None:
            return Passing(str(trouble).splitlines()[0])  # huggingface_hub's own check of the length failed
        if isinstance(trouble, OSError):
            raise PullError(f"{self.job.home}: {trouble.strerror}") from trouble
        raise trouble

    def seal(self) -> None:
        """Let huggingface_hub check the snapshot: it writes the listing that its offline mode reads."""
        from huggingface_hub import snapshot_download

        snapshot_download(
            self.job.repo_id,
            revision=self.job.commit,
            cache_dir=os.path.join(self.job.home, "hub"),
            ignore_patterns=list(self.job.ignore_patterns) or None,
            allow_patterns=list(self.job.allow_patterns) or None,
            endpoint=self.job.endpoint,
        )
        # It writes the listing with mode 0600, and reports it as corrupted to any other user.
        with contextlib.suppress(FileNotFoundError):
            os.chmod(Cache(self.job.home).listing(self.job.repo_id, self.job.commit), 0o644)


def _seconds(text: Any) -> float | None:
    try:
        return max(0.0, float(text))
    except (TypeError, ValueError):
        return None
