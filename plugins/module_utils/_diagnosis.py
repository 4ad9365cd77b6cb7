# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an engine did not start, from the last lines of its journal: pattern -> cause -> remedy.

The table is ordered: of the patterns that occur, the first one names the cause, so a specific cause stands before the
general one that follows from it (a worker that ran out of memory also makes "Engine core initialization failed").
A pattern's named groups fill the {fields} of cause and remedy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Symptom:
    key: str
    pattern: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    key: str
    cause: str
    remedy: str
    line: str

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


SYMPTOMS: tuple[Symptom, ...] = (
    # What the unit's own programs say before there is a container.
    Symptom(
        "gpus_not_ready",
        r"vllm-gpus: after (?P<seconds>\d+) s the GPUs are not ready: (?P<why>.+)",
        "After {seconds} s the GPUs are not ready: {why}.",
        "Free them, or raise vllm_gpu_timeout_s.",
    ),
    # What Docker says before there is an engine.
    Symptom(
        "image_missing",
        r"Unable to find image '(?P<image>[^']+)' locally|No such image: (?P<image2>\S+)",
        "The image {image} is not on this node.",
        "Units never pull. Run the playbook, or docker pull it.",
    ),
    Symptom(
        "cdi_missing",
        r"(?:CDI device injection failed:? )?unresolvable CDI devices? (?P<devices>\S+)|CDI device injection failed"
        r"|failed to inject CDI devices",
        "Docker does not know the GPU {devices}: there is no current CDI spec.",
        "Run nvidia-ctk cdi list; systemctl restart nvidia-cdi-refresh writes the spec anew. Docker before 28.3 also "
        'needs "features": {{"cdi": true}} in daemon.json.',
    ),
    Symptom(
        "toolkit_missing",
        r"could not select device driver .{0,60}gpu|unknown or invalid runtime name: nvidia",
        "Docker has no NVIDIA runtime.",
        "Install the NVIDIA Container Toolkit (the role nvidia_container_toolkit does) and restart Docker.",
    ),
    Symptom(
        "port_taken",
        r"(?:Bind for |listen tcp\d? |bind on address \(?)(?P<address>[\w.\[\]:'\", ]+?)\)?:? "
        r"(?:failed: port is already allocated|bind: address already in use)|\[Errno 98\]|address already in use",
        "The port {address} is taken by another process.",
        "ss -ltnp shows which one. Stop it, or give the instance another port.",
    ),
    Symptom(
        "address_missing",
        r"cannot assign requested address",
        "The address to listen on is not one of this node's.",
        "Set the instance's host to 127.0.0.1, 0.0.0.0 or an address that ip -br address lists.",
    ),
    Symptom(
        "mount_missing",
        r"bind source path does not exist: (?P<path>\S+)",
        "{path} is not there, and the container needs it.",
        "Run the playbook: it writes the configuration and fetches the weights.",
    ),
    Symptom(
        "name_taken",
        r"The container name .{0,80} is already in use",
        "Another container has this instance's name.",
        "docker ps -a shows it; docker rm -f removes it.",
    ),
    Symptom(
        "ulimit_refused",
        r"error setting rlimit|rlimits?.{0,40}operation not permitted",
        "Docker may not raise the limits that the unit asks for.",
        "Lower vllm_ulimits to what this host allows.",
    ),
    Symptom(
        "docker_down",
        r"Cannot connect to the Docker daemon",
        "Docker does not run.",
        "systemctl status docker says why.",
    ),
    # What the configuration got wrong: these end at once and are the same at the next start.
    Symptom(
        "unknown_flag",
        r"error: unrecognized arguments: (?P<flag>.+)",
        "This release of vLLM does not know the option {flag}.",
        "Remove it from the configuration; vllm serve --help=all in the image lists what there is.",
    ),
    Symptom(
        "ambiguous_flag",
        r"error: ambiguous option: (?P<flag>.+)",
        "An option is abbreviated: {flag}.",
        "Write it in full.",
    ),
    Symptom(
        "bad_flag_value",
        r"error: argument (?P<flag>\S+): (?P<why>.+)",
        "The option {flag} has a value that vLLM refuses: {why}.",
        "Correct it in the configuration.",
    ),
    Symptom(
        "fbgemm_deprecated",
        r"quantization method .{0,40}is deprecated and will be removed",
        "These weights use a quantization that this release calls deprecated (Meta's own FP8 of 405B does).",
        "Set allow-deprecated-quantization: true, or serve another quantization of the model.",
    ),
    Symptom(
        "heads_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
        "The model's {heads} attention heads cannot be split over {tp} GPUs.",
        "Set tensor-parallel-size to a power of two.",
    ),
    Symptom(
        "block_not_divisible",
        r"is not divisible by weight quantization block",
        "The quantized weights cannot be split that often.",
        "Lower tensor-parallel-size.",
    ),
    Symptom(
        "too_many_ranks",
        r"World size \((?P<world>\d+)\) is larger than the number of available GPUs \((?P<gpus>\d+)\)",
        "The configuration spreads the model over {world} GPUs, and the container sees {gpus}.",
        "Lower tensor-parallel-size, or give the unit the GPUs: nvidia-smi -L shows what is there.",
    ),
    Symptom(
        "over_model_limit",
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len",
        "max-model-len is {asked}, more than the model can do.",
        "Lower it to the model's own limit.",
    ),
    Symptom(
        "tool_parser_missing",
        r"--enable-auto-tool-choice requires --tool-call-parser",
        "enable-auto-tool-choice is set and tool-call-parser is not.",
        "Set both (llama3_json for Llama 3.1), or neither.",
    ),
    # What the weights or the hub got wrong.
    Symptom(
        "gated",
        r"access a gated repo|GatedRepoError|Access to model (?P<repo>\S+) is restricted",
        "The model is gated, and vLLM tried to fetch it itself.",
        "Weights are fetched at deploy time: run the playbook with a Hugging Face token whose account has accepted the "
        "licence.",
    ),
    Symptom(
        "weights_missing",
        r"LocalEntryNotFoundError|IncompleteSnapshotError|outgoing traffic has been disabled"
        r"|Invalid repository ID or local directory specified|Cannot find any model weights"
        r"|We couldn't connect to '[^']*' to load",
        "The weights are not complete in the cache that the unit mounts.",
        "Run the playbook: it fetches what is missing. The configuration must name the revision that was fetched.",
    ),
    Symptom(
        "weights_damaged",
        r"SafetensorError|safetensors_rust|InvalidHeaderDeserialization|MetadataIncompleteBuffer|header too large",
        "A file of the weights is damaged or cut short.",
        "Run the playbook: it verifies the files and fetches the bad ones again.",
    ),
    # What the GPUs have no room for.
    Symptom(
        "gpu_busy",
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "Another process uses {device}: {free} of {total} GiB are free, and {wanted} are asked for.",
        "nvidia-smi shows who. Stop it, or lower gpu-memory-utilization.",
    ),
    Symptom(
        "context_too_long",
        r"max seq len \((?P<asked>\d+)\), \(?(?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the "
        r"available KV cache memory \((?P<room>[\d.]+) GiB\)",
        "One request of {asked} tokens needs {needed} GiB of KV cache, and {room} GiB are free for it.",
        "Lower max-model-len (the log names the longest that fits), use kv-cache-dtype: fp8, or more GPUs.",
    ),
    Symptom(
        "no_kv_room",
        r"No available memory for the cache blocks",
        "The weights leave no room for the KV cache.",
        "Raise gpu-memory-utilization, spread the model over more GPUs, or use a smaller quantization.",
    ),
    Symptom(
        "gpu_out_of_memory",
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "The GPU's memory is full.",
        "Lower gpu-memory-utilization or max-num-seqs, or spread the model over more GPUs; nvidia-smi shows who else "
        "is there.",
    ),
    Symptom(
        "cpu_kv_too_large",
        r"(increase|decrease|lower|reduce).{0,60}VLLM_CPU_KVCACHE_SPACE|[Nn]ot enough (available )?memory for CPU KV",
        "The KV cache asked for does not fit this machine's memory.",
        "Lower VLLM_CPU_KVCACHE_SPACE (GiB).",
    ),
    Symptom(
        "host_out_of_memory",
        r"oom-kill|Out of memory: Killed process|exit code:? -9\b|died with .*SIGKILL|DefaultCPUAllocator",
        "The host ran out of memory and something was killed.",
        "dmesg -T | grep -i oom shows what. Free memory on the host, or lower the engine's share of it.",
    ),
    Symptom(
        "shared_memory",
        r"/dev/shm|No space left on device.{0,80}shm|shared memory.{0,60}(insufficient|not enough|too small)|Bus error",
        "The container's shared memory is too small.",
        "Raise the instance's shm_size.",
    ),
    Symptom(
        "disk_full",
        r"No space left on device",
        "A disk is full.",
        "df -h shows which; the compile cache lies under /var/cache/vllm and may be deleted while the unit is stopped.",
    ),
    # What the driver, the boards or the machine got wrong.
    Symptom(
        "fabric_not_up",
        r"Error 802|cudaErrorSystemNotReady|system not yet initialized",
        "CUDA says 802: the NVSwitch fabric is not up, though nvidia-smi looks healthy.",
        "systemctl status nvidia-fabricmanager: its version must equal the driver's. Then start the unit again.",
    ),
    Symptom(
        "driver_too_old",
        r"driver version is insufficient|NVIDIA driver on your system is too old|CUDA_ERROR_COMPAT_NOT_SUPPORTED"
        r"|unsatisfied condition: cuda|forward compatibility was attempted",
        "The NVIDIA driver is too old for the CUDA that is in the image.",
        "Install driver 580 or newer, or use the image for CUDA 12.9 (-cu129).",
    ),
    Symptom(
        "no_gpu_seen",
        r"No CUDA GPUs are available|no CUDA-capable device is detected|Failed to infer device type"
        r"|NVML Shared Library Not Found|Found no NVIDIA driver",
        "The engine sees no GPU.",
        "nvidia-smi on the host must list them, and the unit must name them (--device=nvidia.com/gpu=…).",
    ),
    Symptom(
        "nvml_lost",
        r"Failed to initialize NVML: Unknown Error",
        "The container has lost its GPUs, as happens with Docker's legacy GPU hook after systemctl daemon-reload.",
        "Start the unit again; with CDI devices (--device=nvidia.com/gpu=…) and runc from 1.1.7 on it does not happen.",
    ),
    Symptom(
        "xid",
        r"NVRM: Xid|CUDA error: (an illegal memory access|uncorrectable ECC|unspecified launch)",
        "A GPU has reported a fault.",
        "dmesg -T | grep Xid names the GPU; nvidia-smi -q shows whether it asks for a reset.",
    ),
    Symptom(
        "nccl",
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclRemoteError",
        "The GPUs could not talk to each other (NCCL).",
        "Set NCCL_DEBUG=INFO in the instance's env and start again; nvidia-smi topo -m shows the links.",
    ),
    Symptom(
        "illegal_instruction",
        r"[Ii]llegal instruction|status=4/ILL|SIGILL",
        "The processor lacks instructions that this build of vLLM needs (AVX512, often).",
        "Use an image that was built for this processor.",
    ),
    Symptom(
        "compiler_missing",
        r"InvalidCxxCompiler|No working C\+\+ compiler|Failed to find C compiler",
        "The image has no C compiler, and the engine compiles kernels.",
        "Use vLLM's own image, or set enforce-eager: true.",
    ),
    Symptom(
        "ray_missing",
        r"Please install Ray",
        "The configuration asks for Ray, and the image has none.",
        "Remove distributed-executor-backend: within a node, mp is chosen and needs nothing.",
    ),
    Symptom(
        "permission",
        r"Permission denied: '(?P<path>[^']+)'|PermissionError.{0,80}'(?P<path2>[^']+)'",
        "The engine may not use {path}.",
        "Check the owner and mode of what is mounted there.",
    ),
    Symptom(
        "hang",
        r"vllm-wait: no sign of life from (?P<model>.+) for (?P<seconds>\d+) s",
        "{model} hung: its processes lived and it worked off nothing for {seconds} s.",
        "It is started again by itself. Where it comes back, py-spy dump --pid shows where the engine stands.",
    ),
    # What is left when the engine itself gave up waiting.
    Symptom(
        "engine_timeout",
        r"Timed out waiting for engine core processes to start",
        "Loading took longer than vLLM waits for its engine.",
        "Raise vllm_start_timeout_s; a slow disk or a network file system is the usual reason.",
    ),
    Symptom(
        "start_timeout",
        r"start-post operation timed out|start operation timed out",
        "The unit took longer than its TimeoutStartSec to answer.",
        "Raise vllm_start_timeout_s, if the log shows that it was still loading.",
    ),
    Symptom(
        "start_limit",
        r"Start request repeated too quickly",
        "It failed so often that systemd has stopped trying.",
        "Remove the cause, then systemctl reset-failed and start it.",
    ),
)

_COMPILED = tuple((symptom, re.compile(symptom.pattern)) for symptom in SYMPTOMS)

#: What an engine is busy with, from the newest line that tells: pattern -> words for people.
_PHASES: tuple[tuple[str, str], ...] = (
    (r"Application startup complete|Starting vLLM API server|Started server process", "opening the port"),
    (r"Capturing CUDA graphs?.{0,80}?(?P<share>\d+)%", "capturing CUDA graphs ({share} %)"),
    (r"Capturing CUDA graph|Graph capturing", "capturing CUDA graphs"),
    (r"GPU KV cache size|CPU KV cache size|Available KV cache memory", "laying out the KV cache"),
    (r"torch\.compile took|Dynamo bytecode|Compiling a graph|Cache the graph", "compiling"),
    (r"Warming up|[Ww]armup (took|is running)", "warming up"),
    (r"Model loading took|Loading weights took", "weights are loaded"),
    (r"Loading safetensors checkpoint shards:\s+(?P<share>\d+)%", "loading weights ({share} %)"),
    (r"Loading (model )?weights|Starting to load model|Using .{0,40}attention|Loading .{0,30}checkpoint", "loading"),
    (r"Initializing a V1 LLM engine|world_size=\d+ rank|rank \d+ in world", "starting its workers"),
    (r"non-default args|vLLM API server version|vllm\.entrypoints|version \d+\.\d+", "reading its configuration"),
)
_COMPILED_PHASES = tuple((re.compile(pattern), words) for pattern, words in _PHASES)
_NOISE = re.compile(r"^\s*(File \"|Traceback|\^+$|$)|^\(?[A-Za-z_]+ ?pid=\d+\)?\s*$")
#: What systemd and the unit's own programs say of every end: true, and of no help.
_HUSK = re.compile(
    r"^\S+\.service: |^(Starting|Started|Stopping|Stopped|Failed to start) \S+\.service"
    r"|: the engine ended before it answered"
)


def diagnose(lines: Sequence[str]) -> Diagnosis | None:
    """The cause that the table finds, or None."""
    for symptom, pattern in _COMPILED:
        for line in lines:
            match = pattern.search(line)
            if match:
                return _filled(symptom, match, line.strip())
    return None


def _filled(symptom: Symptom, match: re.Match[str], line: str) -> Diagnosis:
    # A pattern with two spellings has its group twice: image and image2.
    fields: dict[str, str] = {}
    for name, value in match.groupdict().items():
        base = name.rstrip("2")
        fields[base] = fields.get(base) or (value or "").strip(" .'\"")
    cause, remedy = symptom.cause.format(**fields), symptom.remedy.format(**fields)
    return Diagnosis(symptom.key, re.sub(r"\s+", " ", cause).replace(" .", ".").replace(" :", ":"), remedy, line)


def phase(lines: Sequence[str]) -> str:
    """What the engine is busy with, from its newest line that tells; empty where none does."""
    for line in reversed(lines):
        for pattern, words in _COMPILED_PHASES:
            match = pattern.search(line)
            if match:
                return words.format(**match.groupdict())
    return ""


def telling_lines(lines: Sequence[str], count: int = 5) -> list[str]:
    """The last lines that say something: the engine's own before systemd's, errors first, no frames of tracebacks."""
    said = [line.strip() for line in lines if not _NOISE.search(line)]
    said = [line for line in said if not _HUSK.search(line)] or said
    errors = [line for line in said if re.search(r"error|exception|fatal|failed|denied", line, re.IGNORECASE)]
    return (errors or said)[-count:]
