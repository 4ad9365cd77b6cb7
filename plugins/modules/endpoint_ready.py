# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_ready
short_description: Wait until vLLM answers, or say why it never will
version_added: 1.0.0
description:
  - Waits until each endpoint answers a completion, and not only its health check.
  - Watches the systemd units meanwhile. When one ends, the wait ends at once with the cause from its journal and the
    remedy, found in a table of known messages of vLLM, Docker and CUDA.
  - While it waits, the play shows what the engine is busy with.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Looks once. An endpoint that does not answer is no failure then.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
options:
  endpoints:
    description: The endpoints. They are waited for together.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A name for messages.
        type: str
        required: true
      unit:
        description: The systemd unit that serves it, with its suffix. Without it, only the endpoint is asked.
        type: str
      host:
        description: The address that it listens on.
        type: str
        default: 127.0.0.1
      port:
        description: Its port.
        type: int
        default: 8000
      model:
        description: The name under which the model is served.
        type: str
        required: true
      env_file:
        description: A file on the node that holds C(VLLM_API_KEY). The key never leaves the node.
        type: path
      timeout_s:
        description: How long it may take to answer, in seconds.
        type: int
        default: 900
  wait_s:
    description: How long one call looks before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: What an earlier call returned as RV(ignore:resume). The action plugin fills it in.
    type: dict
"""

EXAMPLES = r"""
- name: Wait for the endpoint
  gpunode.llm.endpoint_ready:
    endpoints:
      - name: 8b
        unit: vllm-8b.service
        port: 8000
        model: meta-llama/Llama-3.1-8B-Instruct
        env_file: /etc/vllm/8b.env
        timeout_s: 900
"""

RETURN = r"""
endpoints:
  description: How each endpoint is.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    url:
      description: The base URL for OpenAI's clients, as seen from the node.
      type: str
    model:
      description: The name under which the model is served.
      type: str
    ready:
      description: Whether it answers. Never false outside check mode.
      type: bool
    detail:
      description: What it answered.
      type: str
diagnosis:
  description: Why it will not answer, where the table knows it.
  type: dict
  returned: failure
  contains:
    key:
      description: A short name of the cause.
      type: str
    cause:
      description: The cause.
      type: str
    remedy:
      description: What to do.
      type: str
    line:
      description: The line of the journal that tells it.
      type: str
log:
  description: The last lines of the journal that say something.
  type: list
  elements: str
  returned: failure
done:
  description: Whether there is nothing more to wait for.
  type: bool
  returned: always
progress:
  description: What is being waited for.
  type: str
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpunode.llm.plugins.module_utils import _diagnosis, _job, _probe

PAUSE_S = 1
LOG_LINES = 400
UNIT_PROPERTIES = "ActiveState,SubState,Result,NRestarts,InvocationID,LoadState,ExecMainStatus,Job"


def url_of(endpoint):
    host = _probe.reachable_host(endpoint["host"])
    return f"http://{'[' + host + ']' if ':' in host else host}:{endpoint['port']}/v1"


class Wait:
    def __init__(self, module):
        self.module = module
        self.resume = module.params["resume"] or {"started": time.time(), "ready": {}, "restarts": {}, "runs": {}}
        self.answers = {}

    def unit_state(self, unit):
        rc, out, err = self.module.run_command(["systemctl", "show", unit, f"--property={UNIT_PROPERTIES}"])
        if rc != 0:
            self.module.fail_json(msg=f"systemctl show {unit} failed: {(err or out).strip()}", done=True, progress="")
        shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        return {**shown, "Job": shown.get("Job", "").lstrip("0")}

    def log(self, endpoint):
        """What this run of the unit said, and no other: the words of an earlier run would tell a wrong cause."""
        run = self.resume["runs"].get(endpoint["name"])
        unit = endpoint["unit"]
        return _job.log_tail(self.module.run_command, unit, run, LOG_LINES, manager=True) if run else []

    def look(self, endpoint):
        """Ask the unit first: another server, or the one that is on its way out, may answer on its port."""
        name = endpoint["name"]
        state = self.unit_state(endpoint["unit"]) if endpoint["unit"] else {"ActiveState": "active"}
        ended = self.has_ended(name, state)
        # When systemd has begun a new run already, the one that was seen before is the one that tells.
        begun_anew = ended and self.is_up(state)
        if state.get("InvocationID") and not (begun_anew and name in self.resume["runs"]):
            self.resume["runs"][name] = state["InvocationID"]
        if ended:
            self.dead(endpoint, state)
            answer = _probe.Answer(False, "its unit does not run")
        elif state["ActiveState"] == "deactivating" or (state["ActiveState"] == "active" and state.get("Job")):
            answer = _probe.Answer(False, "the one before is being stopped")
        else:
            answer = self.ask(endpoint)
        self.answers[name] = answer
        # A unit waits for the same answer before it counts as started; the play ends after it and not before.
        if answer.ready and state["ActiveState"] == "active":
            self.resume["ready"][name] = answer.detail

    @staticmethod
    def is_up(state):
        return state["ActiveState"] in ("active", "activating") and "auto-restart" not in state.get("SubState", "")

    def has_ended(self, name, state):
        # systemd starts it again by itself; the first end is what tells the cause, so waiting stops there.
        restarts = int(state.get("NRestarts") or 0)
        again = restarts > self.resume["restarts"].setdefault(name, restarts)
        gone = state["ActiveState"] in ("failed", "inactive") and not state.get("Job")
        return again or gone or "auto-restart" in state.get("SubState", "")

    def ask(self, endpoint):
        try:
            key = _probe.read_key(endpoint["env_file"])
        except OSError as error:
            return _probe.Answer(False, f"its env file cannot be read: {error}", refused=True)
        return _probe.probe(_probe.asker(endpoint["host"], endpoint["port"]), endpoint["model"], key)

    def fail(self, sentence, lines):
        found = _diagnosis.diagnose(lines)
        said = _diagnosis.telling_lines(lines)
        why = str(found) if found else "Its last words: " + " / ".join(said[-3:]) if said else "It said nothing."
        self.module.fail_json(
            msg=f"{sentence} {why}",
            diagnosis=vars(found) if found else {},
            log=said,
            done=True,
            progress="",
        )

    def dead(self, endpoint, state):
        if self.module.check_mode:
            return
        status = state.get("ExecMainStatus", "")
        how = f"{state['ActiveState']}, {state['Result']}" + (f", status {status}" if status not in ("", "0") else "")
        self.fail(f"{endpoint['unit']} ended before {endpoint['name']} answered ({how}).", self.log(endpoint))

    def late(self, endpoint, elapsed):
        detail = self.answers[endpoint["name"]].detail
        self.fail(f"{endpoint['name']} did not answer within {int(elapsed)} s ({detail}).", self.log(endpoint))

    def waiting_for(self):
        return [one for one in self.module.params["endpoints"] if one["name"] not in self.resume["ready"]]

    def slice(self):
        end = time.monotonic() + self.module.params["wait_s"]
        while True:
            for endpoint in self.waiting_for():
                self.look(endpoint)
            if self.module.check_mode or not self.waiting_for() or time.monotonic() >= end:
                return
            elapsed = time.time() - self.resume["started"]
            for endpoint in self.waiting_for():
                answer = self.answers[endpoint["name"]]
                if elapsed > endpoint["timeout_s"] or answer.refused:
                    self.late(endpoint, elapsed)
            time.sleep(PAUSE_S)

    def progress(self):
        elapsed = int(time.time() - self.resume["started"])
        parts = []
        for endpoint in self.waiting_for():
            busy = _diagnosis.phase(self.log(endpoint)) or self.answers[endpoint["name"]].detail
            parts.append(f"{endpoint['name']}: {busy}")
        return f"{'; '.join(parts)} ({elapsed} s)"

    def endpoints(self):
        return [
            {
                "name": one["name"],
                "url": url_of(one),
                "model": one["model"],
                "ready": one["name"] in self.resume["ready"],
                "detail": self.resume["ready"].get(one["name"]) or self.answers[one["name"]].detail,
            }
            for one in self.module.params["endpoints"]
        ]


def main():
    module = AnsibleModule(
        argument_spec={
            "endpoints": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "unit": {"type": "str"},
                    "host": {"type": "str", "default": "127.0.0.1"},
                    "port": {"type": "int", "default": 8000},
                    "model": {"type": "str", "required": True},
                    "env_file": {"type": "path"},
                    "timeout_s": {"type": "int", "default": 900},
                },
            },
            "wait_s": {"type": "int", "default": 10},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    wait = Wait(module)
    wait.slice()
    if wait.waiting_for() and not module.check_mode:
        module.exit_json(changed=False, done=False, progress=wait.progress(), resume=wait.resume)
    module.exit_json(changed=False, done=True, progress="", endpoints=wait.endpoints())


if __name__ == "__main__":
    main()
