# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: router_workers
short_description: Put a node's engines into the router, or take them out
version_added: 1.1.0
description:
  - Runs on the router's host, usually delegated. Writes the file of workers that the router reads, and the record of
    which node has which, under a lock. Each file changes at once or not at all.
  - With V(present) the module waits until each process of the router passes requests to the workers. With V(absent) it
    waits until the requests that they have are answered.
  - Where no router runs yet, it only writes the files.
  - Other names of models (O(workers[].aliases)) are read at the router's start. If they change, the two processes are
    restarted one after the other, so that one always answers.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports what would change, and waits for nothing.
    support: full
  diff_mode:
    description: Shows the workers before and after, one line each.
    support: full
options:
  node:
    description: The node, by its name in the inventory.
    type: str
  workers:
    description: All workers of O(node). Its other workers are taken out.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Its name, which stays the same as long as the engine has its name.
        type: str
        required: true
      url:
        description: Its address as the router reaches it, without a path.
        type: str
        required: true
      model:
        description: The name of the model that it serves.
        type: str
        required: true
      aliases:
        description: Other names by which clients may ask for the model.
        type: list
        elements: str
        default: []
  nodes:
    description: The workers of several nodes, by the nodes' names, each in the form of O(workers).
    type: dict
    default: {}
  known:
    description: The nodes that may stay. Others are taken out. If not set, all stay.
    type: list
    elements: str
  state:
    description: V(present) puts the workers in, V(absent) takes all workers of O(node) out.
    type: str
    choices: [present, absent]
    default: present
  wait_s:
    description: Seconds to wait until the router passes requests to the workers. V(0) does not wait.
    type: float
    default: 60
  drain_s:
    description: Seconds that requests in flight may take with V(absent).
    type: float
    default: 300
  folder:
    description: The router's folder.
    type: path
    default: /etc/gpunode/router
"""

EXAMPLES = r"""
- name: Take the node out of the router
  gpunode.llm.router_workers:
    node: "{{ inventory_hostname }}"
    state: absent
  delegate_to: router-1

- name: Put the node into the router
  gpunode.llm.router_workers:
    node: "{{ inventory_hostname }}"
    workers:
      - id: gpu-1-8b
        url: http://10.0.0.11:8000
        model: meta-llama/Llama-3.1-8B-Instruct
        aliases: [8b]
  delegate_to: router-1
"""

RETURN = r"""
before:
  description: The workers of O(node) before the change, in the form of O(workers).
  type: list
  elements: dict
  returned: success
nodes:
  description: The names of all nodes that have workers now.
  type: list
  elements: str
  returned: success
models:
  description: The addresses of the engines, by the names of the instances.
  type: dict
  returned: success
processes:
  description: How many processes of the router answered.
  type: int
  returned: success
cut:
  description: Workers that still had requests when O(drain_s) was over.
  type: list
  elements: str
  returned: success
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import names, router
from ..module_utils.node import files as node_files, lock as node_lock

LOCK = "/run/gpunode/router"
PAUSE_S = 0.25


class Membership:
    def __init__(self, module):
        self.module, self.params = module, module.params
        folder = self.params["folder"]
        self.record = os.path.join(folder, os.path.basename(names.ROUTER_NODES))
        self.settings = os.path.join(folder, os.path.basename(names.ROUTER_SETTINGS))
        self.node = self.params["node"]
        self.joining = {name: router.workers(rows) for name, rows in self.params["nodes"].items()}
        if self.node and self.params["state"] == "present":
            self.joining[self.node] = router.workers(self.params["workers"])

    def after(self, before):
        """The nodes as they should be."""
        nodes = {**before, **self.joining}
        if self.params["state"] == "absent":
            nodes.pop(self.node, None)
        if self.params["known"] is not None:
            nodes = {name: rows for name, rows in nodes.items() if name in self.params["known"]}
        return {name: rows for name, rows in nodes.items() if rows}

    def change(self):
        """Write the files. Returns the nodes before and after, and whether names of models changed."""
        with node_lock.alone(Path(LOCK)):
            before = router.read(self.record)
            after = self.after(before)
            if before == after == {}:
                return before, after, False  # a host without a router, or one that has none any more
            wanted = router.texts(after, self.params["folder"])
            here = {path: node_files.text_of(path) for path in wanted}
            if not self.module.check_mode:
                router.write(after, self.params["folder"], here)
                if router.aliases(before) != router.aliases(after):
                    self.restart()
        return before, after, wanted != here

    def restart(self):
        """One process after the other. Requests meanwhile go to the other one."""
        for process in reversed(self.running()):
            rc, out, err = self.module.run_command(["systemctl", "restart", process.unit])
            if rc != 0:
                self.module.fail_json(msg=f"systemctl restart {process.unit} failed: {(err or out).strip()}")
            self.until(lambda process=process: not process.states(), 30)

    def running(self):
        return [process for process in router.processes(self.settings) if process.states() is not None]

    def until(self, waiting, seconds):
        """Wait as long as something is returned; return what is left when the time is over."""
        end = time.monotonic() + seconds
        while (left := waiting()) and time.monotonic() < end:
            time.sleep(PAUSE_S)
        return left

    def missing(self, processes):
        """What the processes do not pass requests to, in words."""
        wanted = [worker for rows in self.joining.values() for worker in rows]
        said = [(process, process.states() or {}) for process in processes]
        return [
            f"{process.unit} says {states.get(worker.id, 'nothing')} of {worker.id} at {worker.url}"
            for process, states in said
            for worker in wanted
            if states.get(worker.id) != router.READY
        ]

    def busy(self, processes, leaving):
        """Of the workers that leave, those that a process still has."""
        said = set().union(*(process.states() or {} for process in processes)) if processes else set()
        return sorted(worker.id for worker in leaving if worker.id in said)

    def run(self):
        before, after, changed = self.change()
        cut, processes = [], [] if self.module.check_mode else self.running()
        if processes and self.params["state"] == "present" and self.params["wait_s"]:
            missing = self.until(lambda: self.missing(processes), self.params["wait_s"])
            if missing:
                self.module.fail_json(
                    msg=f"The router does not pass requests to every worker after {self.params['wait_s']:g} s: "
                    f"{'; '.join(missing)}. This host must reach that address,"
                    " and the engine must have the router's key."
                )
        if processes and self.params["state"] == "absent":
            leaving = before.get(self.node, ())
            cut = self.until(lambda: self.busy(processes, leaving), self.params["drain_s"])
        return {
            "changed": changed,
            "before": router.rows(before.get(self.node, ())),
            "nodes": sorted(after),
            "models": router.addresses(after),
            "processes": len(processes),
            "cut": cut,
            "diff": {"before": lines(before), "after": lines(after)},
        }


def lines(nodes):
    return "".join(
        f"{node}: {' '.join([worker.id, worker.url, worker.model, *worker.aliases])}\n"
        for node in sorted(nodes)
        for worker in nodes[node]
    )


def main():
    worker = {
        "id": {"type": "str", "required": True},
        "url": {"type": "str", "required": True},
        "model": {"type": "str", "required": True},
        "aliases": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str"},
            "workers": {"type": "list", "elements": "dict", "default": [], "options": worker},
            "nodes": {"type": "dict", "default": {}},
            "known": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "wait_s": {"type": "float", "default": 60},
            "drain_s": {"type": "float", "default": 300},
            "folder": {"type": "path", "default": names.ROUTER_DIR},
        },
        required_if=[("state", "absent", ["node"])],
        supports_check_mode=True,
    )
    try:
        result = Membership(module).run()
    except (OSError, ValueError, KeyError, TypeError) as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
