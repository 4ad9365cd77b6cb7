# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several engines on one GPU: stated and planned shares, what is refused, and that no board is ever promised twice."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.plugin_utils import service
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.matrix import together
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import matrix as screen_matrix, plan as screen_plan
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    board,
    findings,
    instances,
    one,
    outcome,
)
from hypothesis import given, settings, strategies as st


def entry(name: str, share: Any, model: str = "8b-fp8", **more: Any) -> dict[str, Any]:
    return {"name": name, "model": model, "gpu_share": share, **more}


def utilization(instance: Instance) -> float:
    return float(instance.config["gpu-memory-utilization"])


def test_stated_shares_of_one_board() -> None:
    made = instances("1xH100", models=[entry("a", 0.5), entry("b", "0.3"), entry("c", 0.2)])
    assert {name: item.gpu_indices for name, item in made.items()} == {"a": (0,), "b": (0,), "c": (0,)}
    assert {name: utilization(item) for name, item in made.items()} == {"a": 0.46, "b": 0.276, "c": 0.184}
    assert {name: item.gpu_share for name, item in made.items()} == {"a": 0.5, "b": 0.3, "c": 0.2}
    whole = one("1xH100", model="8b-fp8")
    assert whole.gpu_share is None
    assert made["a"].kv_cache_tokens < whole.kv_cache_tokens / 2
    assert (made["a"].tensor_parallel_size, made["a"].data_parallel_size) == (1, 1)


def test_a_share_is_of_what_the_user_allows() -> None:
    made = instances("1xH100", models=[entry("a", 0.5), entry("b", 0.5)], gpu_memory_utilization=0.8)
    assert [utilization(item) for item in made.values()] == [0.4, 0.4]


def test_one_starts_after_the_other() -> None:
    made = instances("1xH100", models=[entry(name, 0.3) for name in ("b", "c", "a")])
    assert {name: item.starts_after for name, item in made.items()} == {"a": (), "b": ("a",), "c": ("a", "b")}
    # The later ones have the time of those before them, too.
    assert made["c"].start_timeout_s == 3 * made["a"].start_timeout_s
    unit = service.made({**made["c"].__dict__}, service.Settings())
    assert unit.starts_after == ["vllm-a.service", "vllm-b.service"]
    assert unit.utilization == 0.276


def test_planned_shares_take_the_whole_board_by_what_they_need() -> None:
    made = instances("1xH100", models=[entry("large", "auto", "8b"), entry("small", "auto", "8b-w4a16")])
    shares = {name: item.gpu_share or 0 for name, item in made.items()}
    assert shares["large"] > shares["small"] > 0
    assert 0.97 <= sum(shares.values()) <= 1


def test_planned_shares_beside_a_stated_one() -> None:
    made = instances("1xH100", models=[entry("stated", 0.5), entry("planned", "auto")])
    assert (made["stated"].gpu_share, made["planned"].gpu_share) == (0.5, 0.5)


def test_those_that_share_leave_the_other_boards_alone() -> None:
    made = instances("4xH100", models=[entry("a", 0.5), entry("b", 0.5), {"name": "whole", "model": "70b-fp8"}])
    assert made["a"].gpu_indices == made["b"].gpu_indices == (0,)
    assert not set(made["whole"].gpu_indices) & {0}


def test_a_running_engine_keeps_its_gpu() -> None:
    serving = NodeServing((Serving("a", 8000, 8000, ("2",)), Serving("whole", 8001, 8000, ("0", "1"))))
    wanted = [entry("a", 0.5), entry("b", 0.5), {"name": "whole", "model": "70b-fp8", "tensor_parallel_size": 2}]
    made = outcome("3xH100", serving=serving, models=wanted).plan
    assert made
    places = {item.name: item.gpu_indices for item in made.instances}
    assert places == {"a": (2,), "b": (2,), "whole": (0, 1)}


def test_a_board_can_be_named() -> None:
    made = instances("2xH100", models=[entry("a", 0.5, gpu_indices=[1]), entry("b", 0.5, gpu_indices=[1])])
    assert {item.gpu_indices for item in made.values()} == {(1,)}


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (
            [entry("a", 0.7), entry("b", 0.5)],
            "b wants a share of 0.5 of one GPU, and no GPU has that much left: GPU 0 has 0.3",
        ),
        (
            [entry("a", 0.1)],
            "a does not fit a share of 0.1 of NVIDIA H100 80GB HBM3: 8.5 GiB of weights and ",
        ),
        ([entry("a", 0.1)], "a gpu_share of 0.1"),
        ([entry("a", "auto", "70b")], "it does not fit one such GPU: serve it without gpu_share, on several"),
        ([entry("a", 0.5, tensor_parallel_size=2)], "a: an engine with a gpu_share has that share of one GPU, and 2"),
        ([entry("a", 0.5, gpu_indices=[0, 1])], "that share of one GPU, and 2 are asked for"),
        ([entry("a", 0.5, gpu_indices=[5])], "a: GPU 5 of gpu_indices cannot be shared on this host"),
        ([entry("a", 1.5)], "models: gpu_share must be auto, or above 0 and at most 1 such as 0.5, not 1.5."),
        ([entry("a", "half")], "gpu_share must be auto, or above 0"),
        (
            [entry("a", 0.5), {"name": "whole", "model": "8b"}],
            "whole wants whole GPUs, and all of this host are shared (1x NVIDIA H100 80GB HBM3): give it a",
        ),
        (
            [entry("a", 0.5, gpu_indices=[0]), {"name": "whole", "model": "8b", "gpu_indices": [0]}],
            "a: GPU 0 of gpu_indices is in gpu_indices of whole, too, which has no gpu_share",
        ),
    ],
)
def test_refusals(models: list[dict[str, Any]], says: str) -> None:
    assert says in findings("1xH100", models=models)


def test_a_share_that_is_named_as_enough_is() -> None:
    message = findings("1xH100", models=[entry("a", 0.1)])
    enough = float(message.partition("a gpu_share of ")[2].split()[0])
    assert one("1xH100", models=[entry("a", enough)])
    assert findings("1xH100", models=[entry("a", round(enough - 0.01, 2))])


SMALL = sorted(
    key for key, model in CATALOG.models.items() if model.device == "cuda" and key.startswith(("8b", "qwen3-8b"))
)
SHARES = st.one_of(st.just("auto"), st.integers(5, 100).map(lambda part: part / 100))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SMALL), SHARES), min_size=1, max_size=5),
    st.sampled_from(["1xH100", "2xH100", "1xL40S,1xH100", "2xA10G", "1xGB10"]),
)
def test_no_board_is_promised_twice(wanted: list[tuple[str, Any]], host: str) -> None:
    models = [entry(f"m{place}", share, model) for place, (model, share) in enumerate(wanted)]
    made = outcome(host, models=models)
    if made.plan is None:
        assert made.findings
        return
    shares: dict[int, float] = {}
    used: dict[int, float] = {}
    for item in made.plan.instances:
        (index,) = item.gpu_indices
        shares[index] = shares.get(index, 0) + (item.gpu_share or 1)
        used[index] = used.get(index, 0) + utilization(item)
        assert item.kv_cache_tokens >= item.max_model_len
    assert all(total <= 1 + 1e-9 for total in shares.values())
    assert all(total <= 0.92 + 1e-9 for total in used.values())


def test_the_board_of_a_node() -> None:
    made = instances(board("h100x1"), models=[entry("a", 0.5), entry("b", 0.5)])
    assert len({item.gpu_uuids for item in made.values()}) == 1


def test_what_people_see_of_it() -> None:
    options = {"models": [entry("a", 0.5), entry("b", 0.25)]}
    made = instances("2xH100", **options)
    assert screen_plan.layout(made["a"].__dict__) == "a share of 0.5 of GPU 0"
    side_by_side = together(options, "2xH100", given_gpus("2xH100", CATALOG), NodeServing(), CATALOG, 1000)
    assert [row.layout for row in side_by_side.rows] == ["share 0.5", "share 0.25"]
    assert dict(line.strip().split(None, 1) for line in screen_matrix._sum(side_by_side, 1000))["GPUs"] == "1 of 2"


def test_a_share_of_one_gpu_and_several_gpus_is_one_finding() -> None:
    said = findings("8xH100", models=[entry("a", 0.5, tensor_parallel_size=8)])
    assert said.count("\n") == 0
    assert "and 8 are asked for" in said
