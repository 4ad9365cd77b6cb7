# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken back, and what is left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names, record
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Files, Record
from ansible_collections.gpunode.llm.plugins.module_utils.units import unit as units_unit
from ansible_collections.gpunode.llm.plugins.modules import vllm_rollback

UNIT = "vllm-a.service"
TEXT = """[Service]
TimeoutStartSec=300
[X-gpunode]
Instance=a
Image=image:1
Environment=/etc/vllm/a.env
Host=0.0.0.0
Port=8001
Served=org/a
"""


@pytest.fixture(autouse=True)
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "CONFIG_DIR", str(tmp_path / "records"))


class Exit(Exception):
    pass


class Node:
    """A module's surroundings: files under a folder, and what systemctl and docker were told."""

    def __init__(self, root: Path, active: str, image: str = "sha256:1") -> None:
        self.params = {"units": [UNIT], "kept_dir": str(root / "kept"), "docker": "docker"}
        self.params.update(replaced=[], newcomers=[])
        self.check_mode, self.active, self.image = False, active, image
        self.ran: list[str] = []
        self.config, self.unit = root / "a.yaml", root / UNIT
        for path, text in ((self.config, "old\n"), (self.unit, TEXT)):
            path.write_text(text)
            kept = root / "kept" / "a" / str(path).lstrip("/")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text)
        (root / "kept" / "a" / "image").write_text("sha256:1\n")

    def sha256(self, path: str) -> str | None:
        file = Path(path)
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[1] == "show":
            return 0, f"Id={UNIT}\nActiveState={self.active}\n", ""
        if argv[1:3] == ["image", "inspect"]:
            return 0, f"{self.image}\n", ""
        self.ran.append(" ".join(argv))
        return 0, "", ""

    def exit_json(self, **result: object) -> None:
        raise Exit(json.dumps(result))


def run(node: Node, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(vllm_rollback, "AnsibleModule", lambda **_spec: node)
    with pytest.raises(Exit) as ended:
        vllm_rollback.main()
    return json.loads(str(ended.value))


def test_nothing_differs(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed")
    assert run(node, monkeypatch)["rolled_back"] == []
    assert node.ran == []


def test_a_unit_that_never_answered_stays(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed")
    node.params["kept_dir"] = str(tmp_path / "none")
    node.config.write_text("new\n")
    assert run(node, monkeypatch)["rolled_back"] == []
    assert node.config.read_text() == "new\n"


def test_files_return_and_the_unit_starts(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed")
    node.config.write_text("new\n")
    result = run(node, monkeypatch)
    assert result["rolled_back"] == [{"unit": UNIT, "differed": [str(node.config)], "ran": False}]
    assert result["endpoints"] == [
        {
            "name": "a",
            "unit": UNIT,
            "host": "0.0.0.0",
            "port": 8001,
            "model": "org/a",
            "env_file": "/etc/vllm/a.env",
            "timeout_s": 360,
        }
    ]
    assert node.config.read_text() == "old\n"
    assert [line.split()[1] for line in node.ran] == ["daemon-reload", "reset-failed", "restart"]


def test_a_unit_that_runs_gets_its_files_back_and_goes_on(tmp_path, monkeypatch):
    node = Node(tmp_path, "active")
    node.config.write_text("new\n")
    result = run(node, monkeypatch)
    assert result["rolled_back"] == [{"unit": UNIT, "differed": [str(node.config)], "ran": True}]
    assert result["endpoints"] == []  # nobody has to wait for it
    assert node.config.read_text() == "old\n"
    assert node.ran == ["systemctl daemon-reload"]


def test_the_image_gets_its_name_back(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed", image="sha256:2")
    assert run(node, monkeypatch)["rolled_back"] == [{"unit": UNIT, "differed": ["image:1"], "ran": False}]
    assert node.ran[0] == "docker tag sha256:1 image:1"


def test_check_mode_changes_nothing(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed")
    node.check_mode = True
    node.config.write_text("new\n")
    assert run(node, monkeypatch)["changed"] is True
    assert node.config.read_text() == "new\n"
    assert node.ran == []


def test_a_rollback_restores_the_record_with_its_files(tmp_path, monkeypatch):
    """Of a set that an earlier release kept, which has none, too: what is written is what its unit says."""
    node = Node(tmp_path, "failed")
    path = tmp_path / "records" / "a.json"
    path.parent.mkdir()
    path.write_text(Record("a", UNIT, port=9999).text())
    node.config.write_text("new\n")
    assert run(node, monkeypatch)["rolled_back"] == [{"unit": UNIT, "differed": [str(node.config)], "ran": False}]
    assert record.parse(path.read_text()).port == 8001
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_kept_record_gives_the_endpoint_and_causes_no_rollback(tmp_path, monkeypatch):
    node = Node(tmp_path, "failed")
    path = tmp_path / "records" / "a.json"
    kept = tmp_path / "kept" / "a" / str(path).lstrip("/")
    kept.parent.mkdir(parents=True)
    kept.write_text(Record("a", UNIT, port=8002, files=Files(record=str(path))).text())
    assert run(node, monkeypatch)["rolled_back"] == []
    node.config.write_text("new\n")
    assert [endpoint["port"] for endpoint in run(node, monkeypatch)["endpoints"]] == [8002]
    assert path.read_text() == kept.read_text()


@pytest.fixture
def replaced(tmp_path, monkeypatch):
    """vllm-old.service made room for a unit that has never answered."""
    node = Node(tmp_path, "failed")
    node.params.update(kept_dir=str(tmp_path / "none"), replaced=["vllm-old.service", "vllm-by-hand.service"])
    notes, units = tmp_path / "notes", tmp_path / "units"
    for folder in (notes, units):
        folder.mkdir()
    (notes / "vllm-old.service").touch()
    for name in ("old", "by-hand"):
        (units / f"vllm-{name}.service").write_text(TEXT.replace("Instance=a", f"Instance={name}"))
    monkeypatch.setattr(units_unit, "STOOD_DOWN", str(notes))
    monkeypatch.setattr(vllm_rollback, "UNIT_DIR", str(units))
    return node


def test_what_made_room_comes_back_and_what_took_its_place_ends(replaced, monkeypatch, tmp_path):
    """What its operator has stopped stays stopped."""
    result = run(replaced, monkeypatch)
    assert (result["changed"], result["brought_back"], result["rolled_back"]) == (True, ["vllm-old.service"], [])
    assert [(endpoint["name"], endpoint["port"]) for endpoint in result["endpoints"]] == [("old", 8001)]
    assert replaced.ran == [
        f"systemctl stop {UNIT}",
        f"systemctl reset-failed {UNIT}",
        f"systemctl disable --quiet {UNIT}",
        "systemctl daemon-reload",
        "systemctl reset-failed vllm-old.service",
        "systemctl restart --no-block vllm-old.service",
    ]
    assert list((tmp_path / "notes").iterdir()) == []


def test_a_newcomer_that_answers_gives_way_too(replaced, monkeypatch, tmp_path):
    replaced.params.update(kept_dir=str(tmp_path / "kept"), newcomers=[UNIT])
    run(replaced, monkeypatch)
    assert replaced.ran[0] == f"systemctl stop {UNIT}"


def test_what_served_before_goes_on_beside_what_comes_back(replaced, monkeypatch, tmp_path):
    replaced.params.update(kept_dir=str(tmp_path / "kept"))
    run(replaced, monkeypatch)
    assert [line for line in replaced.ran if " stop " in line] == []


def test_nothing_ends_where_nothing_made_room(replaced, monkeypatch, tmp_path):
    (tmp_path / "notes" / "vllm-old.service").unlink()
    assert run(replaced, monkeypatch)["changed"] is False
    assert replaced.ran == []
