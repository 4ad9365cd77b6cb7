# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write, as it arrives: strings for numbers, typing errors, options that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.flags import check_args
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import (
    context_length,
    host_address,
    indices,
    instance_name,
    read_request,
    safe_name,
)
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    findings,
    instances,
    one,
    outcome,
    warnings,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("32768", 32768),
        (4096, 4096),
        ("32k", 32000),
        ("32K", 32768),
        ("1m", 10**6),
        ("25.6k", 25600),
        ("auto", None),
        ("-1", None),
    ],
)
def test_context(text: Any, tokens: int | None) -> None:
    assert context_length(text) == tokens


def test_small_readers() -> None:
    assert indices("3, 1,1") == (1, 3)
    assert indices([2, "0"]) == (0, 2)
    assert safe_name("Meta_Llama/3.1 8B!") == "meta-llama-3.1-8b"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("日本", "'日本' is not usable as an instance's name: set a `name` of letters a-z"),
        ("--", "'--' is not usable as an instance's name"),
        ("8b-beside", "'8b-beside' ends in '-beside', which is reserved for files and units of the instance '8b'"),
        ("8B.keys", "'8b.keys' ends in '.keys'"),
        ("8b.new", "ends in '.new'"),
        ("8b.old", "ends in '.old'"),
        ("8b.service", "ends in '.service'"),
        ("8" * 65, "can have at most 64 characters, but '888"),
    ],
)
def test_names_that_an_instance_cannot_have(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=".") as raised:
        instance_name(name)
    assert says in str(raised.value)
    assert says in findings("1xH100", models=[{"model": "8b", "name": name}])
    assert len(outcome("1xH100", models=[{"model": "8b", "name": name}]).findings) == 1


def test_names_that_an_instance_can_have() -> None:
    names = ("8b", "Big One", "8b.keys.2", "beside", "x" * 64)
    assert [instance_name(name) for name in names] == ["8b", "big-one", "8b.keys.2", "beside", "x" * 64]


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("localhost", "set 127.0.0.1."),
        ("node1.example", "set 127.0.0.1, 0.0.0.0 or one of the node's."),
        ("0.0.0.0.0", "set 127.0.0.1, 0.0.0.0"),
        ("127.0.0.01", "set 127.0.0.1, 0.0.0.0"),
        ("fe80::1%eth0", "set 127.0.0.1, 0.0.0.0"),
        ("224.0.0.1", "set 127.0.0.1, 0.0.0.0"),
        ("255.255.255.255", "set 127.0.0.1, 0.0.0.0"),
        ("fe80::1", "set 127.0.0.1, 0.0.0.0"),
        ("ff02::1", "set 127.0.0.1, 0.0.0.0"),
        ("127.0.0.1:80", "set 127.0.0.1, 0.0.0.0"),
    ],
)
def test_hosts_that_docker_refuses(host: str, meant: str) -> None:
    message = findings("1xH100", model="8b", host=host, api_key_set=True)
    start = f"vllm_host must be an IP address, not {host!r}, since Docker publishes ports on addresses only: "
    assert message.startswith(start + meant)


def test_hosts_that_docker_takes() -> None:
    taken = ("127.0.0.1", "::ffff:127.0.0.1", "::", "[::1]", " 10.0.0.7 ")
    assert [host_address(host) for host in taken] == [
        "127.0.0.1",
        "127.0.0.1",
        "::",
        "::1",
        "10.0.0.7",
    ]


def test_numbers_from_a_command_line() -> None:
    instance = one(
        "8xH100", model="8b", port="9000", max_model_len="16K", gpu_memory_utilization="0.5", data_parallel_size="2"
    )
    assert (instance.port, instance.config["port"]) == (9000, 9000)
    assert (instance.max_model_len, instance.data_parallel_size) == (16384, 2)
    assert instance.config["gpu-memory-utilization"] == 0.5
    assert instance.gpu_indices == (0, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "No model was named. Choose one with -e model=NAME: 8b, 8b-fp8"),
        ({"model": "8b", "port": "http"}, "port must be a whole number, not 'http'."),
        ({"model": "8b", "port": "8_000"}, "port must be a whole number, not '8_000'."),
        ({"models": [{"model": "8b", "gpu_indices": "1_0"}]}, "gpu_indices must be a whole number, not '1_0'."),
        ({"model": "8b", "port": 70000}, "port must be between 1 and 65535, not 70000."),
        ({"model": "8b", "max_model_len": "long"}, "max_model_len must be a number of tokens"),
        ({"model": "8b", "max_model_len": "0.5M"}, "max_model_len must be a number of tokens"),
        (
            {"model": "8b", "env": {"VLLM_CPU_KVCACHE_SPACE": "1.5"}},
            "VLLM_CPU_KVCACHE_SPACE in vllm_env must be a whole number",
        ),
        ({"model": "8b", "max_model_len": 0}, "max_model_len must be a number of tokens"),
        ({"model": "8b", "max_model_len": 200000}, "200000 exceeds the model's context of 131072"),
        ({"model": "8b", "gpu_memory_utilization": 1.2}, "must be above 0 and at most 1, not 1.2"),
        ({"model": "8b", "gpu_memory_utilization": True}, "must be a share such as 0.92, not True"),
        ({"models": [{"model": "8b", "name": False}]}, "name must be a text, not False: put it in quotes"),
        ({"models": [{"model": "8b", "served_model_name": ["a", True]}]}, "served_model_name must be a text, not True"),
        ({"models": [False]}, "model must be a text, not False: put it in quotes"),
        ({"model": "8b", "image": True}, "image must be a text, not True"),
        ({"model": "8b", "gpu_memory_utilization": "most"}, "must be a share such as 0.92"),
        ({"model": "8b", "kv_cache_dtype": "int4"}, "kv_cache_dtype must be one of auto, fp8"),
        ({"model": "8b", "objective": "speed"}, "objective must be one of throughput, latency, context"),
        ({"model": "8b", "device": "tpu"}, "device must be one of cuda, cpu"),
        ({"model": "8b", "weights": "any"}, "weights must be one of published, smaller"),
        ({"model": "8b", "engine": "9"}, "Engine release '9' is not in the catalogue"),
        ({"model": "8b", "env": "A=1"}, "env must be a dictionary"),
        ({"models": [{"model": "8b", "prot": 1}]}, "models: unknown key 'prot', did you mean 'port'?"),
        ({"models": [{"model": "8b", "@": 1}]}, "models: unknown key '@'."),
        ({"models": ["8b", "8b"]}, "Two instances are named '8b'"),
        (
            {"models": [{"model": "8b", "port": 80}, {"model": "8b", "name": "b", "port": 80}]},
            "Two instances want port 80.",
        ),
        ({"model": "8b", "host": "0.0.0.0"}, "8b would listen on 0.0.0.0 without an API key"),
        ({"model": "8b", "tensor_parallel_size": 3}, "32 attention heads do not divide by TP 3"),
        ({"model": "8b", "image": "mine/vllm\n:1"}, r"vllm_image must be one line of text, not 'mine/vllm\n:1'."),
        (
            {"model": "8b", "data_parallel_size": 16},
            "HBM3. TP 1 x 16 replicas needs 16 GPUs, 8 NVIDIA H100 80GB HBM3 are available. With",
        ),
        ({"model": "8b", "trust_remote_code": "maybe"}, "vllm_trust_remote_code must be true or false, not 'maybe'."),
        ({"model": "8b", "pipeline_parallel_size": 99}, "32 layers cannot be split into 99 stages"),
        (
            {"model": "8b", "tensor_parallel_size": 4, "data_parallel_size": 4},
            "x 4 replicas needs 16 GPUs, 8 NVIDIA H100 80GB HBM3 are available",
        ),
        (
            {"model": "8b", "tensor_parallel_size": 16, "data_parallel_size": 1},
            "TP 16 needs 16 GPUs, 8 NVIDIA H100 80GB HBM3 are available",
        ),
        ({"models": [{"model": "8b", "gpu_indices": [7, 8]}]}, "8b: GPU 8 of gpu_indices is not available"),
        (
            {"models": [{"model": "8b", "gpu_indices": "0,1"}, {"model": "70b", "gpu_indices": [1]}]},
            "GPU 1 is in gpu_indices of both 70b and 8b.",
        ),
    ],
)
def test_what_cannot_be(options: dict[str, Any], says: str) -> None:
    assert says in findings("8xH100", **options)


def test_all_findings_at_once() -> None:
    made = outcome("1xH100", models=["8x", {"model": "8b", "port": "x", "extra_args": {"swap-space": 1}}], host="::")
    assert len(made.findings) == 4


def test_numbers_of_one_host_that_do_not_fit_give_the_planners_own() -> None:
    message = findings("8xH100", model="70b", tensor_parallel_size=1, pipeline_parallel_size=1)
    assert "With the planner's own numbers it fits: TP 4 x 2 replicas, context 131072." in message
    message = findings("2xH100", model="70b", max_model_len="128K", kv_cache_dtype="auto")
    assert "does not fit 2x NVIDIA H100 80GB HBM3 with a context of 131072" in message
    assert "which holds 32320 tokens; 131072 are needed" in message


def test_an_address_beyond_loopback_with_a_key() -> None:
    assert one("1xH100", model="8b", host="0.0.0.0", api_key_set=True).host == "0.0.0.0"
    assert one("1xH100", model="8b", host="::1").host == "::1"


def test_ports_follow_each_other_and_leave_out_what_is_taken() -> None:
    wanted = [
        "8b",
        {"model": "8b", "name": "a", "port": 8001},
        {"model": "8b", "name": "z"},
        {"model": "8b", "name": "b"},
    ]
    planned = instances("8xH100", models=wanted)
    assert {name: item.port for name, item in planned.items()} == {"8b": 8000, "a": 8001, "b": 8002, "z": 8003}
    assert planned == instances("8xH100", models=list(reversed(wanted)))


def test_options_of_the_host_and_of_one_instance() -> None:
    planned = instances(
        "8xH100",
        models=["8b", {"model": "70b", "name": "Big One", "extra_args": {"max-num-seqs": 64}, "objective": "latency"}],
        extra_args={"enable_lora": True, "max_num_seqs": 128},
        env={"A": 1},
        data_parallel_size=1,
    )
    assert planned["8b"].config["max-num-seqs"] == 128
    assert planned["big-one"].config["max-num-seqs"] == 64
    assert planned["big-one"].config["enable-lora"] is True
    assert planned["big-one"].env["A"] == "1"
    assert planned["big-one"].tensor_parallel_size == 4  # the other one holds a GPU
    assert planned["big-one"].config["served-model-name"] == ["meta-llama/Llama-3.1-70B-Instruct", "big-one"]


def test_named_gpus() -> None:
    planned = instances("8xH100", models=["70b", {"model": "8b", "gpu_indices": [0, 3]}])
    assert planned["8b"].gpu_indices == (0, 3)
    assert planned["70b"].gpu_indices == (1, 2, 4, 5)  # one NVLink island, so any four will do
    message = findings("2xA100,2xH100", models=[{"model": "8b", "gpu_indices": [1, 2]}])
    assert "GPUs 1, 2 of gpu_indices are of different types" in message


def test_names_to_serve_under() -> None:
    instance = one("1xH100", models=[{"model": "8b", "served_model_name": "chat"}])
    assert (instance.served_model_name, instance.config["served-model-name"]) == ("chat", ["chat"])
    both = one("1xH100", models=[{"model": "8b", "served_model_name": ["a", "b"]}])
    assert both.config["served-model-name"] == ["a", "b"]
    assert one("1xH100", model="8b").served_model_name == "meta-llama/Llama-3.1-8B-Instruct"


def test_a_users_options_win_and_a_null_takes_one_out() -> None:
    config = one(
        "1xH100", model="8b", extra_args={"tool_call_parser": None, "disable-access-log-for-endpoints": "/health"}
    ).config
    assert "tool-call-parser" not in config
    assert config["disable-access-log-for-endpoints"] == "/health"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"swap-space": 16}, "vLLM 0.33.0 no longer has the option swap-space: it has no successor"),
        ({"swap_space": 16}, "no longer has the option swap"),
        ({"--max-num-sequences": 1}, "no option max-num-sequences. Did you mean max-num-seqs"),
        ({"zzzzzzzzzzzz": 1}, "no option zzzzzzzzzzzz."),
        ({"tensor-parallel-size": 2}, "tensor-parallel-size is set by the plan: use vllm_tensor_parallel_size"),
        ({"api-key": "s"}, "api-key is a secret, and vllm_extra_args is written to a world-readable file"),
        ({"enforce-eager": "ja"}, "enforce-eager takes true or false, not 'ja'."),
        ({"max-num-seqs": "many"}, "max-num-seqs takes a whole number, not 'many'."),
        ({"max-num-seqs": True}, "max-num-seqs takes a whole number, not True."),
        (
            {"max-num-batched-tokens": [1]},
            "max-num-batched-tokens takes a whole number, or one such as 32k or 32K, not [1].",
        ),
        ({"cpu-offload-gb": "x"}, "cpu-offload-gb takes a number"),
        ({"compilation-config": 3}, "compilation-config takes a dictionary or a list, not 3."),
        ({"max-num-seqs": 0}, "max-num-seqs must be at least 1, not 0."),
        ({"max-num-batched-tokens": "-5"}, "max-num-batched-tokens must be at least 1, not -5."),
        ({"max-num-batched-tokens": 100, "max-num-seqs": 200}, "(100) must be at least max-num-seqs (200)"),
        (
            {"max-num-batched-tokens": 8192, "enable-chunked-prefill": False},
            "a whole prompt of up to 131072 tokens goes through in one step: set it to 131072 or more, or"
            " vllm_max_model_len to 8192 or less.",
        ),
        ({"dtype": "fp16"}, "dtype must be one of auto, half, float16, bfloat16, float, float32, not 'fp16'."),
        ({"hf-overrides": "{bad"}, "hf-overrides must be a dictionary, or one in JSON, not '{bad'."),
        ({"nnodes": 2}, "nnodes is for an engine over several nodes, and the plan is for one: leave it out"),
        ({"data-parallel-rank": 1}, "data-parallel-rank is for replicas that are started one by one"),
        ({"prefill-context-parallel-size": 2}, "takes GPUs that the plan does not give the engine"),
        ({"uds": "/run/vllm"}, "uds takes the port away"),
        ({"config": "/etc/mine.yaml"}, "config names a file in place of the one that the plan writes"),
    ],
)
def test_options_that_vllm_would_refuse(arguments: dict[str, Any], says: str) -> None:
    assert says in findings("1xH100", model="8b", extra_args=arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"log-config-file": "x"}, "log-config-file is deprecated in vLLM 0.33.0: use logging-config."),
        ({"enable-lora": True}, "enable-lora changes the memory left"),
    ],
)
def test_options_that_deserve_a_word(arguments: dict[str, Any], says: str) -> None:
    assert says in warnings("1xH100", model="8b", extra_args=arguments)


def test_options_that_are_fine() -> None:
    arguments = {"no-enable-prefix-caching": True, "max-num-batched-tokens": 4096, "middleware": ["a"], "seed": None}
    assert check_args(arguments, CATALOG.engine(None)) == ([], [])


def test_a_step_of_the_users_own_counts() -> None:
    small = one("1xH100", model="8b", extra_args={"max-num-batched-tokens": 2048})
    assert small.kv_cache_tokens > one("1xH100", model="8b").kv_cache_tokens
    assert small.config["max-num-batched-tokens"] == 2048


@pytest.mark.parametrize("text", ["32K", "32768", " 32K "])
def test_a_step_counts_as_vllm_reads_its_text(text: str) -> None:
    """vLLM's human_readable_int: 32k is 32000, 32K is 32768."""
    assert one("1xH100", model="8b", extra_args={"max-num-batched-tokens": text}) == one(
        "1xH100", model="8b", extra_args={"max-num-batched-tokens": 32768}
    )
    amended = load_catalog({"8b": {"vllm": {"max-num-batched-tokens": text}}})
    assert (
        one("1xH100", amended, model="8b").kv_cache_tokens
        == one("1xH100", model="8b", extra_args={"max-num-batched-tokens": 32768}).kv_cache_tokens
    )


def test_text_options_are_read_by_their_types() -> None:
    given = {
        "max-num-seqs": "64",
        "enforce-eager": "true",
        "watermark": "0.5",
        "kv-cache-memory-bytes": "2G",
        "no-enable-prefix-caching": "yes",
        "tool-call-parser": "1",
    }
    planned = one("1xH100", model="8b", extra_args=given).config
    assert {name: planned[name] for name in given} == {
        "max-num-seqs": 64,
        "enforce-eager": True,
        "watermark": 0.5,
        "kv-cache-memory-bytes": 2 * 1024**3,
        "no-enable-prefix-caching": True,
        "tool-call-parser": "1",
    }


@pytest.mark.parametrize("text", ["25.6K", "32 K", "many", ""])
def test_a_size_that_vllm_would_refuse_is_refused(text: str) -> None:
    message = findings("1xH100", model="8b", extra_args={"max-num-batched-tokens": text})
    assert f"max-num-batched-tokens takes a whole number, or one such as 32k or 32K, not {text!r}." in message


def test_the_environment_of_the_user_counts() -> None:
    own = {"VLLM_CPU_KVCACHE_SPACE": "8", "VLLM_ENGINE_READY_TIMEOUT_S": 5000, "FLAG": True, "EMPTY": None}
    planned = one("1xH100", model="8b", device="cpu", env=own)
    assert planned.env["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert planned.kv_cache_tokens == 2 * one("1xH100", model="8b", device="cpu").kv_cache_tokens
    assert (planned.start_timeout_s, planned.env["VLLM_ENGINE_READY_TIMEOUT_S"]) == (5000, "5000")
    assert (planned.env["FLAG"], planned.env["EMPTY"]) == ("1", "")


def test_own_names_of_a_request() -> None:
    request = read_request({"model": "8b", "remove_unlisted": True}, CATALOG)
    assert (request.remove_unlisted, request.port, request.findings) == (True, 8000, ())
