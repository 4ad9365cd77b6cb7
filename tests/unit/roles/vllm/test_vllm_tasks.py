# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which the role does things, where an order is what keeps a node serving."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[4] / "roles" / "vllm"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
TASKS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROLE / "tasks").glob("*.yml")}
# What a module of these does, a node notices.
CHANGING = (
    "rendered_files",
    "units_ready",
    "units_current",
    "units_removed",
    "vllm_rollback",
    "brought",
    "systemd",
    "file",
)


def flat(name: str) -> list[tuple[str, dict]]:
    """The modules that a task file calls, with those that it imports and includes, in their order; not its rescues."""
    found = []
    for task in TASKS[name]:
        for inner in task.get("block", [task]):
            kind = next(key for key in inner if "." in key)
            if "vllm_leave_tasks" in str(inner[kind]):
                continue  # what a playbook has done there
            found += (
                flat(inner[kind].removesuffix(".yml")) if "_tasks" in kind else [(kind.split(".")[-1], inner[kind])]
            )
    return found


def test_nothing_goes_before_all_that_is_listed_was_rendered_checked_and_answers() -> None:
    modules = [name for name, _arguments in flat("main")]
    assert modules.index("units_settled") < min(modules.index(name) for name in CHANGING if name in modules)
    assert modules.index("rendered_files") < modules.index("vllm_config_check") < modules.index("units_ready")
    # The first one is for the instances that run beside others.
    assert modules.count("units_ready") == 2
    assert "brought" not in modules[: -modules[::-1].index("units_ready")]
    assert modules[modules.index("brought") :] == ["brought", "units_removed"]
    _second, ready = (arguments for name, arguments in flat("main") if name == "units_ready")
    assert "__vllm_unlisted" in ready["instead_of"]


def trusted(value: object) -> object:
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return trust_as_template(value) if isinstance(value, str) else value


def value(name: str, **variables: object) -> list:
    given = {**DEFAULTS, **{key: trusted(text) for key, text in VARS.items()}, "ansible_facts": {}, **variables}
    return list(Templar(loader=DataLoader(), variables=given).template(trust_as_template(f"{{{{ {name} }}}}")))


def test_what_goes_is_not_listed_and_stands_in_for_nothing_that_is() -> None:
    here = [{"name": name, "unit": f"vllm-{name}.service"} for name in ("a", "a-beside", "b", "b-beside")]
    listed = [{"name": name, "image": "i:1", "port": 8000} for name in ("a", "c")]
    going = value("__vllm_unlisted", vllm_instances=listed, __vllm_info={"instances": here})
    assert [instance["name"] for instance in going] == ["b", "b-beside"]
    assert value("__vllm_unlisted", vllm_instances=listed, __vllm_info={"skipped": True}) == []
    new = value("__vllm_new_units", vllm_instances=listed, __vllm_info={"instances": here})
    assert new == ["vllm-c.service"]


def test_second_instances_are_started_and_awaited_in_one_call() -> None:
    written, started = flat("second_run")
    assert (written[0], started[0]) == ("rendered_files", "units_ready")
    assert set(started[1]) == {"units", "endpoints"}


def test_what_ran_beside_is_looked_for_and_removed_whole() -> None:
    listed = [{"name": "a", "image": "i:1", "port": 8000}]
    (second,) = value("__vllm_second_values", vllm_instances=listed)
    room = {"rooms": [{"name": "a", "port": 18000, "gpu_indices": []}]}
    (written,) = value("__vllm_second_services", vllm_instances=listed, __vllm_room=room)
    assert (second["unit"], second["files"]) == (written["unit"], [file["dest"] for file in written["to_write"]])
    main = dict(flat("main"))
    # As much as its files are, where they are left over.
    assert main["units_settled"]["services"] == "{{ __vllm_services }}"
    assert [arguments["units"] for name, arguments in flat("serve") if name == "units_removed"] == [
        "{{ __vllm_second_values + __vllm_unpeered }}"
    ]
    (unpeered,) = value("__vllm_unpeered", vllm_instances=listed)
    assert unpeered["unit"] == "gpunode-peer@a.service"
    (rescue,) = [task["rescue"] for task in TASKS["serve"] if "rescue" in task]
    first = TASKS["rollback"][0]["ansible.builtin.import_tasks"]
    assert (rescue[0]["ansible.builtin.import_tasks"], first) == ("rollback.yml", "second_end.yml")


def test_a_teardown_leaves_systemd_no_unit_whose_program_is_gone() -> None:
    """Docker wants gpunode-engines.service: what systemd still holds of it fails when Docker starts next."""
    tasks = flat("teardown")
    (forget,) = [at for at, (name, _arguments) in enumerate(tasks) if name == "command"]
    written = {file["dest"] for file in VARS["__vllm_programs"]}
    (last,) = [arguments["units"] for name, arguments in tasks[forget:] if name == "units_removed"]
    ((unit, files),) = [(removal["unit"], removal["files"]) for removal in last]
    assert (unit, set(files), files[-1]) == ("gpunode-engines.service", written, "{{ __vllm_engines_unit }}")


def what_runs_now(failed: dict, rollback: dict | None) -> str:
    """The last message of a play where a change failed; rollback is the result of vllm_rollback, None if it is off."""
    task = TASKS["rollback"][-1]
    given: dict = {key: trust_as_template(text) for key, text in task["vars"].items() if isinstance(text, str)}
    given["__vllm_messages"] = [trust_as_template(line) for line in task["vars"]["__vllm_messages"]]
    given |= {"ansible_failed_result": failed, "__vllm_rollback": rollback is not None}
    given |= {"__vllm_rolled_back": rollback if rollback is not None else {"skipped": True}}
    given["__vllm_rollback_ready"] = (rollback or {}).get("again", {"endpoints": []})
    text = trust_as_template(task["gpunode.llm.refuse"]["msg"])
    return str(Templar(loader=DataLoader(), variables=given).template(text))


STOPPED, UNTOUCHED = {"unit": "a", "ran": False}, {"unit": "c", "ran": True}


@pytest.mark.parametrize(
    ("rollback", "expected"),
    [
        ({}, ""),
        (
            {"rolled_back": [STOPPED], "endpoints": [1]},
            "a runs its last working configuration again, and answers.",
        ),
        ({"rolled_back": [UNTOUCHED]}, "c was never stopped, and its last working files are back."),
        (
            {"rolled_back": [STOPPED, UNTOUCHED], "endpoints": [1], "again": {"msg": "a hangs."}},
            "c was never stopped, and its last working files are back."
            " a runs its last working configuration again, and does not answer either: a hangs.",
        ),
        ({"brought_back": ["b"], "endpoints": [1]}, "b, which had made room, runs again, and answers."),
        (
            {"brought_back": ["b"], "endpoints": [1], "again": {"msg": "b hangs."}},
            "b, which had made room, runs again, and does not answer either: b hangs.",
        ),
        (None, "old made room and stays stopped, since vllm_rollback is false."),
    ],
)
def test_a_failure_shows_its_cause_once_and_what_runs_now(rollback: dict | None, expected: str) -> None:
    done = [{"name": "old", "action": "stop"}, {"name": "new", "action": "start"}]
    message = what_runs_now({"msg": "no luck.", "units": done}, rollback)
    assert message == f"What changed does not run, for the cause above. {expected}".rstrip()


@pytest.mark.parametrize(
    ("rollback", "expected"),
    [
        ({"rolled_back": [UNTOUCHED]}, "c was never stopped, and its last working files are back."),
        (None, "c was never stopped, but starts from the new files next, since vllm_rollback is false."),
    ],
)
def test_a_refused_service_was_never_stopped(rollback: dict | None, expected: str) -> None:
    message = what_runs_now({"msg": "image does not take it.", "refused": "c"}, rollback)
    assert message == (
        f"What changed was refused, for the cause above. {expected} Change what was refused, and run the play again."
    )


def test_no_task_of_a_refusal_claims_that_something_runs_again() -> None:
    """It is shown also where nothing was stopped."""
    (task,) = [task for task in TASKS["rollback"] if "gpunode.llm.vllm_rollback" in task]
    assert task["name"].startswith("Restore the last working files")
    (wait,) = [task for task in TASKS["rollback"] if "gpunode.llm.endpoint_ready" in task]
    assert wait["when"] == "__vllm_rolled_back.endpoints | default([]) | length > 0"
