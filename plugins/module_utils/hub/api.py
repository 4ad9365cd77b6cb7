# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hub says of a token, a repository and a revision, and what to do about a refusal. The opener is passed in.

The standard library is enough for these questions, so they can be asked before anything was installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping
from urllib.parse import quote, urljoin, urlsplit

from .. import paths, web
from .snapshot import RepoFile, Snapshot, parse_tree

#: Where people accept licences and make tokens. A mirror has no such pages.
PAGES = "https://huggingface.co"
PASSING = (408, 429, 500, 502, 503, 504)
ATTEMPTS = 4
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """Header names in lower case. Status 0: nobody answered, ``reason`` says why."""

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


#: method, address, headers -> answer. It raises nothing and follows no redirect.
Opener = Callable[[str, str, Mapping[str, str]], Answer]


class HubError(Exception):
    """A refusal, as one sentence or two with the remedy. ``kind`` tells them apart for programs."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class Hub:
    """The hub, seen with this token."""

    endpoint: str
    opener: Opener
    sleep: Callable[[float], None]
    token: str = field(default="", repr=False)

    def ask(self, method: str, path: str) -> Answer:
        """One request, and again after a pause where the answer may pass; redirects on the same origin are followed."""
        url, redirects = self.endpoint.rstrip("/") + path, 0  # a mirror may live below a path of its own
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        attempt = 1
        while True:
            answer = self.opener(method, url, headers)
            location = answer.headers.get("location", "")
            if answer.status in web.REDIRECTS and location:
                there = urljoin(url, location)
                # A renamed repository stays on its host. Another one means a signed address: access was granted. The
                # token is for this origin alone: the same host over plain HTTP would have it in clear.
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
            raise HubError("unreachable", f"{self.endpoint} answers, but not as a Hugging Face hub does.") from None

    def account(self) -> str:
        """The name that the token belongs to."""
        answer = self.ask("GET", "/api/whoami-v2")
        if answer.status == 401:
            raise HubError(
                "bad_token",
                f"The Hugging Face token is not valid: {self.endpoint} does not know it."
                f" Make one with read permission at {PAGES}/settings/tokens and set huggingface_token.",
            )
        if answer.status != 200:
            raise self.no_hub(answer)
        try:
            return str(json.loads(answer.body)["name"])
        except (ValueError, KeyError, TypeError):
            raise self.no_hub(answer) from None

    def check_access(self, snapshot: Snapshot, account: str = "") -> None:
        """Whether files may be fetched. The listing of a gated repository is open to all, so a file is asked for."""
        path = f"/{snapshot.repo_id}/resolve/{quote(snapshot.revision, safe='')}/config.json"
        answer = self.ask("HEAD", path)
        if answer.status < 400 and answer.status != 0:
            return
        if answer.code == "EntryNotFound":  # a repository without this file; its listing will tell what it has
            return
        raise self.refusal(answer, snapshot, account)

    def commit(self, snapshot: Snapshot) -> str:
        """The commit that a branch or a tag stands for."""
        if snapshot.pinned:
            return snapshot.revision
        info, _answer = self.json(
            f"/api/models/{snapshot.repo_id}/revision/{quote(snapshot.revision, safe='')}", snapshot
        )
        try:
            return paths.commit(info.get("sha") if isinstance(info, dict) else info)
        except paths.Refused as refused:
            raise self.no_answer(snapshot, refused) from refused

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
        return HubError("refused", f"What {self.endpoint} lists of {snapshot.repo_id} is not taken: {refused}.")

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
                f"{self.endpoint} answers {answer.status} and leads to {there}, where no token is sent: it is for"
                " scheme, host and port together. Set huggingface_endpoint to the address that answers itself.",
            )
        return HubError("unreachable", f"{self.endpoint} answers {answer.status} {answer.message}".rstrip() + ".")

    def refusal(self, answer: Answer, snapshot: Snapshot, account: str = "") -> HubError:
        """Which of the refusals it is, and what to do about it."""
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
                f" Accept its licence at {page}, and wait where the owner approves each request.",
            )
        if code == "RepoNotFound" or status == 404 or (status == 401 and not self.token):
            seen_by = f"{who} may not see it" if self.token else "it is private and no token was given"
            sentence = f"{snapshot.repo_id} does not exist on {self.endpoint}, or {seen_by}. Look at {page}."
            return HubError("no_repository", sentence)
        if status == 403:
            return HubError(
                "scope",
                f"The token may not read {snapshot.repo_id}: {answer.message.rstrip('.') or 'forbidden'}. It is a"
                f" fine-grained token; give it read access to gated repositories at {PAGES}/settings/tokens.",
            )
        if status == 401:
            return HubError("bad_token", f"The token was refused for {snapshot.repo_id}: {answer.message.rstrip('.')}.")
        return self.no_hub(answer)


def pause(attempt: int, headers: Mapping[str, str]) -> float:
    """How long to wait before the next attempt: what the hub asks for, else twice as long each time, with a bound."""
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:
        wait = float(2 ** (attempt - 1))
    return max(0.0, min(wait, LONGEST_WAIT_S))


def next_page(link: str) -> str:
    """The query of the page that a Link header calls the next; empty on the last. A mirror may leave the hub's host."""
    for part in link.split(","):
        address, _semicolon, relation = part.partition(";")
        if 'rel="next"' in relation:
            return urlsplit(address.strip().strip("<>")).query
    return ""
