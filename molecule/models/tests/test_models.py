# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is served answers as it must, is asked what it is for, and is planned once more without a hub."""

from __future__ import annotations

import json
import math
import operator
from pathlib import Path

import pytest
from answers import ANSWERS, answers_of, ask, wrong
from conftest import EMBEDDING, LLAMA, MIXTURE, asked_of, embedded, no_hub, play, through_the_gateway
from scenario import CHECKOUT, Hub, on_node, run_play, wait_until, warnings

UNITS = {MIXTURE: "vllm-tiny-moe", EMBEDDING: "vllm-tiny-embedding"}
#: What is asked of each by whoever wants to know whether it lives.
SMALLEST = {MIXTURE: "POST /v1/completions 200", EMBEDDING: "POST /v1/embeddings 200"}
STRANGE = [("/v1/embeddings", MIXTURE), ("/v1/completions", EMBEDDING), ("/v1/chat/completions", EMBEDDING)]


def cosine(one: list[float], other: list[float]) -> float:
    def product(left: list[float], right: list[float]) -> float:
        return sum(map(operator.mul, left, right))

    return product(one, other) / math.sqrt(product(one, one) * product(other, other))


def test_no_catalogue_has_them() -> None:
    """Else the tests below would be of nothing."""
    for page in (CHECKOUT / "catalog").rglob("*.yml"):
        assert "lab/tiny" not in page.read_text(encoding="utf-8")


def wrong_answers(instance: str, model: str, answers: dict[str, str]) -> dict[str, str]:
    def chat(body: str) -> str:
        status, text = through_the_gateway(f"/{instance}/v1/chat/completions", body)
        assert status == 200, text
        return text

    return wrong(ask(chat, answers, model), answers)


def test_the_mixture_knows_its_answers() -> None:
    assert wrong_answers("tiny-moe", MIXTURE, answers_of("tiny-moe")) == {}


def test_a_model_and_its_adapter_answer_each_as_it_learnt() -> None:
    assert wrong_answers("tiny", "tiny-lora", answers_of("tiny-lora")) == {}
    assert wrong_answers("tiny", "tiny", ANSWERS) == {}


def test_an_adapter_of_another_model_is_refused_before_anything_changes() -> None:
    result = play("site", models=[{"model": MIXTURE, "lora": LLAMA["lora"]}])
    assert result.status != 0
    assert "tiny-moe: the adapter tiny-lora (lab/tiny-lora" in result.words
    assert "gpunode/tiny-llama" in result.words
    assert result.changed == 0


def test_another_model_of_the_same_name_does_not_take_its_place() -> None:
    """A folder, as a repository of another organisation would."""
    folder = "/srv/other/tiny-moe"
    snapshots = "/var/lib/huggingface/hub/models--lab--tiny-moe/snapshots"
    on_node(f"mkdir -p /srv/other && cp -rL {snapshots}/* {folder}")
    try:
        result = play("site", models=[folder])
    finally:
        on_node("rm -r /srv/other")
    assert result.status != 0
    assert f"tiny-moe serves {MIXTURE} on this node, and {folder} would take its place" in result.words
    assert result.changed == 0


def test_an_embedding_is_what_transformers_makes_of_the_same_text() -> None:
    right: dict[str, list[float]] = json.loads(Hub().read(EMBEDDING, "embeddings.json"))
    for text, vector in zip(right, embedded(list(right)), strict=True):
        near = {other: cosine(vector, wanted) for other, wanted in right.items()}
        assert near.pop(text) > 0.99, text
        assert max(near.values()) < 0.5, text


@pytest.mark.parametrize(("route", "model"), STRANGE)
def test_the_gateway_passes_no_route_of_another_task(route: str, model: str) -> None:
    body = {"model": model, "input": "Hello", "prompt": "Hello", "messages": [{"role": "user", "content": "Hello"}]}
    status, text = through_the_gateway(f"/{model.partition('/')[2]}{route}", json.dumps(body))
    assert (status, json.loads(text)["error"]["code"]) == (404, "not_found")


def test_the_watchdog_asks_each_what_it_is_for() -> None:
    for model, unit in UNITS.items():
        before = asked_of(unit).count(SMALLEST[model])

        def was_asked(unit: str = unit, model: str = model, before: int = before) -> bool:
            return asked_of(unit).count(SMALLEST[model]) > before

        wait_until(was_asked)
    assert set(asked_of(UNITS[EMBEDDING])) == {SMALLEST[EMBEDDING]}
    assert set(asked_of(UNITS[MIXTURE])) == {SMALLEST[MIXTURE], "POST /v1/chat/completions 200"}


def test_the_status_shows_that_all_serve(tmp_path: Path) -> None:
    page = tmp_path / "status.json"
    result = run_play("playbooks/status.yml", "-e", f"json={page}", "-e", "status_fail=true")
    assert result.status == 0, result.text
    (node,) = json.loads(page.read_text())["nodes"].values()
    found = {instance["model"]: (instance["state"], instance["healthy"]) for instance in node["instances"]}
    assert found == dict.fromkeys((MIXTURE, EMBEDDING, "gpunode/tiny-llama"), ("serving", True))


def test_without_the_hub_the_plan_is_the_same_and_nothing_changes(tmp_path: Path) -> None:
    pages = [tmp_path / "first.json", tmp_path / "second.json"]
    assert play("playbooks/plan", json=str(pages[0])).status == 0
    with no_hub():
        result = play("playbooks/plan", json=str(pages[1]))
        assert result.status == 0, result.text
        assert warnings(result.text) == []
        again = play("site")
        assert (again.status, again.changed) == (0, 0), again.text[-3000:]
        assert warnings(again.text) == []
    first, second = map(json.loads, (page.read_text(encoding="utf-8") for page in pages))
    assert first == second


def test_an_embedding_engine_that_hangs_is_started_again() -> None:
    unit = UNITS[EMBEDDING]
    run = on_node(f"systemctl show --value --property=InvocationID {unit}")
    # The engine's own process stands still; the server that answers on the port goes on.
    container = f"$(docker ps -q --no-trunc --filter name={unit})"
    each = "for p in $(pgrep -f '[V]LLM::EngineCore'); do"
    on_node(f"c={container}; {each} grep -q $c /proc/$p/cgroup && kill -STOP $p; done; true")

    def serves_again() -> bool:
        shown = on_node(f"systemctl show --value --property=InvocationID,ActiveState {unit}").split()
        return run not in shown and "active" in shown

    wait_until(serves_again, 600)
    journal = on_node(f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={run} + INVOCATION_ID={run}")
    assert f"no sign of life from {EMBEDDING}" in journal
    assert "gives no answer" in journal
    assert len(embedded(["Hello"])[0]) == 256
