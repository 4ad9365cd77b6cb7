# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`-e`, surveys and `set_stats` send text: each variable is read before it is used, and means what its value does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.plugins.plugin_utils.gateway import plan as gateway
from jinja2 import Environment, nodes

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in CHECKOUT.glob("roles/*/defaults/main.yml"))
OWN = yaml.safe_load((CHECKOUT / "playbooks/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
#: A playbook asks whether a text is there, and nothing more of it.
TEXTS = {
    name for entry in OWN.values() for name, option in entry["options"].items() if option["type"] in ("str", "path")
}


def is_read(option):
    """Whether its text and its value may differ, so that a role has to read it before it uses it."""
    return option["type"] not in ("str", "path", "raw") or (option["type"] != "raw" and values.may_be_null(option))


#: Those whose text and value may differ.
READ = {name for name, option in values.options().items() if is_read(option)} - TEXTS
#: Filters that read text themselves.
READERS = ("gpunode.llm.typed", "gpunode.llm.gateway_access", "gpunode.llm.gateway_key_findings")
#: Dictionaries whose values are read where they are taken apart: by gateway_plan, router_plan and those of monitoring.
TAKEN_APART = (
    *("__gateway_settings", "__router_settings"),
    *("__monitoring_settings", "__monitoring_receiver_settings"),
)
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until")
PARSER = Environment()
FOLDERS = ("tasks", "handlers", "vars", "templates")
FILES = sorted(
    path
    for where in ("playbooks", *(f"roles/*/{folder}" for folder in FOLDERS))
    for path in CHECKOUT.glob(f"{where}/**/*")
    if path.suffix in (".yml", ".j2") and path.parent.name != "meta"
)


def raw_names(node: nodes.Node) -> Iterator[str]:
    """Names of variables that are used before anything has read them."""
    if isinstance(node, nodes.Filter) and node.name in READERS:
        read = node.node
        while isinstance(read, nodes.Filter) and read.name in ("default", "ansible.builtin.default"):
            read = read.node
        if isinstance(read, nodes.Name):
            if node.name == "gpunode.llm.typed":
                assert node.args[0].as_const() == read.name, f"{read.name} is read as another one"
            return
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in READ:
        yield node.name
    if isinstance(node, nodes.Test) and node.name == "defined":
        return
    for child in node.iter_child_nodes():
        yield from raw_names(child)


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a YAML file with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, path)
    elif isinstance(value, str):
        yield path, value


def handed_on(path: tuple[str, ...], text: str) -> bool:
    """Whether a value goes whole and as it is to a role's variable, or a single one to a module, which reads it."""
    match = re.fullmatch(r"{{ (\w+)(?: \| default\([^|]*\))? }}", text)
    if not match:
        return False
    single = values.options()[match[1]]["type"] not in ("list", "dict")
    return path[-1] in values.options() or any(key in TAKEN_APART for key in path) or (single and "vars" not in path)


def used_raw(path: Path) -> list[str]:
    """What of a file uses a variable that may still be text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".j2":
        return sorted(set(raw_names(PARSER.parse(text))))
    in_role = path.relative_to(CHECKOUT).parts[0] == "roles"
    found = []
    for keys, value in texts(yaml.safe_load(text)):
        source = f"{{{{ {value} }}}}" if keys and keys[-1] in CONDITIONS and "{{" not in value else value
        # Backslashes mean themselves in a playbook.
        names = set(raw_names(PARSER.parse(source.replace("\\", "\\\\"))))
        if names and not (any(key in TAKEN_APART for key in keys) if in_role else handed_on(keys, value)):
            found += [f"{name}, in {'.'.join(keys[-3:])}" for name in sorted(names)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_variable_is_read_before_it_is_used(path: Path) -> None:
    """vars/main.yml of the role has `__NAME: "{{ NAME | gpunode.llm.typed('NAME') }}"`; all else of it takes __NAME."""
    assert used_raw(path) == []


def test_the_look_for_raw_uses_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CHECKOUT", tmp_path)
    task = tmp_path / "roles" / "vllm" / "tasks" / "main.yml"
    task.parent.mkdir(parents=True)
    task.write_text("- when: vllm_rollback | bool and not vllm_env\n  loop: '{{ vllm_docker_args }}'\n")
    assert used_raw(task) == ["vllm_env, in when", "vllm_rollback, in when", "vllm_docker_args, in loop"]
    template = task.with_suffix(".j2")
    template.write_text("{% for name in vllm_api_keys %}{{ vllm_env | dictsort }}{% endfor %}")
    assert used_raw(template) == ["vllm_api_keys", "vllm_env"]


def test_a_variable_has_one_specification() -> None:
    seen: dict[str, str] = {}
    files = [
        CHECKOUT / "playbooks/meta/argument_specs.yml",
        *(CHECKOUT / f"roles/{role}/meta/argument_specs.yml" for role in ROLES),
    ]
    for path in files:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                assert values.options()[name] == option, name
                assert seen.setdefault(name, str(path)) == str(path), f"{name} stands in two places"


def test_the_gateway_reads_all_its_settings() -> None:
    own = yaml.safe_load((CHECKOUT / "roles/gateway/vars/main.yml").read_text())["__gateway_settings"]
    assert set(own) == set(gateway.READERS)
    assert own == {key: f"{{{{ gateway_{key} }}}}" for key in own}


#: A value of each type, and its text in each form.
FORMS: dict[str, tuple[Any, list[str]]] = {
    "bool": (True, ["true", "True", "yes", "on", "1", " y "]),
    "int": (17, ["17", " 17 ", "+17"]),
    "float": (0.5, ["0.5", ".5", "5e-1"]),
    "str": ("text", ["text"]),
    "path": ("/srv/one", ["/srv/one"]),
    "list of str": (
        ["one", "2", "a b"],
        ["one,2,a b", "one, 2,\na b,", "[one, 2, a b]", '["one", "2", "a b"]', "- one\n- 2\n- a b", '"one","2","a b"'],
    ),
    "list of int": ([1, 16], ["1,16", "1, 16,", "[1, 16]", '["1", "16"]']),
    "list of raw": (["8b", {"model": "70b", "port": 8001}], ["[8b, {model: 70b, port: 8001}]"]),
    "list of dict": ([{"name": "one", "port": 8001}], ['[{"name": "one", "port": 8001}]', "{name: one, port: 8001}"]),
    "dict": (
        {"A": "1", "B": "x y=z"},
        ["A=1 B='x y=z'", 'A=1,B="x y=z"', "{A: '1', B: x y=z}", '{"A": "1", "B": "x y=z"}', "A: '1'\nB: x y=z"],
    ),
}


def form(option: values.Option) -> tuple[Any, list[str]]:
    """A value of a variable, and its texts."""
    if option is values.options()["nodes_at_a_time"]:
        return ["1", "25%"], ["1,25%", "1, 25%", "['1', '25%']"]
    if "choices" in option:
        chosen = option["choices"][:2] if option["type"] == "list" else option["choices"][0]
        return chosen, [",".join(chosen), f"[{', '.join(chosen)}]"] if isinstance(chosen, list) else [chosen]
    if "options" in option:
        # Of each option in it the first form, which is the text that a command line has.
        forms = {key: form(sub) for key, sub in option["options"].items()}
        value = {key: value for key, (value, _texts) in forms.items()}
        text = json.dumps({key: texts[0] for key, (_value, texts) in forms.items()})
        return ([value], [f"[{text}]"]) if option["type"] == "list" else (value, [text])
    return FORMS[f"list of {option['elements']}" if option["type"] == "list" else option["type"]]


SAMPLES = {name: form(values.options()[name]) for name in sorted(READ)}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_text_of_a_variable_is_its_value(name: str) -> None:
    value, message = SAMPLES[name]
    for text in message:
        assert values.typed(name, text) == value, text
    assert values.typed(name, value) == value
    option = values.options()[name]
    if option["type"] == "list" and option["elements"] == "str" and "choices" not in option:
        assert values.typed(name, "word") == ["word"]
    for nothing in ("", "null", "None", None) if values.may_be_null(option) else ():
        assert values.typed(name, nothing) is None
    if option["type"] in ("list", "dict") and not values.may_be_null(option):
        assert values.typed(name, "") == values.typed(name, None) == ([] if option["type"] == "list" else {})


UNREADABLE = {
    "bool": ["ture", "2", 2, ["true"], 0.5, "maybe"],
    "int": ["four", "4.5", True, "1_000", "0x10", [4], "32K"],
    "float": ["half", "nan", "inf", True, {}],
    "str": [["text"], {"a": 1}, True],
    "list": ["[a", "[a]]", {"a": 1}, True, "{a: 1", "- a\n b: ["],
    "dict": ["a", "a=1 b", "{a:1}", "{a", ["a"], 5, "a='1", "=1"],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_an_invalid_setting_is_refused_with_its_name_value_and_an_example(name: str) -> None:
    option = values.options()[name]
    examples = {
        "bool": "true or false",
        "list": "[one, two]",
        "dict": "{name: value}",
        "str": f"one of {', '.join(values.choices(option))}" if "choices" in option else "a text",
        "int": f"a whole number such as {option['default']}" if option.get("default") else "a whole number",
        "float": "a number",
    }
    for value in UNREADABLE[option["type"]]:
        with pytest.raises(ValueError, match=name) as refused:
            values.typed(name, value)
        message = str(refused.value)
        assert f"{name} must be {examples[option['type']]}" in message or option["type"] in ("list", "dict"), message
        assert examples[option["type"]] in message
        assert (repr(value) in message) is not bool(option.get("no_log")), message


def test_no_message_holds_a_secret() -> None:
    for name, value in (
        ("vllm_api_keys", [{"sk-secret": 1}]),
        ("gateway_keys", "sk-secret"),
        ("docker_proxy", {"http": ["sk-secret"]}),
        ("vllm_secret_env", "{sk-secret"),
    ):
        with pytest.raises(ValueError, match=name) as refused:
            values.typed(name, value)
        assert "sk-secret" not in str(refused.value)


LIST = {"type": "list", "elements": "str", "default": []}
RAW = {"type": "list", "elements": "raw", "default": []}
DICT = {"type": "dict", "default": {}}
NUMBER = {"type": "int", "default": 3}


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        (LIST, 'a, "b,c"', ["a", "b,c"]),
        (LIST, "a, 'b,c', no", ["a", "b,c", "no"]),
        (LIST, "it's, so", ["it's", "so"]),
        (LIST, "a{b", ["a{b"]),
        (RAW, "8b, {model: tiny, port: 8001}", ["8b", {"model": "tiny", "port": 8001}]),
    ],
)
def test_a_comma_within_quotation_marks_parts_nothing(option: dict[str, Any], text: str, value: Any) -> None:
    assert values.read("x", text, option) == value


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (LIST, '--label=a="b,c",--init'),
        (LIST, '--init,--gpus={"a":1,"b":2}'),
        # Without the marks that a shell would take away it is no JSON any more.
        (DICT, 'compilation-config={"level":3}'),
        (DICT, 'limit=[1] hf-overrides={"a":"b,c"}'),
        (DICT, "{speculative-config: {num:3}}"),
        (DICT, "a=1,a=2"),
        (NUMBER, "9" * 5000),
        (NUMBER, 1e300),
    ],
)
def test_what_would_be_read_as_something_else_is_refused_by_its_name(option: dict[str, Any], text: Any) -> None:
    with pytest.raises(ValueError, match="^x must be "):
        values.read("x", text, option)


def test_a_refusal_shows_no_password_of_a_dictionary() -> None:
    with pytest.raises(ValueError, match="^x must be ") as refused:
        values.read("x", "HTTPS_PROXY=http://ada:sesame@proxy:3128,NO_PROXY=a,b,HF_TOKEN=sesame", DICT)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("text", ["٣k", "9" * 5000, "1" * 30 + "k"])
def test_a_size_is_of_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        values.size(text)


def test_a_misspelt_suboption_is_refused() -> None:
    with pytest.raises(ValueError, match="docker_proxy has no 'htps', did you mean 'https'?"):
        values.typed("docker_proxy", "htps=http://proxy:3128")


def test_omitted_keys_of_a_dictionary_are_left_out() -> None:
    variables = {"hub": {"source": trust_as_template("{{ nowhere | default(omit) }}"), "home": "/srv"}}
    expression = trust_as_template("{{ hub | gpunode.llm.typed('preflight_hub') }}")
    assert Templar(loader=DataLoader(), variables=variables).template(expression) == {"home": "/srv"}


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [("preflight_skip", "ports,wires", "preflight_skip[1]"), ("vllm_port", "abc", "vllm_port")],
)
def test_a_refusal_names_the_variable(variable: str, value: Any, name: str) -> None:
    expression = trust_as_template(f"{{{{ value | gpunode.llm.typed('{variable}') }}}}")
    with pytest.raises(AnsibleError, match=f": {re.escape(name)} must be "):
        Templar(loader=DataLoader(), variables={"value": value}).template(expression)


def test_what_follows_from_facts_is_refused_by_its_users_name() -> None:
    """Each value is read before it is handed on under another name."""
    tasks = yaml.safe_load((CHECKOUT / "playbooks/tasks/decide.yml").read_text(encoding="utf-8"))
    (given,) = (task["vars"] for task in tasks if "vllm_models" in task.get("vars", {}))
    for variable, wrong, name in (
        ("vllm_models", {"models": {"a": 1}}, "models"),
        ("vllm_plan_lock_timeout_s", {"node_lock_timeout_s": "x"}, "node_lock_timeout_s"),
    ):
        with pytest.raises(AnsibleError, match=f": {name} must be "):
            Templar(loader=DataLoader(), variables=wrong).template(trust_as_template(given[variable]))


PLAY = """
- hosts: localhost
  gather_facts: false
  vars_files: [{files}]
  vars:
    role_path: /
    instance: {instance}
    __vllm_service: "{{{{ instance | gpunode.llm.vllm_service(__vllm_settings) }}}}"
    ansible_facts: {{distribution: Debian, distribution_release: bookworm, os_family: Debian, architecture: x86_64}}
  tasks:
    - ansible.builtin.copy:
        content: "{{{{ {{ {names} }} | to_json }}}}"
        dest: "{{{{ out }}}}/values.json"
        mode: "0600"
    - ansible.builtin.template:
        src: "{{{{ item }}}}"
        dest: "{{{{ out }}}}/{{{{ item | basename }}}}"
        mode: "0600"
      loop: [{templates}]
"""
TEMPLATES = ("config.yaml.j2", "env.j2", "keys.yaml.j2", "record.json.j2", "vllm.service.j2")


def played(folder: Path, *given: str) -> dict[str, str]:
    """What a play with these arguments has for every variable that the roles read, and the files that it renders."""
    folder.mkdir()
    files = [CHECKOUT / "roles" / role / where / "main.yml" for role in ROLES for where in ("defaults", "vars")]
    private = sorted({name for path in files[1::2] for name in yaml.safe_load(path.read_text()) if name[2:] in READ})
    instance = CHECKOUT / "tests/unit/roles/vllm/golden/405b-fp8.instance.json"
    (folder / "play.yml").write_text(
        PLAY.format(
            files=", ".join(map(str, files)),
            instance=json.dumps(json.loads(instance.read_text())),
            names=", ".join(f"'{name}': {name}" for name in [*private, "__docker_given_info", "__gateway_plan"]),
            templates=", ".join(str(CHECKOUT / "roles/vllm/templates" / name) for name in TEMPLATES),
        )
    )
    command = [sys.executable, "-m", "ansible", "playbook", folder / "play.yml", "-e", f"out={folder}", *given]
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(folder)}
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name != "play.yml"}


def test_a_play_with_text_is_the_play_with_values(tmp_path: Path) -> None:
    """Every variable of every role at once: as -e sends it, and as an inventory has it."""
    theirs = {name: sample for name, sample in SAMPLES.items() if name.split("_")[0] not in ("bundle", "preflight")}
    native = {name: value for name, (value, _texts) in theirs.items()}
    routes = {
        "gateway_routes": ["GET /v1/models"],
        "gateway_metrics_allow": ["10.0.0.0/8"],
        "gateway_names": ["a.example"],
    }
    texts = {name: message[0] for name, (_value, message) in theirs.items()} | {
        name: value[0] for name, value in routes.items()
    }
    # As a command line sends it, and a survey what has blanks and quotes.
    plain = {name: text for name, text in texts.items() if re.fullmatch(r"[\w./,-]+", text)}
    (tmp_path / "text.json").write_text(json.dumps({name: texts[name] for name in texts.keys() - plain}))
    (tmp_path / "native.json").write_text(json.dumps({**native, **routes}))
    expected = played(tmp_path / "native", "-e", f"@{tmp_path}/native.json")
    sent = [part for name, text in plain.items() for part in ("-e", f"{name}={text}")]
    found = played(tmp_path / "text", "-e", f"@{tmp_path}/text.json", *sent)
    assert set(found) == {"values.json", *TEMPLATES}
    assert json.loads(found["values.json"]) == json.loads(expected["values.json"])
    assert json.loads(found["values.json"])["__vllm_api_keys"] == ["one", "2", "a b"]
    assert found == expected


def test_a_template_of_an_unknown_name_leaves_no_option_out() -> None:
    """With default() alone all settings of the hub would be undefined, and left out without a word."""
    role = CHECKOUT / "roles/preflight"
    known = yaml.safe_load((role / "vars/main.yml").read_text(encoding="utf-8"))
    args = yaml.safe_load((role / "tasks/check.yml").read_text(encoding="utf-8"))[0]["gpunode.llm.preflight_check"]
    given = {
        "__preflight_hub": trust_as_template(known["__preflight_hub"]),
        "preflight_hub": {"home": "/srv", "environment": {"WHERE": trust_as_template("{{ nowhere }}")}},
        "omit": "left out",
    }
    templar = Templar(loader=DataLoader(), variables=given)
    with pytest.raises(AnsibleUndefinedVariable, match="nowhere"):
        templar.template(trust_as_template(args["hub"]))
