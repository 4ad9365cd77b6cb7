# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines and the cause that they are read as. The texts are vLLM's, Docker's and CUDA's own."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils import _diagnosis

LINES = [
    (
        "gpus_not_ready",
        "vllm-gpus: after 120 s the GPUs are not ready: GPU 1 has 11059 of 81559 MiB free, and 75034 are needed.",
        "11059 of 81559 MiB",
    ),
    ("hang", "vllm-wait: no sign of life from a/b for 301 s: it hangs. systemd kills it.", "a/b hung"),
    ("image_missing", "docker: Error response from daemon: No such image: vllm/vllm-openai:v0.33.0.", "v0.33.0"),
    ("image_missing", "Unable to find image 'vllm/vllm-openai:v0.33.0' locally", "vllm/vllm-openai:v0.33.0"),
    (
        "cdi_missing",
        "docker: Error response from daemon: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7.",
        "nvidia.com/gpu=7",
    ),
    (
        "toolkit_missing",
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
        "no NVIDIA runtime",
    ),
    (
        "port_taken",
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint vllm-8b: "
        "Bind for 127.0.0.1:8000 failed: port is already allocated.",
        "127.0.0.1:8000",
    ),
    (
        "port_taken",
        "Error starting userland proxy: listen tcp4 127.0.0.1:8000: bind: address already in use.",
        "127.0.0.1:8000",
    ),
    ("port_taken", "OSError: [Errno 98] Address already in use", "port"),
    ("address_missing", "listen tcp4 10.9.9.9:8000: bind: cannot assign requested address.", "not one of this node"),
    (
        "mount_missing",
        'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: '
        "/var/lib/huggingface/hub.",
        "/var/lib/huggingface/hub",
    ),
    ("docker_down", "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "does not run"),
    ("ulimit_refused", "OCI runtime create failed: error setting rlimit type 8: operation not permitted", "limits"),
    ("unknown_flag", "vllm serve: error: unrecognized arguments: --swap-space 16", "--swap-space 16"),
    ("ambiguous_flag", "vllm serve: error: ambiguous option: --device could match --device-ids", "--device"),
    ("bad_flag_value", "vllm serve: error: argument --seed: invalid int value: 'None'", "--seed"),
    (
        "fbgemm_deprecated",
        "ValueError: ('The quantization method %s is deprecated and will be removed in future versions of vLLM. To "
        "bypass, set `--allow-deprecated-quantization`.', 'fbgemm_fp8')",
        "allow-deprecated-quantization",
    ),
    (
        "heads_not_divisible",
        "Value error, Total number of attention heads (32) must be divisible by tensor parallel size (3).",
        "32 attention heads cannot be split over 3",
    ),
    (
        "block_not_divisible",
        "Weight input_size_per_partition = 3328 is not divisible by weight quantization block_k = 128.",
        "tensor-parallel-size",
    ),
    (
        "too_many_ranks",
        "World size (8) is larger than the number of available GPUs (1) in this node. If this is intentional",
        "over 8 GPUs, and the container sees 1",
    ),
    (
        "over_model_limit",
        "User-specified max_model_len (999999) is greater than the derived max_model_len (max_position_embeddings",
        "999999",
    ),
    ("tool_parser_missing", "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser", "llama3_json"),
    ("gated", "OSError: You are trying to access a gated repo.", "licence"),
    (
        "weights_missing",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache",
        "not complete",
    ),
    ("weights_missing", "Invalid repository ID or local directory specified: 'a/b'.", "not complete"),
    ("weights_damaged", "safetensors_rust.SafetensorError: Error while deserializing header: incomplete", "damaged"),
    (
        "gpu_busy",
        "ValueError: Free memory on device cuda:0 (11.2/79.18 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 72.85 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "11.2 of 79.18 GiB are free, and 72.85",
    ),
    (
        "context_too_long",
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed"
        ", which is larger than the available KV cache memory (5.31 GiB). Based on the available memory, the estimated "
        "maximum model length is 43488.",
        "131072 tokens needs 16.0 GiB of KV cache, and 5.31",
    ),
    ("no_kv_room", "ValueError: No available memory for the cache blocks. Try increasing", "KV"),
    ("gpu_out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB.", "full"),
    ("host_out_of_memory", "vllm-8b.service: Failed with result 'oom-kill'.", "ran out of memory"),
    ("shared_memory", "RuntimeError: unable to write to file </torch_1_2>: /dev/shm is full", "shm_size"),
    ("shared_memory", "Bus error (core dumped)", "shm_size"),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/root/.cache/vllm/torch'", "disk is full"),
    ("fabric_not_up", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not", "802"),
    ("driver_too_old", "CUDA driver version is insufficient for CUDA runtime version", "580"),
    ("no_gpu_seen", "RuntimeError: No CUDA GPUs are available", "sees no GPU"),
    ("nvml_lost", "Failed to initialize NVML: Unknown Error", "daemon-reload"),
    ("xid", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "fault"),
    ("nccl", "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:77", "NCCL"),
    ("illegal_instruction", "vllm-tiny.service: Main process exited, code=dumped, status=4/ILL", "AVX512"),
    ("compiler_missing", "torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found", "enforce-eager"),
    ("ray_missing", "ValueError: Please install Ray with `pip install ray`.", "Ray"),
    ("permission", "PermissionError: [Errno 13] Permission denied: '/root/.cache/vllm/x'", "/root/.cache/vllm/x"),
    (
        "engine_timeout",
        "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight",
        "vllm_start_timeout_s",
    ),
    ("start_timeout", "vllm-8b.service: start-post operation timed out. Terminating.", "start_timeout_s"),
    ("start_limit", "vllm-8b.service: Start request repeated too quickly.", "reset-failed"),
]


@pytest.mark.parametrize(("key", "line", "said"), LINES)
def test_cause(key, line, said):
    found = _diagnosis.diagnose(["(EngineCore pid=26) INFO starting", line, "RuntimeError: Engine core failed"])
    assert found is not None
    assert found.key == key
    assert said in str(found)
    assert "{" not in found.cause + found.remedy.replace('{"cdi": true}', "")
    assert found.remedy


def test_the_table_is_long_enough_and_its_keys_are_unique():
    keys = [symptom.key for symptom in _diagnosis.SYMPTOMS]
    assert len(keys) == len(set(keys)) >= 20


def test_every_symptom_has_a_line_that_it_is_proved_with():
    untested = {symptom.key for symptom in _diagnosis.SYMPTOMS} - {key for key, _line, _said in LINES}
    assert untested <= {"name_taken", "cpu_kv_too_large"}


@pytest.mark.parametrize(
    "line",
    [
        "INFO: Application startup complete.",
        "(EngineCore pid=26) INFO Available KV cache memory: 1.00 GiB",
        "non-default args: {'port': 8000, 'env': {'VLLM_CPU_KVCACHE_SPACE': '1'}}",
        "WARNING Triton is not installed. triton-cpu is expected on x86 CPUs.",
        "INFO 172.17.0.1:43494 - GET /v1/models HTTP/1.1 200 OK",
        "vllm-tiny.service: Main process exited, code=exited, status=1/FAILURE",
    ],
)
def test_what_a_healthy_engine_says_is_no_cause(line):
    assert _diagnosis.diagnose([line]) is None


def test_a_specific_cause_stands_before_the_one_that_follows_from_it():
    lines = ["torch.OutOfMemoryError: CUDA out of memory.", "Timed out waiting for engine core processes to start."]
    assert _diagnosis.diagnose(lines).key == "gpu_out_of_memory"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        (["something else"], ""),
        (["Loading safetensors checkpoint shards:  40% Completed | 4/10"], "loading weights (40 %)"),
        (["Loading safetensors checkpoint shards: 9%", "Capturing CUDA graphs: 50%|#"], "capturing CUDA graphs (50 %)"),
        (["(EngineCore pid=26) INFO a line that tells nothing"], ""),
        (["INFO Starting to load model gpunode/tiny-llama..."], "loading"),
        (["INFO Available KV cache memory: 5 GiB"], "laying out the KV cache"),
    ],
)
def test_phase(lines, said):
    assert _diagnosis.phase(lines) == said


def test_telling_lines_are_errors_without_frames():
    lines = ["Traceback (most recent call last):", '  File "x.py", line 1', "INFO fine", "ValueError: an error", ""]
    assert _diagnosis.telling_lines(lines) == ["ValueError: an error"]
    assert _diagnosis.telling_lines(["INFO a", "INFO b"], 1) == ["INFO b"]


def test_what_the_engine_says_comes_before_what_systemd_says_of_it():
    end = ["vllm-8b.service: Failed with result 'exit-code'.", "Failed to start vllm-8b.service - vLLM serves 8b."]
    assert _diagnosis.telling_lines(["no luck today", *end]) == ["no luck today"]
    assert _diagnosis.telling_lines(end) == end
