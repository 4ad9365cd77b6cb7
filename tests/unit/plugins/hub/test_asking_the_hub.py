# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import api as hub_api
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer, Hub, HubError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import RepoFile, Snapshot

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
LLAMA = Snapshot("meta-llama/Llama-3.1-8B-Instruct", COMMIT)
PAGE = "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct"


class Net:
    """Answers in order, the last one for ever; remembers what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.requests, self.slept = list(answers), [], []

    def __call__(self, method, url, headers):
        self.requests.append((method, url, dict(headers)))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def hub(self, token="hf_secret", endpoint="https://hub.example") -> Hub:
        return Hub(endpoint, self, self.slept.append, token)


def refused(status: int, code: str = "", message: str = "") -> Answer:
    return Answer(status, {"x-error-code": code, "x-error-message": message})


def found(value) -> Answer:
    return Answer(200, {}, json.dumps(value).encode())


@pytest.mark.parametrize(
    ("answer", "token", "kind", "message"),
    [
        (refused(401, "GatedRepo", "restricted"), "", "gated_no_token", PAGE),
        (refused(403, "GatedRepo", "not in the list"), "hf_x", "gated", PAGE),
        (refused(403, "", "enable gated"), "hf_x", "scope", "https://huggingface.co/settings/tokens"),
        (refused(404, "RepoNotFound"), "hf_x", "no_repository", "may not see it"),
        (refused(401, "RepoNotFound"), "", "no_repository", "no token was given"),
        (refused(401), "", "no_repository", "no token was given"),
        (refused(401, "", "bad"), "hf_x", "bad_token", "refused"),
        (refused(404, "RevisionNotFound"), "hf_x", "no_revision", f"{PAGE}/commits/main"),
        (refused(404), "hf_x", "no_repository", PAGE),
        (refused(418, "", "teapot"), "hf_x", "unreachable", "418 teapot"),
        (Answer(0, reason="no route"), "hf_x", "unreachable", "no route"),
        (Answer(503, reason="busy"), "hf_x", "unreachable", "503 busy"),
    ],
)
def test_each_refusal_has_its_kind_and_its_remedy(answer, token, kind, message):
    net = Net(answer)
    with pytest.raises(HubError) as caught:
        net.hub(token).check_access(LLAMA)
    assert caught.value.kind == kind
    assert message in str(caught.value)
    assert "hf_x" not in str(caught.value)


def test_the_account_is_named():
    with pytest.raises(HubError, match="The account ada has not been granted access"):
        Net(refused(403, "GatedRepo")).hub().check_access(LLAMA, "ada")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        refused(404, "EntryNotFound"),
        Answer(302, {"location": "https://cdn.example/signed"}),
    ],
)
def test_access_is_granted(answer):
    net = Net(answer)
    net.hub().check_access(LLAMA)
    assert net.requests == [
        (
            "HEAD",
            f"https://hub.example/meta-llama/Llama-3.1-8B-Instruct/resolve/{COMMIT}/config.json",
            {"Authorization": "Bearer hf_secret"},
        )
    ]


def test_a_renamed_repository_is_followed_on_its_host():
    net = Net(Answer(307, {"location": "/new/name/resolve/main/config.json"}), Answer(200))
    net.hub().check_access(LLAMA)
    assert net.requests[1][1] == "https://hub.example/new/name/resolve/main/config.json"


@pytest.mark.parametrize(
    "location",
    [
        "http://hub.example/api/x",
        "http://hub.example:443/api/x",
        "https://hub.example:8443/api/x",
        "https://hub.example@evil.example/api/x",
        "//evil.example/api/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_token_is_for_one_origin(location, method):
    net = Net(Answer(307, {"location": location}), found({"name": "ada"}))
    assert net.hub().ask(method, "/api/x").status == 307
    assert [url for _method, url, _headers in net.requests] == ["https://hub.example/api/x"]


def test_the_same_origin_may_be_written_in_two_ways():
    net = Net(Answer(307, {"location": "https://HUB.example:443/new"}), Answer(200))
    assert net.hub().ask("GET", "/old").status == 200


def test_a_hub_that_redirects_elsewhere_is_reported():
    net = Net(Answer(302, {"location": "http://u:p@hub.example/api/whoami-v2?signed=1"}))
    with pytest.raises(HubError, match=r"redirects to http://hub.example/api/whoami-v2\..*Set huggingface_endpoint"):
        net.hub().account()


def test_redirects_end():
    net = Net(Answer(307, {"location": "/again"}))
    net.hub().ask("GET", "/again")
    assert len(net.requests) == 6


def test_a_mirror_may_live_below_a_path():
    net = Net(Answer(200))
    net.hub(endpoint="https://mirror.example/api/huggingfaceml/hf/").ask("GET", "/api/whoami-v2")
    assert net.requests[0][1] == "https://mirror.example/api/huggingfaceml/hf/api/whoami-v2"


def test_no_token_no_header():
    net = Net(Answer(200))
    net.hub(token="").ask("GET", "/x")
    assert net.requests[0][2] == {}


def test_the_token_is_not_shown():
    assert "hf_secret" not in repr(Net(Answer(200)).hub())


@pytest.mark.parametrize(
    ("answers", "slept"),
    [
        ([Answer(503), Answer(200)], [1.0]),
        ([Answer(429, {"retry-after": "7"}), Answer(200)], [7.0]),
        ([Answer(429, {"retry-after": "9999"}), Answer(200)], [30.0]),
        ([Answer(429, {"retry-after": "soon"}), Answer(0), Answer(502), Answer(200)], [1.0, 2.0, 4.0]),
        ([Answer(500)], [1.0, 2.0, 4.0]),
        ([Answer(403)], []),
    ],
)
def test_transient_errors_are_retried(answers, slept):
    net = Net(*answers)
    assert net.hub().ask("GET", "/x").status == answers[-1].status
    assert net.slept == slept


def test_account():
    assert Net(found({"name": "ada"})).hub().account() == "ada"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(401, "", "Invalid credentials"), "bad_token"),
        (Answer(404), "unreachable"),
        (Answer(200, {}, b"<html>"), "unreachable"),
        (Answer(200, {}, b"[]"), "unreachable"),
        (Answer(0, reason="no route"), "unreachable"),
    ],
)
def test_no_account(answer, kind):
    with pytest.raises(HubError) as caught:
        Net(answer).hub().account()
    assert caught.value.kind == kind


def test_a_commit_needs_no_question():
    net = Net(Answer(500))
    assert net.hub().commit(LLAMA) == COMMIT
    assert net.requests == []


def test_a_branch_is_resolved():
    net = Net(found({"sha": COMMIT}))
    assert net.hub().commit(Snapshot("a/b", "refs/pr/1")) == COMMIT
    assert net.requests[0][1] == "https://hub.example/api/models/a/b/revision/refs%2Fpr%2F1"


def test_the_listing_has_pages():
    file = {"type": "file", "path": "a", "oid": "1" * 40, "size": 1}
    link = '<https://other.example/api/models/x?recursive=true&cursor=2>; rel="next"'
    net = Net(Answer(200, {"link": link}, json.dumps([file]).encode()), found([{**file, "path": "b"}]))
    assert net.hub().tree(LLAMA, COMMIT) == [RepoFile("a", 1, "1" * 40), RepoFile("b", 1, "1" * 40)]
    assert net.requests[1][1] == f"https://hub.example/api/models/{LLAMA.repo_id}/tree/{COMMIT}?recursive=true&cursor=2"


@pytest.mark.parametrize("body", [b"<html>welcome to the hotel</html>", b""])
def test_something_else_than_a_hub(body):
    with pytest.raises(HubError, match="not like a Hugging Face hub"):
        Net(Answer(200, {}, body)).hub().tree(LLAMA, COMMIT)


@pytest.mark.parametrize(
    ("link", "query"), [("", ""), ('<https://a/b?c=d>; rel="prev"', ""), ('<b?c=d>; rel="next"', "c=d")]
)
def test_next_page(link, query):
    assert hub_api.next_page(link) == query
