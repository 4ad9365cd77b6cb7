# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that are not in the catalogue: which ones to look up, and the catalogue entries made from the answers.

A name is a repository of the hub, ORG/NAME or ORG/NAME@REVISION, or the path of a folder on the node. The answer
(``module_utils/hub/described.py``) becomes an entry of the same form as those in catalog/models.yml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...module_utils import paths
from .adapters import HOW, Adapter, read_adapter, read_lora
from .catalog import Catalog, ModelSpec
from .speculation import HOW as DRAFTED, of_catalog, read_speculative

#: Beginnings of the names of modules that transformers loads from a repository although config.json does not list them.
MODULES = ("tokenization_", "processing_", "image_processing_")
#: Endings of the files of weights that vLLM reads, in its order of preference; and the beginning of an adapter's.
READ, ADAPTER = (".safetensors", ".bin", ".pt"), "adapter_model."
#: The number of file names in a message.
SHOWN = 6

Entry = dict[str, Any]


def called(key: str) -> str:
    """The default name of a model's instance: its key, or the last part of a longer name.

    >>> called("Qwen/Qwen3-32B@v1"), called("/srv/models/mine/"), called("8b")
    ('Qwen3-32B', 'mine', '8b')
    """
    whole = key if key.startswith("/") else key.partition("@")[0]
    return whole.rstrip("/").rpartition("/")[2]


def not_in_catalog(models: Iterable[Any], catalog: Catalog) -> list[dict[str, str]]:
    """The models to look up, each once, in the form of model_info's options.

    Args:
        models: the user's list of names and dictionaries.

    Raises:
        ValueError: a name cannot be that of a repository; a sentence for each.
    """
    references: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    for item in models:
        name = str((item.get("model") if isinstance(item, Mapping) else item) or "").strip()
        if "/" not in name or catalog.find(name):
            continue
        try:
            references[name] = _reference(name)
        except ValueError as refused:
            wrong.append(
                f"Model {name!r} cannot be: {refused}. Write ORG/NAME or ORG/NAME@REVISION for a repository, the whole"
                " path for a folder of the node, or a name of the catalogue."
            )
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return list(references.values())


def adapters_requested(options: Mapping[str, Any]) -> list[dict[str, str]]:
    """The LoRA adapters of a host's options and of its models, each once, in the form of model_info's options.

    An invalid value is skipped: the reader of the option reports it.

    Raises:
        ValueError: a reference cannot be that of a repository; a sentence for each.
    """
    references: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    for item in (options, *(options.get("models") or ())):
        try:
            adapters = read_lora(item.get("lora") or {}) if isinstance(item, Mapping) else ()
        except ValueError:
            continue
        for lora in adapters:
            try:
                references[lora.reference] = _repository(lora.reference)
            except ValueError as refused:
                wrong.append(f"vllm_lora: {lora.name} cannot be {lora.reference!r}, since {refused}: {HOW}.")
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return list(references.values())


def drafts_requested(options: Mapping[str, Any], catalog: Catalog) -> list[dict[str, str]]:
    """The drafts of a host's options and of its models, as adapters_requested has the adapters."""
    references: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    for value, model in _speculative(options, catalog):
        try:
            speculation = read_speculative(value or {})
        except ValueError:
            continue
        if speculation and model:
            speculation = of_catalog(speculation, model)
        reference = speculation.reference if speculation else ""
        try:
            if reference:
                references[reference] = _repository(reference)
        except ValueError as refused:
            wrong.append(f"vllm_speculative: model cannot be {reference!r}, since {refused}: {DRAFTED}.")
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return list(references.values())


def _speculative(options: Mapping[str, Any], catalog: Catalog) -> Iterable[tuple[Any, ModelSpec | None]]:
    """The option for all models, and that of each with the model, if the catalogue has it."""
    common = options.get("speculative")
    yield common, None
    for item in options.get("models") or ():
        own = item if isinstance(item, Mapping) else {"model": item}
        yield own.get("speculative", common), catalog.ours(str(own.get("model") or ""))


def _repository(reference: str) -> dict[str, str]:
    """A reference to a repository, not to a folder."""
    if reference.startswith("/"):
        raise paths.Refused("it is a path")
    return _reference(reference)


def adapters(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Adapter]:
    """The adapters that were looked up. Raises ValueError if one is unknown or no adapter; a sentence for each."""
    known: dict[str, Adapter] = {}
    wrong: list[str] = []
    for name, answer in described.items():
        try:
            known[name] = read_adapter(answer)
        except ValueError as refused:
            wrong.append(str(refused))
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return known


def _reference(name: str) -> dict[str, str]:
    if name.startswith("/"):
        folder = "/" + paths.relative(name.strip("/"))
        return {"name": name, "folder": folder}
    repo_id, at, revision = name.partition("@")
    if at:
        paths.revision(revision)
    return {"name": name, "repo_id": paths.repo_id(repo_id), "revision": revision or "main"}


def entries(described: Mapping[str, Mapping[str, Any]], catalog: Catalog | None = None) -> dict[str, Entry]:
    """A catalogue entry for each model. Another revision of a model in ``catalog`` keeps the fields of its entry.

    Raises:
        ValueError: a model is unknown, or vLLM cannot serve it; a sentence for each.
    """
    by_name: dict[str, Entry] = {}
    wrong: list[str] = []
    for name, answer in described.items():
        refused = str(answer.get("refused") or "") or _no_model(answer)
        if refused:
            wrong.append(refused)
        else:
            ours = catalog.find(str(answer.get("repo_id"))) if catalog else None
            by_name[name] = {**(_kept(ours) if ours else {}), **_entry(answer)}
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return by_name


def _kept(ours: ModelSpec) -> Entry:
    """The fields of an entry besides shapes and files."""
    kept = {"title": ours.title, "device": ours.device, "max_model_len": ours.max_model_len, "vllm": ours.vllm}
    return {
        **kept,
        "env": ours.env,
        "tool_call_parser": ours.tool_call_parser,
        "reasoning_parser": ours.reasoning_parser,
        "drafts": [asdict(draft) for draft in ours.drafts],
    }


def _entry(answer: Mapping[str, Any]) -> Entry:
    folder = str(answer.get("folder") or "")
    origin = {"repo_id": folder, "folder": folder} if folder else {key: answer[key] for key in ("repo_id", "revision")}
    code = code_files(answer["config"], answer["files"])
    given = {
        "branch": answer.get("branch"),
        "license": answer.get("license"),
        "shards": answer["shards"],
        "code_files": code,
    }
    given["hf_quant_config"] = answer.get("hf_quant_config")
    plain = {key: value for key, value in given.items() if value}
    return {
        **origin,
        "gated": bool(answer["gated"]),
        "in_matrix": False,
        "config": answer["config"],
        "files": answer["files"],
        **plain,
    }


def code_files(config: Mapping[str, Any], files: Iterable[str]) -> list[str]:
    """The Python files of a repository that would run in the engine."""
    here = sorted(path for path in files if path.endswith(".py") and "/" not in path)
    mapped = config.get("auto_map")
    mapped = mapped if isinstance(mapped, Mapping) else {}
    named = [name for value in mapped.values() for name in (value if isinstance(value, list) else [value]) if name]
    # Of another repository: ORG/NAME--module.Class.
    elsewhere = sorted({str(name).rpartition(".")[0] + ".py" for name in named if "--" in str(name)})
    return [*(here if named else [path for path in here if path.startswith(MODULES)]), *elsewhere]


def title(answer: Mapping[str, Any]) -> str:
    """Its name in messages."""
    return str(answer["folder"]) if answer.get("folder") else f"{answer['repo_id']} at {answer['revision']}"


def _no_model(answer: Mapping[str, Any]) -> str:
    """Why vLLM cannot serve it; empty if it has a config.json and is not an adapter."""
    files = answer.get("files") or {}
    what = title(answer)
    own = [path for path in files if path.endswith(READ) and "/" not in path and not path.startswith(ADAPTER)]
    if "adapter_config.json" in files and not (answer.get("config") is not None and own):
        return (
            f"{what} is a LoRA adapter (it has adapter_config.json and no model): serve the model that it"
            " is for, with this in vllm_lora."
        )
    if answer.get("config") is not None:
        return ""
    if "model_index.json" in files:
        return (
            f"{what} is a pipeline of diffusers (it has model_index.json and no config.json), and vLLM serves language"
            " models."
        )
    if any(path.endswith(".gguf") for path in files):
        return (
            f"{what} has GGUF files and no config.json, which vLLM does not read: serve the repository that they were"
            " made from, or one of the same model in FP8, AWQ or GPTQ."
        )
    if "params.json" in files:
        return (
            f"{what} has params.json, the form of its maker, and no config.json, by which the planner sizes a model:"
            " serve the same model in the form of transformers."
        )
    return f"{what} has no config.json, so it is not known what model it is. It has: {shown(files) or 'no file'}."


def shown(names: Iterable[str], most: int = SHOWN) -> str:
    """Some of the names, and the number of the others."""
    listed: Sequence[str] = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
