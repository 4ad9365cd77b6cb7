# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make docs/_planner, what the page of the planner loads: make.py FOLDER, the package `pyodide`. See docs/site.sh."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
SITE = HERE.parent / "_planner" / "planner"
COLLECTION = "ansible_collections/gpunode/llm"
#: What Pyodide loads in a browser.
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
OWN = ("planner.mjs", "planner.css")
#: The YAML files that the planner reads.
DATA = ("catalog/*.yml", "catalog/engines/*.yml", "roles/vllm/meta/argument_specs.yml")
# The page of models lets this be run from a checkout as it is, and knows the families.
PAGE = runpy.run_path(str(CHECKOUT / "docs" / "models_and_gpus.py"))
runpy.run_path(str(HERE / "bridge.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import options as planner_options
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog


def modules() -> list[Path]:
    """The modules of the collection that the bridge has loaded: none is imported inside a function."""
    found = (sys.modules[name] for name in sorted(sys.modules) if name.startswith(COLLECTION.replace("/", ".")))
    files = (Path(module.__file__) for module in found if getattr(module, "__file__", None))
    return [path.relative_to(CHECKOUT) for path in (file.resolve() for file in files) if path.is_file()]


def as_json(path: Path) -> str:
    """A YAML file as JSON. Raises ValueError for what JSON would change, such as a key that is a number."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = json.dumps(content, separators=(",", ":"))
    if json.loads(text) != content:
        raise ValueError(f"{path} holds what JSON cannot.")
    return text


def archive() -> Iterator[tuple[str, str]]:
    """Names and texts of the files that Python has in the browser."""
    for path in modules():
        yield f"{COLLECTION}/{path}", (CHECKOUT / path).read_text(encoding="utf-8")
    for path in sorted(path for pattern in DATA for path in CHECKOUT.glob(pattern)):
        yield f"{COLLECTION}/{path.relative_to(CHECKOUT)}", as_json(path)
    yield "bridge.py", (HERE / "bridge.py").read_text(encoding="utf-8")
    yield "yaml.py", (HERE / "yaml_as_json.py").read_text(encoding="utf-8")


def choices() -> dict[str, Any]:
    """What the form offers."""
    catalog = load_catalog()
    return {
        "version": catalog.engine(None).version,
        "families": {
            name: [[model.key, model.title] for model in models] for name, models in PAGE["families"](catalog)
        },
        "gpus": [[gpu.key, f"{gpu.names[0]}, {gpu.memory_mib / 1024:.0f} GiB"] for gpu in catalog.gpus.values()],
        "objectives": values.choices(planner_options.definitions()["objective"]),
    }


def main(package: Path) -> None:
    shutil.rmtree(SITE.parent, ignore_errors=True)
    (SITE / "pyodide").mkdir(parents=True)
    for name in PYODIDE:
        shutil.copyfile(package / name, SITE / "pyodide" / name)
    for name in OWN:
        shutil.copyfile(HERE / name, SITE / name)
    with zipfile.ZipFile(SITE / "planner.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, text in archive():
            made.writestr(name, text)
    loaded = [SITE / "planner.zip", *(SITE / "pyodide" / name for name in PYODIDE)]
    found = {**choices(), "bytes": sum(path.stat().st_size for path in loaded)}
    (SITE / "choices.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
