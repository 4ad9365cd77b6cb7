# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an engine did not start, or a container has no GPU, from what was said: pattern -> cause -> remedy.

This is the only such table: the unit itself, the wait for an endpoint, the status, the proof of the GPUs and
docs/troubleshooting.md use it; the role lays this file beside the unit's program. It is ordered: of the patterns that
occur, the first one names the cause, so a specific cause stands before the general one that follows from it. A row's
named groups fill the {fields} of cause and remedy; ``image2`` is another spelling of ``image``.

An engine is several processes, and what fails in the innermost fails again in each around it, in other words: a worker
that ran out of memory also makes "Engine core initialization failed". So the first exception of the innermost process
is looked up before anything else, and told as it is where the table has nothing for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Symptom:
    """A row of the table. ``more``: further fields, worked out from those of the pattern."""

    key: str
    pattern: str
    cause: str
    remedy: str
    more: Callable[[Mapping[str, str]], dict[str, str]] = lambda fields: {}


@dataclass(frozen=True)
class Diagnosis:
    key: str
    cause: str
    remedy: str
    line: str

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


def _divisors(fields: Mapping[str, str]) -> dict[str, str]:
    """Over how many GPUs, of those that were asked for, a number can be split."""
    size, gpus = int(fields["size"]), int(fields["tp"])
    fits = [str(count) for count in range(1, min(size, gpus) + 1) if size % count == 0]
    return {"divisors": " or ".join([", ".join(fits[:-1]), fits[-1]] if len(fits) > 1 else fits)}


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
        "Units never pull. Run the playbook, or docker pull it first.",
    ),
    Symptom(
        "cdi_missing",
        r"unresolvable CDI devices? (?P<devices>[^\s:,]+(?:, [^\s:,]+)*)|unresolvable CDI devices",
        "Docker does not know the GPU {devices}: there is no current CDI specification of it.",
        "nvidia-ctk cdi list shows what there is; systemctl restart gpunode-cdi makes it anew.",
    ),
    Symptom(
        "cdi_stale",
        r"failed to fulfil mount request: open (?P<path>[^ :]*(?:nvidia|cuda|\.so\.\d)[^ :]*): no such file"
        r"|error mounting \"(?P<path2>[^\"]*(?:nvidia|cuda|\.so\.\d)[^\"]*)\" to rootfs.{0,300}no such file"
        r"|CDI device injection failed: .{0,200}?(?P<path3>/dev/[^ :]+)",
        "The CDI specification names {path}, which is not on the node: it was made before the driver or a board was "
        "replaced.",
        "systemctl restart gpunode-cdi makes it anew; then start the unit again.",
    ),
    Symptom(
        "cdi_injection",
        r"CDI device injection failed|failed to inject CDI devices",
        "Docker could not put the GPUs into the container as their CDI specification has it.",
        "nvidia-ctk cdi list shows what there is; systemctl restart gpunode-cdi makes it anew.",
    ),
    Symptom(
        "cdi_off",
        r'could not select device driver "cdi"',
        "Docker has not been told of CDI: features.cdi is missing in daemon.json, or Docker was not restarted since.",
        'Set "features": {{"cdi": true}} in /etc/docker/daemon.json, as the role nvidia_container_toolkit does, and '
        "restart Docker. Docker before 25 knows no CDI.",
    ),
    Symptom(
        "toolkit_missing",
        r"could not select device driver .{0,60}gpu|[Uu]nknown or invalid runtime name: nvidia",
        "Docker has no NVIDIA runtime: daemon.json lacks it, or Docker was not reloaded since.",
        "Install the NVIDIA Container Toolkit (the role nvidia_container_toolkit does) and restart Docker.",
    ),
    Symptom(
        "driver_programs_missing",
        r"nvidia-smi\W+(?:executable file not found|no such file)",
        "The driver's program nvidia-smi was not put into the container.",
        "systemctl restart gpunode-cdi describes the driver anew; nvidia-smi must be there on the node itself.",
    ),
    Symptom(
        "iptables_chain",
        r"iptables.{0,300}(?:No chain/target/match by that name|[Cc]hain '?DOCKER\S* does not exist)",
        "Docker's chains in iptables are gone, as happens when a firewall is started or loaded anew after Docker.",
        "systemctl restart docker writes them again; have the firewall start before Docker.",
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
        r"bind source path does not exist: (?P<path>\S+)"
        r"|failed to fulfil mount request: open (?P<path2>[^:]+): no such",
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
        r"Total number of attention heads \((?P<size>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
        "The model's {size} attention heads cannot be split over {tp} GPUs.",
        "Set tensor-parallel-size to a number that divides {size}: {divisors}. Other GPUs can serve as replicas "
        "(data-parallel-size).",
        _divisors,
    ),
    Symptom(
        "size_not_divisible",
        r"AssertionError: (?P<size>\d+) is not divisible by (?P<tp>\d+)",
        "A part of the model with the size {size} cannot be split over {tp} GPUs.",
        "Set tensor-parallel-size to a number that divides {size}: {divisors}.",
        _divisors,
    ),
    Symptom(
        "block_not_divisible",
        r"(?P<part>\d+) is not divisible by weight quantization block_\w = (?P<block>\d+)",
        "The quantized weights cannot be split that often: a GPU would get {part} of a layer, and a block has {block}.",
        "Halve tensor-parallel-size until it fits; other GPUs can serve as replicas (data-parallel-size).",
    ),
    Symptom(
        "quant_not_aligned",
        r"The (?P<side>input|output) size is not aligned with the quantized weight shape",
        "The quantized weights cannot be split that often: a GPU's {side} part of a layer would end within a group.",
        "Halve tensor-parallel-size until it fits; other GPUs can serve as replicas (data-parallel-size).",
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
    Symptom(
        "unknown_parser",
        r"invalid (?P<kind>tool call|reasoning) parser: (?P<parser>[^\s'\"]+)",
        "This release of vLLM has no {kind} parser {parser}.",
        "Correct it in the configuration; the same line of the log lists those that there are.",
    ),
    Symptom(
        "unknown_load_format",
        r"Load format `(?P<format>[^`]+)` is not supported",
        "This release of vLLM cannot load weights in the format {format}.",
        "Remove load-format from the configuration, or install the plugin that brings it; for GGUF files, serve the "
        "same model from safetensors.",
    ),
    Symptom(
        "unknown_architecture",
        r"Model architectures? \[?'?(?P<architecture>[\w', ]+?)'?\]? "
        r"(?:are not supported for now|was supported in vLLM until|is not supported in-tree)"
        r"|has model type `(?P<architecture2>[^`]+)` but Transformers does not recognize",
        "This release of vLLM does not know the architecture {architecture}.",
        "Use the image of a release that supports it, which https://docs.vllm.ai lists, or serve another model.",
    ),
    Symptom(
        "remote_code",
        r"contains custom code which must be executed|requires you to execute (?:custom|the \w+ file)"
        r"|(?:pass the argument|set the option) `trust_remote_code=True`",
        "The model comes with code of its own, and the engine may not run that.",
        "Read that code in the revision that is served; where you trust it, set trust-remote-code: true.",
    ),
    Symptom(
        "lora_rank",
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<limit>\d+)",
        "An adapter has the rank {rank}, and the engine takes no more than {limit}.",
        "Set max-lora-rank to {rank} or above: 8, 16, 32, 64, 128, 256, 320 or 512.",
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
        r"on kv cache allocation is less than requested memory for kv \((?P<wanted>[\d.]+) GiB\)",
        "The KV cache of {wanted} GiB does not fit this machine's free memory.",
        "Lower VLLM_CPU_KVCACHE_SPACE (GiB).",
    ),
    Symptom(
        "host_out_of_memory",
        r"oom-kill|Out of memory: Killed process|exit code:? -9\b|died with .*SIGKILL|DefaultCPUAllocator"
        r"|Failed core proc\(s\): \{[^}]*: -9\b",
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
        "no_bfloat16",
        r"Bfloat16 is only supported on GPUs with compute capability of at least (?P<need>[\d.]+)\. Your (?P<gpu>.+?) "
        r"GPU (?:has|does)",
        "The {gpu} cannot compute in bfloat16: that takes compute capability {need}.",
        "Set dtype: half in the configuration, or serve the model on a newer GPU.",
    ),
    Symptom(
        "no_kernel",
        r"no kernel image is available for execution",
        "The image has no kernels for this GPU: it was built for others.",
        "nvidia-smi --query-gpu=name,compute_cap --format=csv shows what an image must be built for.",
    ),
    Symptom(
        "driver_mismatch",
        r"[Dd]river/library version mismatch",
        "The libraries of the NVIDIA driver do not match the driver that is loaded: it was updated while it ran.",
        "Restart the node, or unload and load the driver's modules.",
    ),
    Symptom(
        "gpu_lost",
        r"GPU is lost|fallen off the bus|[Uu]nable to determine the device handle",
        "A GPU has fallen off the bus.",
        "Restart the node; where it happens again, the board, its power or its slot is at fault.",
    ),
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
        "refused",
        r"vllm-wait: (?P<model>.+) on port (?P<port>\d+): "
        r"(?P<said>(?:/\S+ answers [34]\d\d|it serves |what answers on ).*)",
        "The endpoint on port {port} refuses to serve {model}: {said}.",
        "Compare the instance's key, served-model-name and port with what runs there, then start the unit again.",
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
#: What a process of the engine puts before its lines: its name, and where it logs, the level, time and place.
_PREFIX = re.compile(
    r"^\((?P<process>[\w-]+)(?: rank=\d+)? pid=\d+\) ?"
    r"(?:(?P<level>[A-Z]{4,}) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]+\])? ?)?"
)
#: How deep in the engine a process is; what has no name is the outermost, or ends with it.
_DEPTHS = (("EngineCore", 1), ("Worker", 2), ("VllmWorker", 2))
_EXCEPTION = re.compile(r"^((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)): \S")
#: In a traceback anything that looks like a class ends it.
_ENDS_TRACEBACK = re.compile(r"^((?:[a-zA-Z_]\w*\.)*[A-Z]\w+)(?:: |$)")
#: What one process says of the end of another.
_WRAPPER = re.compile(
    r"See (?:stack trace|root cause)|WorkerProc initialization failed|Engine core initialization failed"
    r"|EngineDeadError|EngineCore encountered an issue|Worker failed with error|: cancelled$"
)
_FRAME = re.compile(r"^\s*(File \"|Traceback|During handling of|The above exception was|[\^~]+\s*$|$)")
_ERROR = re.compile(r"error|exception|fatal|failed|denied", re.IGNORECASE)
_FOUND = re.compile(r"^vllm-wait: .*: the engine ended before it answered")
#: What systemd and the unit's own programs say of every end: true, and of no help.
_HUSK = re.compile(
    r"^\S+\.service: |^(Starting|Started|Stopping|Stopped|Failed to start) \S+\.service"
    r"|: the engine ended before it answered"
)


@dataclass(frozen=True)
class Raised:
    """An exception that ended a process of the engine. ``line``: the number of its line in what was read."""

    process: str
    text: str
    line: int

    @property
    def depth(self) -> int:
        return max((depth for name, depth in _DEPTHS if self.process.startswith(name)), default=0)


def _bare(line: str) -> tuple[str, str, str]:
    """Process, level and words of a line."""
    match = _PREFIX.match(line)
    return (match["process"], match["level"] or "", line[match.end() :]) if match else ("", "", line)


def _exceptions(lines: Sequence[str]) -> Iterator[Raised]:
    """The exceptions in the order of the log, with the words on the next line where the first only counts them."""
    inside: set[str] = set()
    for number, line in enumerate(lines):
        process, level, words = _bare(line)
        words = words.strip()
        if level in ("DEBUG", "INFO", "WARNING"):
            continue
        if words.startswith("Traceback (most recent call last)"):
            inside.add(process)
            continue
        match = _EXCEPTION.match(words) or (_ENDS_TRACEBACK.match(words) if process in inside else None)
        if not match:
            continue
        inside.discard(process)
        after = _bare(lines[number + 1])[2].strip() if number + 1 < len(lines) else ""
        if re.search(r"validation errors? for \S+$", words) and after:
            words = f"{match[1]}: {after}"
        yield Raised(process, words, number)


def root_cause(lines: Sequence[str]) -> Raised | None:
    """The first exception of the innermost process that has one, and not one that it handled by raising another."""
    raised = [one for one in _exceptions(lines) if not _WRAPPER.search(one.text)]
    if not raised:
        return None
    depth = max(one.depth for one in raised)
    inner = [one for one in raised if one.depth == depth]
    cause = inner[0]
    for exception in inner[1:]:
        between = [_bare(line)[2] for line in lines[cause.line : exception.line]]
        if exception.process != cause.process or not any("During handling of the above" in line for line in between):
            break
        cause = exception
    return cause


def diagnose(lines: Sequence[str], ended: bool = True) -> Diagnosis | None:
    """The cause of an end, or None where nothing tells it.

    What has not ended may have had exceptions that it lives with: only the table tells then. What the unit has found
    already, by this table, is not read again.
    """
    lines = [line for line in lines if not _FOUND.search(line)]
    root = root_cause(lines) if ended else None
    if root is None:
        return _first(lines)
    # What was said after it follows from it.
    return _first([root.text]) or _first(lines[: root.line + 1]) or _unlisted(root)


def _first(lines: Sequence[str]) -> Diagnosis | None:
    """What the first row of the table says that knows one of the lines."""
    for symptom, pattern in _COMPILED:
        for line in lines:
            match = pattern.search(line)
            if match:
                return _filled(symptom, match, line.strip())
    return None


def _unlisted(root: Raised) -> Diagnosis:
    """A cause that is not in the table, in the exception's own words."""
    by = f"The engine's process {root.process}" if root.process else "The engine"
    return Diagnosis("exception", sentences(f"{by} ended with {shortened(root.text)}"), "", root.text)


def _filled(symptom: Symptom, match: re.Match[str], line: str) -> Diagnosis:
    fields: dict[str, str] = {}
    for name, value in match.groupdict().items():
        base = name.rstrip("0123456789")
        fields[base] = fields.get(base) or (value or "").strip(" .'\"")
    fields.update(symptom.more(fields))
    cause, remedy = symptom.cause.format(**fields), symptom.remedy.format(**fields)
    return Diagnosis(symptom.key, re.sub(r"\s+", " ", cause).replace(" .", ".").replace(" :", ":"), remedy, line)


def shortened(text: str, most: int = 300) -> str:
    """A text of one line, with an ellipsis where it goes on."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 2].rstrip() + " …"


def sentences(*parts: str) -> str:
    """The parts as whole sentences, one after the other; empty ones are left out."""
    stripped = (part.strip() for part in parts)
    return " ".join(part if part[-1] in ".!?:…" else f"{part}." for part in stripped if part)


def journal_of(unit: str) -> str:
    """The command that shows the whole journal."""
    return f"journalctl -eu {unit} has all that it said." if unit else ""


def phase(lines: Sequence[str]) -> str:
    """The phase of the engine's start, from its newest log line with a known phase; empty if there is none."""
    for line in reversed(lines):
        for pattern, words in _COMPILED_PHASES:
            match = pattern.search(line)
            if match:
                return words.format(**match.groupdict())
    return ""


def telling_lines(lines: Sequence[str], count: int = 5) -> list[str]:
    """The most useful last lines: the engine's own before systemd's, errors first, no frames of tracebacks."""
    kept = [line.strip() for line in lines if not _FRAME.search(_bare(line)[2])]
    kept = [line for line in kept if not _HUSK.search(line)] or kept
    errors = [line for line in kept if _ERROR.search(line)]
    return (errors or kept)[-count:]
