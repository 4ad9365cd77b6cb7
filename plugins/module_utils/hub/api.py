# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to the hub about a token, a repository and a revision, and the remedy for each refusal.

Uses the standard library only, so these questions can be asked before anything is installed. The opener is passed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence
from urllib.parse import quote, urljoin, urlsplit

from .. import paths
from ..node import web
from .snapshot import Hasher, RepoFile, Snapshot, parse_tree

#: Where users accept licences and create tokens. A mirror has no such pages.
PAGES = "https://huggingface.co"
PASSING = (408, 429, 500, 502, 503, 504)
ATTEMPTS = 4
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Header names are in lower case. Status 0: no connection, ``reason`` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reason: str = ""

    @property
    def code(self) -> str:
        return self.headers.get("x-error-code", "")

    @property
    def message(self) -> str:
        return self.headers.get("x-error-message", "") or self.reason


#: (method, address, headers) -> answer. Raises nothing and follows no redirect.
Opener = Callable[[str, str, Mapping[str, str]], Answer]


class HubError(Exception):
    """A refusal in one or two sentences, with the remedy. ``kind`` names it for programs."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class About:
    """A revision of a repository: its commit, whether a licence must be accepted, which one, and its files."""

    commit: str
    gated: bool
    license: str
    files: Sequence[RepoFile]


@dataclass(frozen=True)
class Hub:
    """The hub, asked with this token."""

    endpoint: str
    opener: Opener
    sleep: Callable[[float], None]
    token: str = field(default="", repr=False)

    def ask(self, method: str, path: str) -> Answer:
        """Send one request. Retry transient errors after a pause; follow redirects on the same origin."""
        url, redirects = self.endpoint.rstrip("/") + path, 0  # a mirror may have a path of its own
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        attempt = 1
        while True:
            answer = self.opener(method, url, headers)
            location = answer.headers.get("location", "")
            if answer.status in web.REDIRECTS and location:
                there = urljoin(url, location)
                # A renamed repository redirects on the same host. A redirect to another host is a signed address:
                # access was granted. The token goes to this origin only: plain HTTP to the same host would expose it.
                if not web.same_origin(there, url) or redirects == web.MOST_REDIRECTS:
                    return answer
                url, redirects = there, redirects + 1
                continue
            if answer.status not in (0, *PASSING) or attempt == ATTEMPTS:
                return answer
            self.sleep(pause(attempt, answer.headers))
            attempt += 1

    def json(self, path: str, snapshot: Snapshot) -> tuple[Any, Answer]:
        answer = self.ask("GET", path)
        if answer.status != 200:
            raise self.refusal(answer, snapshot)
        try:
            return json.loads(answer.body), answer
        except ValueError:
            raise HubError("unreachable", f"{self.endpoint} answers, but not like a Hugging Face hub.") from None

    def account(self) -> str:
        """The name of the account that owns the token."""
        answer = self.ask("GET", "/api/whoami-v2")
        if answer.status == 401:
            raise HubError(
                "bad_token",
                f"The Hugging Face token is not valid: {self.endpoint} does not know it."
                f" Create one with read permission at {PAGES}/settings/tokens and set huggingface_token.",
            )
        if answer.status != 200:
            raise self.no_hub(answer)
        try:
            return str(json.loads(answer.body)["name"])
        except (ValueError, KeyError, TypeError):
            raise self.no_hub(answer) from None

    def check_access(self, snapshot: Snapshot, account: str = "") -> None:
        """Raise HubError unless files may be downloaded. Asks for a file, since anyone may list a gated repository."""
        path = f"/{snapshot.repo_id}/resolve/{quote(snapshot.revision, safe='')}/config.json"
        answer = self.ask("HEAD", path)
        if answer.status < 400 and answer.status != 0:
            return
        if answer.code == "EntryNotFound":  # a repository without this file; the listing shows what it has
            return
        raise self.refusal(answer, snapshot, account)

    def commit(self, snapshot: Snapshot) -> str:
        """The commit of a branch or a tag."""
        return snapshot.revision if snapshot.pinned else self._info(snapshot)[0]

    def about(self, snapshot: Snapshot) -> About:
        """What the hub says of a revision, in two questions."""
        commit, info = self._info(snapshot)
        card = info.get("cardData")
        licence = card.get("license") if isinstance(card, dict) else None
        files = self.tree(snapshot, commit)
        return About(commit, bool(info.get("gated")), licence if isinstance(licence, str) else "", files)

    def _info(self, snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
        """The commit of a revision, and all that the hub says of it."""
        info, _answer = self.json(
            f"/api/models/{snapshot.repo_id}/revision/{quote(snapshot.revision, safe='')}", snapshot
        )
        try:
            return paths.commit(info.get("sha") if isinstance(info, dict) else info), info
        except paths.Refused as refused:
            raise self.no_answer(snapshot, refused) from refused

    def read(self, snapshot: Snapshot, commit: str, file: RepoFile) -> bytes:
        """A small file's content, compared with its hash in the listing."""
        answer = self.ask("GET", f"/{snapshot.repo_id}/resolve/{commit}/{quote(file.path)}")
        hops = 0
        while answer.status in web.REDIRECTS and answer.headers.get("location") and hops < web.MOST_REDIRECTS:
            # A signed address elsewhere, which wants no token. What comes from there is compared with the listing.
            answer = self.opener("GET", urljoin(f"{self.endpoint.rstrip('/')}/", answer.headers["location"]), {})
            hops += 1
        if answer.status != 200:
            raise self.refusal(answer, snapshot)
        hasher = Hasher(file)
        hasher.update(answer.body)
        if hasher.hexdigest() != file.etag:
            raise HubError(
                "refused",
                f"{self.endpoint} sends {file.path} of {snapshot.repo_id} with other bytes than its own listing says:"
                f" its {file.hash_name} is not {file.etag}. A proxy or mirror on the way may hold a broken copy.",
            )
        return answer.body

    def tree(self, snapshot: Snapshot, commit: str) -> list[RepoFile]:
        """Every file of a revision, with its hash."""
        query = "recursive=true&expand=false"
        files: list[RepoFile] = []
        while query:
            entries, answer = self.json(f"/api/models/{snapshot.repo_id}/tree/{commit}?{query}", snapshot)
            try:
                files += parse_tree(entries)
            except paths.Refused as refused:
                raise self.no_answer(snapshot, refused) from refused
            query = next_page(answer.headers.get("link", ""))
        return files

    def no_answer(self, snapshot: Snapshot, refused: Exception) -> HubError:
        return HubError("refused", f"{self.endpoint} sent an invalid listing of {snapshot.repo_id}: {refused}.")

    def no_hub(self, answer: Answer) -> HubError:
        if answer.status == 0:
            return HubError(
                "unreachable",
                f"{self.endpoint} cannot be reached: {answer.reason}. Check name resolution, proxy and firewall,"
                " or set huggingface_endpoint to a mirror.",
            )
        location = answer.headers.get("location", "")
        if answer.status in web.REDIRECTS and location:
            there = web.without_password(urljoin(self.endpoint, location)).partition("?")[0]
            return HubError(
                "unreachable",
                f"{self.endpoint} answers {answer.status} and redirects to {there}. No token is sent there:"
                " a token is for one scheme, host and port. Set huggingface_endpoint to an address without a redirect.",
            )
        return HubError("unreachable", f"{self.endpoint} answers {answer.status} {answer.message}".rstrip() + ".")

    def refusal(self, answer: Answer, snapshot: Snapshot, account: str = "") -> HubError:
        """The error for an answer, with its remedy."""
        who = f"the account {account}" if account else "the token's account"
        page, status, code = f"{PAGES}/{snapshot.repo_id}", answer.status, answer.code
        if code == "RevisionNotFound":
            sentence = f"{snapshot.repo_id} has no revision {snapshot.revision}. Its revisions: {page}/commits/main."
            return HubError("no_revision", sentence)
        if code == "GatedRepo" and (status == 401 or not self.token):
            return HubError(
                "gated_no_token",
                f"{snapshot.repo_id} is gated and no token was given."
                f" Accept its licence at {page} and set huggingface_token.",
            )
        if code == "GatedRepo":
            return HubError(
                "gated",
                f"{who[0].upper()}{who[1:]} has not been granted access to {snapshot.repo_id}."
                f" Accept its licence at {page}, and wait if its owner must approve the request.",
            )
        if code == "RepoNotFound" or status == 404 or (status == 401 and not self.token):
            seen_by = f"{who} may not see it" if self.token else "it is private and no token was given"
            sentence = f"{snapshot.repo_id} does not exist on {self.endpoint}, or {seen_by}. Check {page}."
            return HubError("no_repository", sentence)
        if status == 403:
            return HubError(
                "scope",
                f"The token may not read {snapshot.repo_id}: {answer.message.rstrip('.') or 'forbidden'}. It is a"
                f" fine-grained token: give it read access to gated repositories at {PAGES}/settings/tokens.",
            )
        if status == 401:
            return HubError("bad_token", f"The token was refused for {snapshot.repo_id}: {answer.message.rstrip('.')}.")
        return self.no_hub(answer)


def pause(attempt: int, headers: Mapping[str, str]) -> float:
    """Seconds until the next attempt: Retry-After if the hub sent one, else twice as long each time, up to a limit."""
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:
        wait = float(2 ** (attempt - 1))
    return max(0.0, min(wait, LONGEST_WAIT_S))


def next_page(link: str) -> str:
    """The query of the next page in a Link header; empty on the last. Ignores the host: a mirror may name another."""
    for part in link.split(","):
        address, _semicolon, relation = part.partition(";")
        if 'rel="next"' in relation:
            return urlsplit(address.strip().strip("<>")).query
    return ""
