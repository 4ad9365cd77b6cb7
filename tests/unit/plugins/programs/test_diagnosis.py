# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines and the cause that they are read as. The texts are vLLM's, Docker's and CUDA's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import diagnosis, gpu as programs_gpu

#: Starts that failed, as a real engine (0.32.0) told them.
STARTS = Path(__file__).resolve().parents[3] / "fixtures" / "vllm" / "starts"
OCI = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
)
OCI += "create failed: runc create failed: unable to start container process: error during container init: "
GONE = "no such file or directory"
DNAT = "docker: Error response from daemon: failed to set up container networking: driver failed programming external "
DNAT += (
    "connectivity on endpoint vllm-8b (9e0d): Unable to enable DNAT rule:  (iptables failed: iptables --wait -t nat "
)

LINES = [
    (
        "gpus_not_ready",
        "vllm-gpus: after 120 s the GPUs are not ready: GPU 1 has 11059 of 81559 MiB free, and 75034 are needed.",
        "11059 of 81559 MiB",
    ),
    (
        "refused",
        "vllm-wait: org/a on port 8000: /v1/models answers 401: Unauthorized; it runs with another key than its env "
        "file has",
        "port 8000 refuses to serve org/a: /v1/models answers 401: Unauthorized; it runs",
    ),
    ("refused", "vllm-wait: m on port 8000: it serves a, b, not m: its served-model-name is another", "it serves a, b"),
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
    ("cdi_missing", "unresolvable CDI devices nvidia.com/gpu=0, nvidia.com/gpu=7", "gpu=0, nvidia.com/gpu=7: there"),
    (
        "cdi_stale",
        f"{OCI}failed to fulfil mount request: open /usr/lib/x86_64-linux-gnu/libcuda.so.580.1: {GONE}",
        "names /usr/lib/x86_64-linux-gnu/libcuda.so.580.1, which is not on the node",
    ),
    (
        "cdi_stale",
        f"{OCI}failed to fulfil mount request: open /run/nvidia-persistenced/socket: {GONE}: unknown.",
        "systemctl restart gpunode-cdi",
    ),
    (
        "cdi_stale",
        f'{OCI}error mounting "/usr/lib64/libnvidia-ml.so.580.1" to rootfs at "/usr/lib64/libnvidia-ml.so.580.1": '
        "cannot stat /usr/lib64/libnvidia-ml.so.580.1: no such file or directory",
        "libnvidia-ml.so.580.1, which",
    ),
    (
        "cdi_stale",
        "CDI device injection failed: failed to stat CDI host device /dev/nvidia7: no such file",
        "/dev/nvidia7,",
    ),
    ("cdi_injection", "CDI device injection failed: failed to apply container edits: unknown", "gpunode-cdi"),
    (
        "cdi_off",
        'docker: Error response from daemon: could not select device driver "cdi" with capabilities: [].',
        '"features": {"cdi": true}',
    ),
    ("driver_programs_missing", 'exec: "nvidia-smi": executable file not found in $PATH', "nvidia-smi was not put"),
    (
        "iptables_chain",
        f"{DNAT}-A DOCKER -p tcp -d 127.0.0.1 --dport 8000 -j DNAT --to-destination 172.17.0.2:8000 ! -i docker0: "
        "iptables: No chain/target/match by that name. (exit status 1))",
        "systemctl restart docker",
    ),
    (
        "iptables_chain",
        f"{DNAT}-A DOCKER -p tcp -d 0/0 --dport 8000 -j DNAT --to-destination 172.17.0.2:8000 ! -i docker0: "
        "iptables v1.8.10 (nf_tables): Chain 'DOCKER' does not exist",
        "Docker's chains",
    ),
    (
        "mount_missing",
        f"{OCI}failed to fulfil mount request: open /etc/vllm/8b.yaml: no such file or directory",
        "/etc/vllm/8b.yaml is not there",
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
    (
        "name_taken",
        'docker: Error response from daemon: Conflict. The container name "/vllm-8b" is already in use by container '
        "'5f3a'. You have to remove (or rename) that container to be able to reuse that name.",
        "docker rm -f",
    ),
    (
        "cpu_kv_too_large",
        "ValueError: Available memory on node 0 (3.1/7.7 GiB) on kv cache allocation is less than requested memory "
        "for kv (40.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by "
        "other processes.",
        "KV cache of 40.0 GiB",
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
        "heads_not_divisible",
        "  Value error, Total number of attention heads (28) must be divisible by tensor parallel size (8).",
        "divides 28: 1, 2, 4 or 7.",
    ),
    ("size_not_divisible", "AssertionError: 10 is not divisible by 4", "divides 10: 1 or 2."),
    ("size_not_divisible", "AssertionError: 7 is not divisible by 4", "divides 7: 1."),
    (
        "quant_not_aligned",
        "ValueError: The input size is not aligned with the quantized weight shape. This can be caused by too large "
        "tensor parallel size.",
        "Halve tensor-parallel-size",
    ),
    (
        "unknown_parser",
        "KeyError: 'invalid tool call parser: llama9 (chose from { apertus,granite })'",
        "parser llama9.",
    ),
    ("unknown_parser", "KeyError: 'invalid reasoning parser: r9 (chose from { deepseek_r1 })'", "reasoning parser r9."),
    ("unknown_load_format", "ValueError: Load format `gguf` is not supported", "format gguf."),
    (
        "unknown_architecture",
        "ValueError: Model architectures ['FutureForCausalLM'] are not supported for now. Supported architectures: x",
        "architecture FutureForCausalLM.",
    ),
    (
        "unknown_architecture",
        "ValueError: The checkpoint you are trying to load has model type `future9` but Transformers does not "
        "recognize this architecture.",
        "architecture future9.",
    ),
    (
        "unknown_architecture",
        "ValueError: Model architecture OldForCausalLM was supported in vLLM until v0.8.0, and is not supported now.",
        "architecture OldForCausalLM.",
    ),
    (
        "remote_code",
        "ValueError: The repository a/b contains custom code which must be executed to correctly load the model.",
        "set trust-remote-code: true",
    ),
    (
        "lora_rank",
        "ValueError: LoRA rank 64 is greater than max_lora_rank 16.",
        "rank 64, and the engine takes no more than 16",
    ),
    (
        "no_bfloat16",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
        "compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for "
        "example: --dtype=half.",
        "The Tesla T4 cannot compute in bfloat16: that takes compute capability 8.0. Set dtype: half",
    ),
    (
        "no_kernel",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "no kernels for this GPU",
    ),
    ("driver_mismatch", "Failed to initialize NVML: Driver/library version mismatch", "Restart the node"),
    ("gpu_lost", "Unable to determine the device handle for GPU0000:19:00.0: GPU is lost.", "fallen off the bus"),
    (
        "block_not_divisible",
        "Weight input_size_per_partition = 3328 is not divisible by weight quantization block_k = 128.",
        "a GPU would get 3328 of a layer, and a block has 128",
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


def whole(text: str) -> bool:
    """Whether it ends as a sentence does, and no sentence runs into the next or lacks a word."""
    return text[-1] in ".!?" and not re.search(r"\.\.|  | [.,:;]|\(\)", text)


@pytest.mark.parametrize(("key", "line", "message"), LINES)
def test_cause(key, line, message):
    found = diagnosis.diagnose(["(EngineCore pid=26) INFO starting", line, "RuntimeError: Engine core failed"])
    assert found is not None
    assert found.key == key
    assert message in str(found)
    assert "{" not in found.cause + found.remedy.replace('{"cdi": true}', "")
    assert whole(str(found))
    assert found.remedy


def test_the_table_is_long_enough_and_its_keys_are_unique():
    keys = [symptom.key for symptom in diagnosis.SYMPTOMS]
    assert len(keys) == len(set(keys)) >= 20


def test_every_symptom_has_a_line_that_it_is_proved_with():
    untested = {symptom.key for symptom in diagnosis.SYMPTOMS} - {key for key, _line, _said in LINES}
    assert untested == set()


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
def test_logs_of_a_healthy_engine_hold_no_cause(line):
    assert diagnosis.diagnose([line]) is None


@pytest.mark.parametrize(
    ("log", "key", "message"),
    [
        ("load-format-gguf", "unknown_load_format", "in the format gguf."),
        ("load-format-gguf-tp2", "unknown_load_format", "in the format gguf."),
        ("tool-call-parser", "unknown_parser", "tool call parser nope."),
        ("architecture", "unknown_architecture", "FutureForCausalLM."),
        ("model-type", "unknown_architecture", "future9."),
        ("remote-code", "remote_code", "code of its own"),
        ("heads-28-tp8", "heads_not_divisible", "28 attention heads cannot be split over 8 GPUs."),
        ("lora-rank", "lora_rank", "rank 64"),
        (
            "hidden-size",
            "exception",
            "ValueError: The hidden size (256) is not a multiple of the number of attention heads",
        ),
    ],
)
@pytest.mark.parametrize("stripped", [False, True])
def test_a_start_that_failed_as_it_was_recorded(log: str, key: str, message: str, stripped: bool) -> None:
    lines = (STARTS / f"{log}.log").read_text(encoding="utf-8").splitlines()
    found = diagnosis.diagnose([line.strip() if stripped else line for line in lines if line.strip()])
    assert found is not None
    assert found.key == key
    assert message in str(found)
    assert whole(str(found))


WORKER, CORE = "(Worker_TP0 pid=7) ERROR 11-26 00:47:07 [multiproc_executor.py:953] ", "(EngineCore_DP0 pid=5) ERROR "
CORE += "11-26 00:47:08 [core.py:1510] "
WRAPPED = [
    f"{CORE}Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace "
    "for root cause.",
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]


@pytest.mark.parametrize(
    ("lines", "process", "text"),
    [
        ([f"{WORKER}ValueError: in the worker", *WRAPPED], "Worker_TP0", "ValueError: in the worker"),
        # The first of several workers; what the core and the server say in words of their own comes from it.
        (
            [
                f"{WORKER}ValueError: first",
                "(Worker_TP1 pid=8) ERROR 11-26 00:47:07 [x.py:1] RuntimeError: Connection closed by peer",
                f"{CORE}RuntimeError: no workers",
                *WRAPPED,
            ],
            "Worker_TP0",
            "ValueError: first",
        ),
        # However they were written down: a process may tell of another's end before that one has spoken.
        ([f"{CORE}RuntimeError: no workers", f"{WORKER}ValueError: late"], "Worker_TP0", "ValueError: late"),
        ([f"{CORE}TypeError: in the core", *WRAPPED], "EngineCore_DP0", "TypeError: in the core"),
        (["Traceback (most recent call last):", 'File "x.py"', "Strange", "RuntimeError: after"], "", "Strange"),
        # Of two in one traceback: the cause, and what was made of an exception that was being handled.
        (
            [
                "KeyError: 'm'",
                "The above exception was the direct cause of the following exception:",
                "ValueError: of it",
            ],
            "",
            "KeyError: 'm'",
        ),
        (
            [
                "KeyError: 'm'",
                "During handling of the above exception, another exception occurred:",
                "ValueError: of it",
            ],
            "",
            "ValueError: of it",
        ),
        (["(Worker pid=3) WARNING 11-26 00:47:07 [x.py:1] ImportError: no triton"], None, None),
        (WRAPPED, None, None),
        (["RuntimeError", "raise ValueError(x)", "an error: nothing"], None, None),
    ],
)
def test_the_first_exception_of_the_innermost_process(lines, process, text) -> None:
    found = diagnosis.root_cause(lines)
    assert (found and found.process, found and found.text) == (process, text)


def test_an_unknown_exception_is_reported_as_raised() -> None:
    found = diagnosis.diagnose(["INFO fine", f"{WORKER}ValueError: a new one", *WRAPPED])
    assert str(found) == "The engine's process Worker_TP0 ended with ValueError: a new one."
    long = diagnosis.diagnose([f"ValueError: {'x' * 5000}"])
    assert len(str(long)) < 400


def test_what_the_unit_has_found_is_not_read_again() -> None:
    found = "vllm-wait: m on port 8000: the engine ended before it answered. CUDA out of memory."
    assert diagnosis.diagnose([found]) is None
    assert diagnosis.telling_lines(["no luck", found]) == ["no luck"]


def test_a_port_that_is_taken_comes_before_what_its_owner_answered() -> None:
    messages = [
        "vllm-wait: m on port 8000: /health answers 404: File not found",
        "Bind for 127.0.0.1:8000 failed: port is already allocated",
    ]
    for lines in (messages, messages[::-1]):
        found = diagnosis.diagnose(lines)
        assert (found and found.key) == "port_taken"


def test_later_errors_are_not_the_cause() -> None:
    after = ["NCCL error in: ProcessGroupNCCL.cpp:77", "vllm-8b.service: start operation timed out. Terminating."]
    found = diagnosis.diagnose([f"{WORKER}ValueError: a new one", *after])
    assert (found and found.key) == "exception"
    found = diagnosis.diagnose(["CUDA out of memory", f"{WORKER}ValueError: a new one"])
    assert (found and found.key) == "gpu_out_of_memory"


def test_what_still_runs_may_live_with_an_exception() -> None:
    assert diagnosis.diagnose([f"{CORE}ValueError: of one request"], ended=False) is None


def test_nvidia_smis_errors_are_recognized_here_too() -> None:
    messages = [text for text, state in programs_gpu.SYMPTOMS if state in ("driver_mismatch", "gpu_lost")]
    assert len(messages) >= 4
    for text in messages:
        assert diagnosis.diagnose([text.replace("gpu", "GPU").replace("is lost", "GPU is lost")]), text


def test_a_specific_cause_stands_before_the_one_that_follows_from_it():
    lines = ["torch.OutOfMemoryError: CUDA out of memory.", "Timed out waiting for engine core processes to start."]
    assert diagnosis.diagnose(lines).key == "gpu_out_of_memory"


@pytest.mark.parametrize(
    ("lines", "message"),
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
def test_phase(lines, message):
    assert diagnosis.phase(lines) == message


def test_telling_lines_are_errors_without_frames():
    lines = ["Traceback (most recent call last):", '  File "x.py", line 1', "INFO fine", "ValueError: an error", ""]
    assert diagnosis.telling_lines(lines) == ["ValueError: an error"]
    assert diagnosis.telling_lines(["INFO a", "INFO b"], 1) == ["INFO b"]


def test_the_engines_cause_comes_before_systemds():
    end = ["vllm-8b.service: Failed with result 'exit-code'.", "Failed to start vllm-8b.service - vLLM serves 8b."]
    assert diagnosis.telling_lines(["no luck today", *end]) == ["no luck today"]
    assert diagnosis.telling_lines(end) == end
