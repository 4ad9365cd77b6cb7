# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one node as a person reads it, before anything changes; and its end, when all of it answers."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.node.words import duration, size
from ..planner import listed as planner_listed
from ..planner.host import numbered as gpus_of
from ..service import base_url, served_name, vllm_curl
from .text import numbered, pairs, wrapped

Plain = Mapping[str, Any]
MARGIN = "  "


def gpus_found(gpus: Sequence[Plain]) -> str:
    """8x NVIDIA H100 80GB HBM3."""
    counted = Counter(str(gpu["name"]) for gpu in gpus if not gpu.get("lost"))
    return " and ".join(f"{count}x {name}" for name, count in counted.items()) or "no GPU"


def layout(one: Plain) -> str:
    """On which GPUs, and how they share the work."""
    if one["device"] == "cpu":
        return "on the CPU"
    replicas = one["data_parallel_size"]
    spread = f"TP {one['tensor_parallel_size']} x PP {one['pipeline_parallel_size']}"
    return f"{spread} x {replicas} replica{'' if replicas == 1 else 's'} on {gpus_of(one['gpu_indices'])}"


def context(one: Plain) -> str:
    """The context and what it gave up, and the cache that requests share."""
    length, whole = one["max_model_len"], one["model_context"]
    of_it = f"{length} tokens, all that the model has" if length >= whole else f"{length} of the model's {whole} tokens"
    cache = str(one["config"].get("kv-cache-dtype") or "")
    named = f", kept in {cache.upper()}" if cache not in ("", "auto") else ""
    return f"{of_it}; the KV cache holds {one['kv_cache_tokens']}{named}"


def address(one: Plain) -> str:
    """Where it answers, and for whom."""
    try:
        own = ipaddress.ip_address(one["host"]).is_loopback
    except ValueError:
        own = False
    return (
        f"{base_url(one)}, {'from the node itself only' if own else 'port ' + str(one['port']) + ' of ' + one['host']}"
    )


#: What each of an instance's files is, by how its name ends.
FILES = ((".keys.yaml", "its API keys"), (".yaml", "its configuration"), (".env", "its environment"), ("", "its unit"))


def restart(wanted: Mapping[str, str], engine: Plain | None) -> str:
    """Whether an engine is started anew. ``wanted``: its files as they are going to be, path -> digest."""
    if engine is None:
        return "no, this is its first start"
    had = engine.get("started_from") or {}
    if not had:
        return "it does not run, and is started"
    differ = {path for path in {*wanted, *had} if wanted.get(path) != had.get(path)}
    which = {next(words for end, words in FILES if path.endswith(end)) for path in differ}
    *some, last = [words for _end, words in FILES if words in which] or [""]
    told = f"{', '.join(some)} and {last}" if some else last
    return f"yes, {told} change{'' if some or last == 'its API keys' else 's'}" if told else "no"


def _model(one: Plain, restart: str) -> list[str]:
    entries = [
        ("layout", layout(one)),
        ("context", context(one)),
        ("image", one["image"]),
        ("address", address(one)),
        ("restart", restart),
    ]
    # A name that may mean another commit tomorrow is shown with the one that was read.
    commit = f" at {one['revision'][:8]} ({one['branch']})" if one.get("branch") else ""
    title = f"{one['name']}: {one['repo_id']}{commit}, {one['precision']}"
    return ["", f"{MARGIN}{title}", *pairs(entries, indent=MARGIN * 2)]


def link(mbit_per_s: float) -> str:
    """1 Gbit/s."""
    return f"{mbit_per_s / 1000:g} Gbit/s" if mbit_per_s >= 1000 else f"{mbit_per_s:g} Mbit/s"


def download(fetch: Sequence[Plain], mbit_per_s: float | None) -> str:
    """The bytes that are missing, and how long they take on a link of that speed."""
    parts, total = [], 0
    for kind, words in (("weights", "weights {}"), ("image", "image at most {}")):
        amount = sum(int(one["bytes"]) for one in fetch if one["kind"] == kind)
        parts += [words.format(size(amount))] if amount else []
        total += amount
    if not parts:
        return "nothing, all of it is here"
    takes = f": about {duration(total * 8 / (mbit_per_s * 1e6))} at {link(mbit_per_s)}" if mbit_per_s else ""
    return ", ".join(parts) + takes


def disk(disks: Sequence[Plain]) -> str:
    """What is free afterwards, on each filesystem."""
    left = (f"{size(max(one['free'] - one['bytes'], 0))} for {' and '.join(one['paths'])}" for one in disks)
    return f"free after it: {', '.join(left)}"


def better(rejected: Sequence[Plain]) -> list[str]:
    """The two best of what was not chosen and would fit: one of each gain, where there are such."""
    gains = [way for way in rejected if way.get("gain")]
    firsts = list({way["gain"]: way for way in reversed(gains)}.values())[::-1]
    chosen = [*firsts, *(way for way in gains if way not in firsts)][:2]
    return [f"{_instead(way)} would be {way['gain']}; {way['reason']}." for way in chosen]


def _instead(way: Plain) -> str:
    model = str(way["choice"]).partition("model ")[2]
    return f"{model} in place of {way['instance']}" if model else f"{way['instance']} with {way['choice']}"


def plan_text(host: str, plan: Plain, check: Plain, restarts: Mapping[str, str], **told: Any) -> list[str]:
    """All that is going to be on a node.

    ``plan``: what serving_plan returned. ``check``: what preflight_check returned. ``restarts``: a word for each
    instance. ``told``: ``system``, the distribution in words; ``link_mbit_s``, or None where nothing is fetched by it.
    """
    instances, decided = check["instances"], plan["plan"]
    lines = [", ".join(filter(None, (f"{host}: {gpus_found(plan['gpus'])}", told.get("system") or "")))]
    for one in instances:
        lines += _model(one, restarts.get(one["name"], ""))
    fetched = [
        ("download", download(check["fetch"], told.get("link_mbit_s"))),
        ("disk", disk(check["disks"])),
    ]
    lines += ["", *pairs(fetched, indent=MARGIN)]
    for title, sentences in (("To know", decided["warnings"]), ("Faster or roomier", better(decided["rejected"]))):
        lines += ["", f"{MARGIN}{title}", *numbered(sentences, indent=MARGIN)] if sentences else []
    return lines


#: The parts that a first converge takes, in their order, and what they are called.
PARTS = (
    ("image", "image"),
    ("weights", "weights"),
    ("load", "load"),
    ("compile", "compile and warm up"),
    ("token", "first token"),
)


def _brief(seconds: float) -> str:
    return f"{seconds:.{2 if seconds < 1 else 1}f} s" if seconds < 10 else duration(seconds)


def took(parts: Plain) -> str:
    """image 21 s, weights 1 min 5 s, load 12 s: those that are known."""
    return ", ".join(f"{words} {_brief(parts[name])}" for name, words in PARTS if parts.get(name) is not None)


def _python(one: Plain, keyed: bool) -> str:
    key = "os.environ['VLLM_API_KEY']" if keyed else "'none'"
    imports = "import os; from openai import OpenAI" if keyed else "from openai import OpenAI"
    client = f"OpenAI(base_url={base_url(one)!r}, api_key={key})"
    asked = f"model={served_name(one)!r}, messages=[{{'role': 'user', 'content': 'Say hello.'}}]"
    return f"{imports}; print({client}.chat.completions.create({asked}).choices[0].message.content)"


def card(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool) -> list[str]:
    """What was made: where it answers, how long each part took, how to try it, where to look next."""
    said = {one["name"]: one.get("seconds") or {} for one in parts.get("endpoints") or ()}
    own = [(one["name"], f"{address(one)}, as {served_name(one)}") for one in instances]
    times = took({**parts, **(said.get(instances[0]["name"], {}) if len(instances) == 1 else {})})
    each = [(f"{one['name']} took", took(said.get(one["name"], {}))) for one in instances] if len(instances) > 1 else []
    looks = [
        ("took", times),
        *each,
        ("status", "ansible-playbook gpunode.llm.status"),
        ("logs", f"ansible-playbook gpunode.llm.logs, or on the node journalctl -eu vllm-{instances[0]['name']}"),
    ]
    head = "it answers" if len(instances) == 1 else "all of them answer"
    # Whole lines, however long: they are to be copied.
    tries = [f"{MARGIN}{vllm_curl(instances[0], keyed)}", f"{MARGIN}{_python(instances[0], keyed)}"]
    return [f"{host}: {head}", *pairs([*own, *looks], indent=MARGIN), "", *tries]


def ending(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool, changed: bool) -> list[str]:
    """The card; or one line where nothing was to do. Either way, what no list names any more and stays."""
    left = planner_listed.sentence(parts.get("unlisted") or [])
    return [*_ended(instances, host, parts, keyed, changed), *(wrapped(left, f"{host}: ", "  ") if left else ())]


def _ended(instances: Sequence[Plain], host: str, parts: Plain, keyed: bool, changed: bool) -> list[str]:
    if not instances:
        return [f"{host}: it serves nothing"] if changed else [f"{host}: nothing to do"]
    if changed:
        return card(instances, host, parts, keyed)
    said = ", ".join(f"{one['name']} answers at {base_url(one)}" for one in instances)
    return [f"{host}: nothing to do, {said}"]
