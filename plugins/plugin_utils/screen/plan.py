# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one node for people, before anything changes; and the result, when every instance answers."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.node.words import duration, size
from ..planner import listed as planner_listed
from ..planner.host import numbered as gpus_of
from ..service import EXAMPLES, base_url, served_name, task_of, vllm_curl
from .text import numbered, pairs, wrapped

Plain = Mapping[str, Any]
MARGIN = "  "


def gpus_found(gpus: Sequence[Plain]) -> str:
    """8x NVIDIA H100 80GB HBM3."""
    counted = Counter(str(gpu["name"]) for gpu in gpus if not gpu.get("lost"))
    return " and ".join(f"{count}x {name}" for name, count in counted.items()) or "no GPU"


def layout(instance: Plain) -> str:
    """The GPUs, and how they share the work."""
    spread = f"TP {instance['tensor_parallel_size']} x PP {instance['pipeline_parallel_size']}"
    gpus = "the CPU" if instance["device"] == "cpu" else gpus_of(instance["gpu_indices"])
    if instance.get("group"):
        return f"{spread} over {instance['group']['size']} nodes, on {gpus} of each"
    if instance["device"] == "cpu":
        return f"on {gpus}"
    replicas = instance["data_parallel_size"]
    if instance.get("gpu_share"):
        return f"a share of {instance['gpu_share']:g} of {gpus}"
    return f"{spread} x {replicas} replica{'' if replicas == 1 else 's'} on {gpus}"


def context(instance: Plain) -> str:
    """The context length, the model's own if it is longer, and the KV cache that requests share."""
    length, whole = instance["max_model_len"], instance["model_context"]
    tokens = (
        f"{length} of the model's {whole} tokens" if length < whole else f"{length} tokens, the model's full context"
    )
    cache = str(instance["config"].get("kv-cache-dtype") or "")
    dtype = f", kept in {cache.upper()}" if cache not in ("", "auto") else ""
    return f"{tokens}; the KV cache holds {instance['kv_cache_tokens']}{dtype}"


def headless(instance: Plain) -> str:
    """The node that answers in place of this one; empty for an instance that answers by itself."""
    group = instance.get("group") or {}
    return str(group["nodes"][0]) if group.get("rank") else ""


def nodes(instance: Plain) -> list[tuple[str, str]]:
    """The nodes of an engine over several, and the layers of each stage."""
    group = instance.get("group")
    if not group:
        return []
    head, *others = group["nodes"] or [f"node {number}" for number in range(1, group["size"] + 1)]
    here = f"this is {group['nodes'][group['rank']]}" if group["nodes"] else "not named here"
    each = " and ".join(map(str, group["layers"]))
    network = ", ".join(filter(None, (group["interface"], *group["hcas"])))
    return [
        ("nodes", f"{head} with the API, {', '.join(others)} without; {here}" + (f", by {network}" if network else "")),
        ("stages", f"{each} layers; {size(group['step_bytes'])} from one to the next in a full step"),
    ]


def address(instance: Plain) -> str:
    """The address of an instance, and who can reach it."""
    if headless(instance):
        return f"none on this node, {headless(instance)} answers"
    try:
        loopback = ipaddress.ip_address(instance["host"]).is_loopback
    except ValueError:
        loopback = False
    reach = "from the node itself only" if loopback else f"port {instance['port']} of {instance['host']}"
    return f"{base_url(instance)}, {reach}"


#: What each of an instance's files holds, by the end of its name.
FILES = ((".keys.yaml", "its API keys"), (".yaml", "its configuration"), (".env", "its environment"), ("", "its unit"))


def restart(wanted: Mapping[str, str], engine: Plain | None) -> str:
    """Whether an engine restarts, and why. ``wanted``: the digest of each of its planned files, by path."""
    if engine is None:
        return "no, this is its first start"
    current = engine.get("started_from") or {}
    if not current:
        return "it does not run, and is started"
    differ = {path for path in {*wanted, *current} if wanted.get(path) != current.get(path)}
    which = {next(words for end, words in FILES if path.endswith(end)) for path in differ}
    *some, last = [words for _end, words in FILES if words in which] or [""]
    changed = f"{', '.join(some)} and {last}" if some else last
    return f"yes, {changed} change{'' if some or last == 'its API keys' else 's'}" if changed else "no"


def _adapter(adapter: Plain) -> str:
    """An adapter by the name that clients use, and where it is from."""
    return f"{adapter['name']} ({adapter['repo_id']} at {adapter['revision'][:8]})"


def proposes(instance: Plain) -> list[tuple[str, str]]:
    """What proposes tokens; or that the catalogue has something that could."""
    option, draft = instance["config"].get("speculative-config"), instance.get("draft")
    if not option:
        offered = instance.get("auto_draft")
        return [("draft", f"none; vllm_speculative: auto takes {offered}")] if offered else []
    tokens = option["num_speculative_tokens"]
    by = f"{draft['repo_id']} at {str(draft['revision'])[:8]}" if draft else "none is needed"
    return [("draft", f"{by}, {tokens} token{'' if tokens == 1 else 's'} at a time ({option['method']})")]


def faster(instance: Plain) -> list[tuple[str, str]]:
    """The preset that is taken, and the weights that are faster by measurement and not served."""
    taken, weights = instance.get("preset"), instance.get("faster_weights")
    preset = [("preset", f"{taken}: {instance['preset_gain']}")] if taken else []
    return [*preset, *([("weights", f"as named; vllm_weights: fastest takes {weights}")] if weights else [])]


#: What a model that generates no text gives, by its task.
GIVES = {"embed": "embeddings", "rerank": "rankings", "classify": "classes", "pooling": "pooled states"}


def _serves(instance: Plain) -> list[tuple[str, str]]:
    """What a pooling model gives, and where; its name alone does not tell that it completes nothing."""
    task = task_of(instance)
    return [("serves", f"{GIVES[task]} by POST {EXAMPLES[task][0]}, and no completions")] if task in GIVES else []


def _model(instance: Plain, restart: str) -> list[str]:
    adapters = [("adapters", ", ".join(map(_adapter, instance["lora"])))] if instance.get("lora") else []
    entries = [
        *_serves(instance),
        ("layout", layout(instance)),
        *nodes(instance),
        ("context", context(instance)),
        ("image", instance["image"]),
        ("address", address(instance)),
        *adapters,
        *proposes(instance),
        *faster(instance),
        ("restart", restart),
    ]
    # A name that may mean another commit tomorrow is shown with the commit that was read.
    commit = f" at {instance['revision'][:8]} ({instance['branch']})" if instance.get("branch") else ""
    title = f"{instance['name']}: {instance['repo_id']}{commit}, {instance['precision']}"
    return ["", f"{MARGIN}{title}", *pairs(entries, indent=MARGIN * 2)]


def link(mbit_per_s: float) -> str:
    """1 Gbit/s."""
    return f"{mbit_per_s / 1000:g} Gbit/s" if mbit_per_s >= 1000 else f"{mbit_per_s:g} Mbit/s"


def download(fetch: Sequence[Plain], mbit_per_s: float | None) -> str:
    """The bytes to download, and how long they take on a link of that speed."""
    parts, total = [], 0
    for kind, words in (("weights", "weights {}"), ("image", "image at most {}")):
        amount = sum(int(item["bytes"]) for item in fetch if item["kind"] == kind)
        parts += [words.format(size(amount))] if amount else []
        total += amount
    if not parts:
        return "nothing, all of it is here"
    takes = f": about {duration(total * 8 / (mbit_per_s * 1e6))} at {link(mbit_per_s)}" if mbit_per_s else ""
    return ", ".join(parts) + takes


def disk(disks: Sequence[Plain]) -> str:
    """The free space afterwards, on each filesystem."""
    left = (f"{size(max(item['free'] - item['bytes'], 0))} for {' and '.join(item['paths'])}" for item in disks)
    return f"free after it: {', '.join(left)}"


def better(rejected: Sequence[Plain]) -> list[str]:
    """The two best alternatives that would fit: one of each kind of gain if there are two kinds."""
    gains = [way for way in rejected if way.get("gain")]
    firsts = list({way["gain"]: way for way in reversed(gains)}.values())[::-1]
    chosen = [*firsts, *(way for way in gains if way not in firsts)][:2]
    return [f"{_instead(way)} would be {way['gain']}; {way['reason']}." for way in chosen]


def _instead(way: Plain) -> str:
    model = str(way["choice"]).partition("model ")[2]
    return f"{model} in place of {way['instance']}" if model else f"{way['instance']} with {way['choice']}"


def plan_text(host: str, plan: Plain, check: Plain, restarts: Mapping[str, str], **extra: Any) -> list[str]:
    """The plan of a node as lines of text.

    ``plan``: what serving_plan returned. ``check``: what preflight_check returned. ``restarts``: the text of
    ``restart`` by instance. ``extra``: ``system``, the distribution in words; ``link_mbit_s``, None without a link.
    """
    instances, decided = check["instances"], plan["plan"]
    lines = [", ".join(filter(None, (f"{host}: {gpus_found(plan['gpus'])}", extra.get("system") or "")))]
    for instance in instances:
        lines += _model(instance, restarts.get(instance["name"], ""))
    downloads = [
        ("download", download(check["fetch"], extra.get("link_mbit_s"))),
        ("disk", disk(check["disks"])),
    ]
    lines += ["", *pairs(downloads, indent=MARGIN)]
    for title, sentences in (("To know", decided["warnings"]), ("Faster or roomier", better(decided["rejected"]))):
        lines += ["", f"{MARGIN}{title}", *numbered(sentences, indent=MARGIN)] if sentences else []
    return lines


#: The parts of a first converge in their order, and their labels.
PARTS = (
    ("image", "image"),
    ("weights", "weights"),
    ("load", "load"),
    ("compile", "compile and warm up"),
    ("token", "first {}"),
)
#: What the first request gives, by the task of the model.
FIRST = {"generate": "token", "embed": "embedding"}


def _brief(seconds: float) -> str:
    return f"{seconds:.{2 if seconds < 1 else 1}f} s" if seconds < 10 else duration(seconds)


def took(parts: Plain, instance: Plain) -> str:
    """image 21 s, weights 1 min 5 s, load 12 s: the parts that are known."""
    first = FIRST.get(task_of(instance), "answer")
    known = [(words.format(first), parts[name]) for name, words in PARTS if parts.get(name) is not None]
    return ", ".join(f"{words} {_brief(seconds)}" for words, seconds in known)


def _python(instance: Plain, keyed: bool) -> str:
    """A line of Python that tries it; empty where OpenAI's client has no call for its task."""
    if task_of(instance) not in ("generate", "embed"):
        return ""
    key = "os.environ['VLLM_API_KEY']" if keyed else "'none'"
    imports = "import os; from openai import OpenAI" if keyed else "from openai import OpenAI"
    client = f"OpenAI(base_url={base_url(instance)!r}, api_key={key})"
    if task_of(instance) == "embed":
        arguments = f"model={served_name(instance)!r}, input='Say hello.'"
        return f"{imports}; print(len({client}.embeddings.create({arguments}).data[0].embedding))"
    arguments = f"model={served_name(instance)!r}, messages=[{{'role': 'user', 'content': 'Say hello.'}}]"
    return f"{imports}; print({client}.chat.completions.create({arguments}).choices[0].message.content)"


def _names(instance: Plain) -> list[str]:
    """The names that clients may ask an instance for: its model's, and those of its adapters."""
    return [served_name(instance), *(str(adapter["name"]) for adapter in instance.get("lora") or ())]


def card(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool) -> list[str]:
    """The result: where the instances answer, how long each part took, how to try them, where to look next."""
    seconds = {item["name"]: item.get("seconds") or {} for item in parts.get("endpoints") or ()}
    own = [(item["name"], f"{address(item)}, as {' or '.join(_names(item))}") for item in instances]
    times = took({**parts, **(seconds.get(instances[0]["name"], {}) if len(instances) == 1 else {})}, instances[0])
    each = (
        [(f"{item['name']} took", took(seconds.get(item["name"], {}), item)) for item in instances]
        if len(instances) > 1
        else []
    )
    looks = [
        ("took", times),
        *each,
        ("status", "ansible-playbook gpunode.llm.status"),
        ("logs", f"ansible-playbook gpunode.llm.logs, or on the node journalctl -eu vllm-{instances[0]['name']}"),
    ]
    head = "it answers" if len(instances) == 1 else "all of them answer"
    head = "it runs" if all(map(headless, instances)) else head
    # Lines of any length, since they are for copying.
    asked = next((instance for instance in instances if not headless(instance)), None)
    lines = (vllm_curl(asked, keyed), _python(asked, keyed)) if asked else ()
    tries = [f"{MARGIN}{line}" for line in lines if line]
    return [f"{host}: {head}", *pairs([*own, *looks], indent=MARGIN), *(["", *tries] if tries else [])]


def ending(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool, changed: bool) -> list[str]:
    """The result, or one line if nothing was to do; then the instances that stay but are no longer listed."""
    left = planner_listed.sentence(parts.get("unlisted") or [])
    return [*_ended(instances, host, parts, keyed, changed), *(wrapped(left, f"{host}: ", "  ") if left else ())]


def _ended(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool, changed: bool) -> list[str]:
    if not instances:
        return [f"{host}: it serves nothing"] if changed else [f"{host}: nothing to do"]
    if changed:
        return card(instances, host, parts, keyed)
    answers = ", ".join(
        f"{item['name']} {f'runs with {headless(item)}' if headless(item) else f'answers at {base_url(item)}'}"
        for item in instances
    )
    return [f"{host}: nothing to do, {answers}"]
