# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node fetches, which take it from there."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpunode.llm.plugins.filter.plans import FilterModule
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet.weights import seeders

FILTERS = FilterModule().filters()
weights_seeders, weights_share = FILTERS["weights_seeders"], FILTERS["weights_share"]
COMMIT, NEWER = "0e9e39f249a16976918f6564b8830bc894c89659", "1605565b47bb9346c5515c34102e054115b4f98b"
A = {"name": "a", "repo_id": "org/a", "revision": COMMIT, "ignore_patterns": ["original/*"]}
B = {"name": "b", "repo_id": "org/b", "revision": "main", "config": {"model": "org/b"}}


def elsewhere(instance, seeder):
    return {"repo_id": instance["repo_id"], "revision": instance["revision"], "seeder": seeder}


@pytest.mark.parametrize(
    ("plans", "node", "expected"),
    [
        ({"n1": [A], "n2": [A]}, "n1", []),
        ({"n1": [A], "n2": [A], "n3": [A]}, "n3", [elsewhere(A, "n1")]),
        ({"n1": [A], "n2": [B], "n3": [A, B]}, "n3", [elsewhere(A, "n1"), elsewhere(B, "n2")]),
        ({"n1": [A], "n2": [B, A], "n3": [B]}, "n2", [elsewhere(A, "n1")]),  # fetches one, takes the other
        ({"n1": [A], "n2": [A, A]}, "n2", [elsewhere(A, "n1")]),  # two instances of one model
        ({"n1": [A], "n2": [{**A, "revision": NEWER}]}, "n2", []),  # another revision
        ({"n1": [A], "n2": [{**A, "ignore_patterns": []}]}, "n2", []),  # files that n1 does not fetch
        ({"n1": [{**A, "branch": "main"}], "n2": [A]}, "n2", [elsewhere(A, "n1")]),
        ({"n1": [], "n2": [A]}, "n2", []),
        ({"n1": [A]}, "n2", []),  # a node without a plan
    ],
)
def test_the_first_that_lists_it_fetches_it(plans, node, expected):
    assert seeders(plans, node) == expected
    host_vars = {name: {"plan": {"instances": instances}} for name, instances in plans.items()}
    assert weights_seeders({**host_vars, "lost": {}, "refused": {"plan": None}}, node) == expected


def check(*instances, settled=False):
    return {"instances": list(instances), "settled": {"weights": settled}}


def of(instance, **changes):
    return {**instance, **changes}


def names(instances):
    return [instance["name"] for instance in instances]


def test_alone_everything_is_ones_own():
    share = weights_share({"n1": check(A, B)}, "n1")
    assert share == {
        "instances": [A, B],
        "weights": {"fetch": [A, B], "receive": [], "serve": [], "receivers": []},
    }


def test_a_seeder_serves_those_that_lack_something():
    nodes = {
        "n1": check(A, B),
        "n2": check(of(A, seeder="n1"), settled=True),
        "n3": check(of(A, seeder="n1")),
        "n4": check({**A, "revision": NEWER}),
        "n5": {},  # never got so far
    }
    seeder, follower, content = (weights_share(nodes, name)["weights"] for name in ("n1", "n3", "n2"))
    assert (names(seeder["fetch"]), seeder["serve"], seeder["receivers"]) == (["a", "b"], [A], ["n3"])
    assert follower == {
        "fetch": [],
        "receive": [{"seeder": "n1", "instances": [A]}],
        "serve": [],
        "receivers": [],
    }
    assert weights_share(nodes, "n3")["instances"] == [A]
    assert (content["fetch"], content["serve"]) == ([], [])
    assert weights_share(nodes, "n5")["instances"] == []


def test_nobody_is_served_where_nobody_lacks_anything():
    nodes = {"n1": check(A, settled=True), "n2": check(of(A, seeder="n1"), settled=True)}
    share = weights_share(nodes, "n1")["weights"]
    assert (share["serve"], share["receivers"]) == ([], [])


@pytest.mark.parametrize(
    ("recorded", "update", "expected"),
    [(None, False, NEWER), (COMMIT, False, COMMIT), (COMMIT, True, NEWER)],
)
def test_a_branch_is_the_seeders_commit(recorded, update, expected):
    seeder = of(B, revision=NEWER, branch="main", config={"model": "org/b", "revision": NEWER})
    follower = of(B, seeder="n1")
    if recorded:
        follower = of(follower, revision=recorded, branch="main", config={"model": "org/b", "revision": recorded})
    nodes = {"n1": check(seeder), "n2": check(follower)}
    (instance,) = weights_share(nodes, "n2", update)["instances"]
    pinned = {"revision": expected, "branch": "main", "config": {"model": "org/b", "revision": expected}}
    assert instance == {**B, **pinned}
    assert weights_share(nodes, "n1", update)["weights"]["serve"] == [seeder]


LORA = {"name": "sql", "repo_id": "org/sql", "revision": NEWER, "branch": "main"}


def test_an_adapter_is_handed_on_by_itself() -> None:
    """The node that has the model need not have the adapter."""
    plans = {"n1": [A], "n2": [{**A, "lora": [LORA]}], "n3": [{**A, "lora": [LORA]}]}
    assert seeders(plans, "n2") == [elsewhere(A, "n1")]
    assert seeders(plans, "n3") == [elsewhere(A, "n1"), elsewhere(LORA, "n2")]
    nodes = {
        "n1": check(A),
        "n2": check({**A, "seeder": "n1", "lora": [LORA]}),
        "n3": check({**A, "seeder": "n1", "lora": [{**LORA, "seeder": "n2"}]}),
    }
    shares = {name: weights_share(nodes, name) for name in nodes}
    assert shares["n3"]["instances"] == [{**A, "lora": [LORA]}]
    assert shares["n1"]["weights"]["serve"] == [A]
    assert (shares["n2"]["weights"]["fetch"], shares["n2"]["weights"]["serve"]) == ([LORA], [LORA])
    assert shares["n3"]["weights"]["receive"] == [
        {"seeder": "n1", "instances": [A]},
        {"seeder": "n2", "instances": [LORA]},
    ]


def test_a_draft_is_handed_on_as_an_adapter_is():
    draft = {"repo_id": "org/head", "revision": NEWER}
    assert seeders({"n1": [{**A, "draft": draft}], "n2": [{**A, "draft": draft}]}, "n2") == [
        elsewhere(A, "n1"),
        elsewhere(draft, "n1"),
    ]
    nodes = {
        "n1": check({**A, "draft": draft}),
        "n2": check({**A, "seeder": "n1", "draft": {**draft, "seeder": "n1"}}),
    }
    assert weights_share(nodes, "n1")["weights"]["serve"] == [A, draft]
    follower = weights_share(nodes, "n2")
    assert follower["instances"] == [{**A, "draft": draft}]
    assert follower["weights"]["receive"] == [{"seeder": "n1", "instances": [A, draft]}]


@pytest.mark.parametrize("plugin", [weights_seeders, weights_share])
def test_nonsense_is_refused(plugin):
    with pytest.raises(AnsibleFilterError, match=f"gpunode.llm.{plugin.__name__}"):
        plugin({"n1": 3}, "n1")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], ""),
        ([{"findings": []}, {"msg": "3 files are there", "changed": False}], ""),
        ([{"findings": []}, {"failed": True, "msg": "wrong hash"}], "wrong hash"),
        ([{"findings": ["No such model.", "No room."]}, {"failed": True, "msg": "later"}], "No such model. No room."),
        ([{"msg": "not a failure"}, {"failed": True, "msg": "wrong hash"}, {"failed": True, "msg": "x"}], "wrong hash"),
    ],
)
def test_the_first_failure_of_a_seeder_is_the_cause(results, message):
    assert FILTERS["weights_failure"](results) == message
