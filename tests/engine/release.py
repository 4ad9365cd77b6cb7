# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write catalog/engines/vllm-VERSION.yml from the release itself: python tests/engine/release.py 0.34.0

Options, types and defaults come from the wheel's own parser. Everything above them is taken over from the newest
release in the catalogue, with the version replaced; read it and amend it: images, drivers, memory, what takes the place
of options that are gone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from prepare import prepare

ENGINES = Path(__file__).resolve().parents[2] / "catalog" / "engines"
WIDTH = 120
FLAGS = "\n# name: [type, default, further spellings]\nflags:\n"


def describe(version: str) -> dict[str, Any]:
    """The options of a release, as its own parser has them."""
    done = prepare(version).run(Path(__file__).with_name("_describe.py"))
    if done.returncode:
        raise SystemExit(f"vllm {version} does not tell its options:\n{done.stderr[-2000:]}")
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def _key(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.removeprefix("vllm-").split("."))


def head_of(template: Path, version: str) -> str:
    """Everything above the options, for this version."""
    old = template.stem.removeprefix("vllm-")
    head, _flags = template.read_text(encoding="utf-8").split(FLAGS)
    return (
        head.replace(f"v{old}", f"v{version}")
        .replace(f"vLLM {old}", f"vLLM {version}")
        .replace(f"version: {old}", f"version: {version}")
    )


def line_of(name: str, value: list[Any]) -> str:
    """One option on one line, or on two where that is too long."""
    line = f"  {name}: {json.dumps(value)}\n"
    return line if len(line) <= WIDTH else f"  {name}:\n    {json.dumps(value)}\n"


def main(version: str) -> None:
    path = ENGINES / f"vllm-{version}.yml"
    template = path if path.exists() else max(ENGINES.glob("vllm-*.yml"), key=_key)
    before = yaml.safe_load(template.read_text(encoding="utf-8"))
    described = describe(version)
    gone = [name for name in before["flags"] if name not in described["flags"]]
    head = head_of(template, version)
    for name in (name for name in gone if name not in before["removed"]):
        head = head.replace("removed:\n", f"removed:\n  {name}: it is gone since {version}\n", 1)
    lines = "".join(line_of(name, value) for name, value in described["flags"].items())
    path.write_text(head + FLAGS + lines, encoding="utf-8")
    print(f"{path}: {len(described['flags'])} options")
    for what, names in {
        "new": [name for name in described["flags"] if name not in before["flags"]],
        "gone, say in `removed` what replaces them": gone,
        "deprecated by the release, not yet in `deprecated`": [
            n for n in described["deprecated"] if n not in before["deprecated"]
        ],
    }.items():
        if names:
            print(f"  {what}: {', '.join(names)}")


if __name__ == "__main__":
    main(sys.argv[1])
