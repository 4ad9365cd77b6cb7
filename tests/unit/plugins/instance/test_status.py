# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an instance is, read from what systemd, the endpoint and the journal were recorded to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import status as instance_status
from ansible_collections.gpunode.llm.plugins.module_utils.programs import gpu as programs_gpu
from ansible_collections.gpunode.llm.plugins.module_utils.programs.vllm_wait import Answer
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import status as screen_status

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
READY, LATE = Answer(True, "it answers a completion"), Answer(False, "no answer yet (TimeoutError)")
OTHER = Answer(False, "it runs with another API key than its env file has", True)
BAD_FLAG = ("run1", ["vllm serve: error: unrecognized arguments: --swap-space 16"])
GIVEN_UP = ("run2", ["vllm-a.service: Start request repeated too quickly."])
LOADING = ("run3", ["Loading safetensors checkpoint shards:  40% Completed"])


def test_the_load_that_a_real_engine_reported() -> None:
    text = (FIXTURES / "vllm" / "metrics-0.32.0.txt").read_text(encoding="utf-8")
    load = instance_status.parse_metrics(text)
    assert load is not None
    assert (load.running, load.waiting) == (2, 1)
    assert 0 < load.kv_cache_usage < 1
    assert min(load.requests, load.prompt_tokens, load.generation_tokens) > 0


def test_engines_are_summed_and_the_fullest_cache_counts() -> None:
    load = instance_status.parse_metrics(
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="m"} 4.0\n'
        'vllm:num_requests_waiting{engine="1",model_name="m"} 2.0\n'
        'vllm:num_requests_waiting_by_reason{engine="1",reason="capacity"} 2.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        'vllm:prompt_tokens_total{engine="0"} 1e+03\nvllm:generation_tokens_total{engine="1"} 5\n'
        'vllm:request_success_total{engine="0",finished_reason="stop"} 8.0\n'
        'vllm:request_success_total{engine="1",finished_reason="abort"} 1.0\n'
        'vllm:request_success_created{engine="0",finished_reason="stop"} 1.7e+09\n'
    )
    assert load == instance_status.Load(
        running=7, waiting=2, kv_cache_usage=0.75, requests=9, prompt_tokens=1000, generation_tokens=5
    )


def test_rates_are_what_was_worked_off_between_two_looks() -> None:
    first, second = instance_status.Load(requests=10, prompt_tokens=100), instance_status.Load(4, 1, 0.5, 13, 850, 300)
    assert instance_status.rates(first, second, 1.5) == instance_status.Rates(2.0, 500.0, 200.0)
    assert instance_status.rates(first, first, 1) == instance_status.Rates(0, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        (None, instance_status.Load(), 1),
        (instance_status.Load(), None, 1),
        (instance_status.Load(), instance_status.Load(), 0),
        # It has been started anew in between: its counters begin at 0 again.
        (instance_status.Load(requests=500, prompt_tokens=5, generation_tokens=5), instance_status.Load(requests=1), 1),
        (instance_status.Load(generation_tokens=5), instance_status.Load(requests=7), 1),
    ],
)
def test_rates_that_nobody_could_see(first: object, second: object, seconds: float) -> None:
    assert instance_status.rates(first, second, seconds) is None


@pytest.mark.parametrize("text", ["", "<html></html>", "# HELP vllm:num_requests_running x\n", "up 1\n"])
def test_what_is_not_vllms_page_has_no_load(text: str) -> None:
    assert instance_status.parse_metrics(text) is None


def test_units_as_systemd_shows_them() -> None:
    shown = (
        "Id=vllm-a.service\nActiveState=active\nSubState=running\nResult=success\nExecMainStatus=0\nNRestarts=2\n"
        "LoadState=loaded\nInvocationID=abc\nUnitFileState=enabled\nActiveEnterTimestampMonotonic=40000000\n"
        "InactiveExitTimestampMonotonic=10000000\n\n"
        "Id=vllm-b.service\nActiveState=activating\nSubState=start-post\nUnitFileState=disabled\n"
        "ActiveEnterTimestampMonotonic=0\nInactiveExitTimestampMonotonic=90000000\n\n"
        "Id=docker.service\nActiveState=inactive\nSubState=dead\n"
    )
    units = instance_status.parse_units(shown, uptime_s=100)
    assert units["vllm-a.service"] == instance_status.Unit("active", "running", "success", 0, 2, "abc", True, 60, True)
    assert units["vllm-b.service"].since_s == 10
    assert units["docker.service"].since_s is None
    assert not units["docker.service"].loaded


@pytest.mark.parametrize(("result", "when", "refused"), [("no", "0", False), ("no", "7", True), ("yes", "7", False)])
def test_a_start_that_was_refused(result: str, when: str, refused: bool) -> None:
    """systemd says no of a unit that nobody ever started, too."""
    units = instance_status.parse_units(f"Id=a\nAssertResult={result}\nAssertTimestampMonotonic={when}\n", 1)
    assert units["a"].refused is refused


def entry(message: object, **fields: str) -> str:
    return json.dumps({"MESSAGE": message, **fields})


def test_the_journal_by_runs() -> None:
    text = "\n".join(
        [
            entry("Starting a", INVOCATION_ID="run1", _SYSTEMD_INVOCATION_ID="that of systemd"),
            entry("10%\r20%", _SYSTEMD_INVOCATION_ID="run1"),
            entry([0x62, 0xFF], _SYSTEMD_INVOCATION_ID="run2"),
            entry(None, _SYSTEMD_INVOCATION_ID="run2"),
            "cut short {",
        ]
    )
    assert instance_status.parse_journal(text) == [("run1", ["Starting a", "10%", "20%"]), ("run2", ["b\ufffd"])]


def test_the_cause_is_not_that_systemd_gave_up() -> None:
    assert "--swap-space" in instance_status.cause([BAD_FLAG, GIVEN_UP])[0]
    assert "stopped trying" in instance_status.cause([GIVEN_UP])[0]
    assert instance_status.cause([]) == ("Its journal is empty.", "")
    assert instance_status.cause([("r", ["an error nobody knows"])])[0] == "Its last line: an error nobody knows"


def unit(active: str, sub: str = "", **more: object) -> instance_status.Unit:
    return instance_status.Unit(active=active, sub=sub, **more)


CASES = {
    "answers": (unit("active", "running"), READY, False, [], True, "serving", "completion"),
    "late, and tokens come": (unit("active", "running"), LATE, True, [], True, "busy", "makes progress"),
    "late, and nothing is seen": (unit("active", "running"), LATE, None, [LOADING], True, "hung", "too busy to report"),
    "late, and nothing comes": (unit("active", "running"), LATE, False, [LOADING], True, "hung", "no answer (Timeout"),
    "another key": (unit("active", "running"), OTHER, True, [], True, "refused", "another API key"),
    "loads": (unit("activating", "start-post", invocation="run3"), None, False, [LOADING], True, "starting", "40 %"),
    "loads again": (
        unit("activating", "start-post", invocation="run3", restarts=2),
        None,
        False,
        [BAD_FLAG, LOADING],
        True,
        "restarting",
        "ended 2 times before. This release of vLLM does not know the option --swap-space",
    ),
    "waits to start again": (
        unit("activating", "auto-restart", result="exit-code", invocation="run1"),
        None,
        False,
        [BAD_FLAG],
        True,
        "restarting",
        "--swap-space",
    ),
    "drains": (unit("deactivating", "stop-sigterm"), None, False, [], True, "stopping", "last requests"),
    "failed": (
        unit("failed", "failed", result="exit-code", exit_status=2),
        None,
        False,
        [BAD_FLAG],
        True,
        "failed",
        "(exit-code, status 2). This release",
    ),
    "failed with Docker": (unit("failed", "failed"), None, False, [BAD_FLAG], False, "failed", "Docker does not run"),
    "stopped": (unit("inactive", "dead"), None, False, [BAD_FLAG], True, "stopped", "was stopped"),
    "weights gone": (
        unit("inactive", "dead", refused=True),
        None,
        False,
        [],
        True,
        "failed",
        "Its weights are missing",
    ),
    "stopped with Docker": (unit("inactive", "dead"), None, False, [], False, "stopped", "Docker does not run"),
}


@pytest.mark.parametrize("name", CASES)
def test_how_an_instance_is(name: str) -> None:
    shown, answer, works, runs, docker, state, message = CASES[name]
    verdict = instance_status.judge(shown, answer, works, runs, docker)
    assert (verdict.state, verdict.healthy) == (state, state in ("serving", "busy"))
    assert message in verdict.detail


@pytest.mark.parametrize("name", CASES)
def test_every_detail_and_remedy_is_a_whole_sentence(name: str) -> None:
    """As a person reads it: in the report, where detail and remedy follow each other."""
    shown, answer, works, runs, docker, _state, _said = CASES[name]
    verdict = instance_status.judge(shown, answer, works, runs, docker)
    row = {"name": "a", "state": verdict.state, "detail": verdict.detail, "remedy": verdict.remedy, "unit": shown.name}
    rest = {"healthy": verdict.healthy, "restarts": 0, "restart_due": "", "enabled": True}
    assert verdict.detail.endswith(".")
    assert verdict.remedy.endswith(".") or not verdict.remedy
    notes = screen_status.notes("gpu-1", {"instances": [{**row, **rest}]})
    assert notes == (
        [] if verdict.healthy else [f"gpu-1 a is {verdict.state}: {verdict.detail} {verdict.remedy}".strip()]
    )
    assert not any(glued in note for note in notes for glued in ("..", "  ", " ."))


def test_what_is_not_known_names_the_unit_whose_journal_has_it() -> None:
    shown = instance_status.parse_units("Id=vllm-a.service\nActiveState=failed\nResult=exit-code\n", 1)[
        "vllm-a.service"
    ]
    worker = "(Worker_TP0 pid=7) ERROR 11-26 00:47:07 [x.py:9] ValueError: a new one"
    verdict = instance_status.judge(shown, None, False, [("r", [worker])], True)
    assert verdict.detail == "it ended (exit-code). The engine's process Worker_TP0 ended with ValueError: a new one."
    assert verdict.remedy == "journalctl -eu vllm-a.service has all that it said."
    verdict = instance_status.judge(shown, None, False, [("r", ["no luck"])], True)
    assert (verdict.detail, verdict.remedy) == (
        "it ended (exit-code). Its last line: no luck.",
        "journalctl -eu vllm-a.service has all that it said.",
    )


def test_the_gpus_of_a_unit_by_uuid_and_by_index() -> None:
    names = [f"GPU-0000000{number}-0000-0000-0000-00000000000{number}" for number in range(1, 9)]
    board = programs_gpu.parse((FIXTURES / "nvidia_smi" / "h100x8.xml").read_text(encoding="utf-8"))
    assert instance_status.gpu_indices(names, board) == list(range(8))
    assert instance_status.own_gpus(["7", "0"], board)[0][1].index == 7
    assert instance_status.gpu_indices(["7"], programs_gpu.NodeGpus("driver_not_loaded")) == [7]
    lost = programs_gpu.parse((FIXTURES / "nvidia_smi" / "h100x8-one-lost.xml").read_text(encoding="utf-8"))
    mine, gone = instance_status.own_gpus(names, lost)
    assert (len(mine), gone) == (7, ["GPU-00000004-0000-0000-0000-000000000004"])
    message = instance_status.lost_text("vllm-405b-fp8.service", gone)
    assert message.startswith("vllm-405b-fp8.service needs GPU GPU-00000004-0000-0000-0000-000000000004, which this")
    assert instance_status.lost_text("vllm-405b-fp8.service", []) == ""


def test_memory_of_its_own_gpus_alone() -> None:
    gpus = programs_gpu.parse((FIXTURES / "nvidia_smi" / "h200x2-busy.xml").read_text(encoding="utf-8")).gpus
    used, total = instance_status.gpu_memory(gpus[1:])
    assert (used, total) == (gpus[1].used_mib, 143771)
    assert instance_status.gpu_memory(gpus) == (sum(gpu.used_mib or 0 for gpu in gpus), 2 * 143771)
    assert instance_status.gpu_memory([]) == (None, None)
