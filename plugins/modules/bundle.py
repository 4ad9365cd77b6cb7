# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: Seal a bundle for nodes without a network, and open it on a node
version_added: 1.0.0
description:
  - V(sealed) writes the manifest of a folder, with size and SHA-256 of every file, and on request a tar of the folder.
  - V(opened) compares a folder with its manifest, or unpacks its tar and compares each file. It refuses files that
    are not in the manifest, and links to other targets than its files. Then it creates a second configuration of
    apt, below O(root), with only the bundle's packages. With E(APT_CONFIG) set to C(apt.conf) in that folder, apt
    installs from the bundle; the node's own sources are not changed. apt checks the publishers' signatures, and for
    packages of the distribution the keys of the node.
  - A bundle that was opened before is not compared again, unless it has changed.
  - The work runs in a transient systemd unit on the node. The play shows its progress.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Compares the system only, and reports whether the bundle would be sealed or opened.
    support: full
  diff_mode:
    description: Shows the bundle's name before and after.
    support: full
options:
  path:
    description: The folder. If it is missing, V(opened) unpacks C(path.tar) to it.
    type: path
    required: true
  state:
    description: Whether to seal the folder or to open it.
    type: str
    choices: [sealed, opened]
    required: true
  system:
    description: The facts of this host, as C(release) and C(architecture). A bundle is for one of each.
    type: dict
    required: true
  tar:
    description: Whether V(sealed) makes C(path.tar) as well.
    type: bool
    default: false
  root:
    description: The folder of the second apt configuration.
    type: path
    default: /var/lib/gpunode/bundle
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
"""

EXAMPLES = r"""
- name: Open the bundle on the node
  gpunode.llm.bundle:
    path: /srv/bundle
    state: opened
    system: {release: Debian 12, architecture: x86_64}
"""

RETURN = r"""
done:
  description: Whether the work has ended.
  type: bool
  returned: always
progress:
  description: The progress of the work.
  type: str
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bundle import contents as bundle_contents, run as bundle_run
from ..module_utils.node import files as node_files
from ..module_utils.packages import apt as packages_apt
from ..module_utils.units import job as units_job


class Bundle:
    def __init__(self, module):
        self.module, self.params = module, module.params
        self.path, self.root = module.params["path"].rstrip("/"), module.params["root"]
        self.tar = f"{self.path}.tar"
        self.mark = os.path.join(self.root, "opened")

    def job(self):
        wanted = self.params["state"] == "opened" or self.params["tar"]
        tar = self.tar if wanted else ""
        return {"state": self.params["state"], "path": self.path, "tar": tar, "system": self.params["system"]}

    def finish(self, changed, progress):
        after = f"{self.path} {self.params['state']}\n"
        diff = {"before": "" if changed else after, "after": after}
        self.module.exit_json(changed=changed, done=True, progress=progress, diff=diff)

    def settled(self):
        """Whether this bundle was opened before. After that, the folder may be deleted."""
        text = bundle_run.manifest_text(self.path, self.tar)
        opened = node_files.read_text(self.mark) if os.path.exists(self.mark) else ""
        if text:
            bundle_run.check_system(bundle_contents.Contents.load(text), self.params["system"])
        elif not opened:
            raise bundle_contents.BundleError(
                f"There is neither {self.path} nor {self.tar} on this node: copy the bundle there."
            )
        return bool(opened) and (not text or opened == bundle_run.mark(text, self.path))

    def step(self):
        run, job = self.module.run_command, self.job()
        if not self.params["resume"]:
            bundle_run.start(run, job)
        done, progress, changed = bundle_run.wait(run, job, self.params["wait_s"])
        if not done:
            self.module.exit_json(changed=False, done=False, progress=progress, resume={"started": True})
        if self.params["state"] == "opened":
            self.refresh_apt()
        self.finish(changed, progress)

    def refresh_apt(self):
        text = bundle_run.manifest_text(self.path, self.tar)
        files = bundle_run.apt_files(self.path, self.root, bundle_contents.Contents.load(text))
        os.makedirs(f"{self.root}/lists/partial", mode=0o755, exist_ok=True)
        for path, content in files.items():
            node_files.write_atomically(path, content)
        for name in bundle_run.ROLES_SOURCES:
            link = f"{self.root}/sources.list.d/{name}"
            if not os.path.islink(link):
                os.symlink(f"/etc/apt/sources.list.d/{name}", link)
        only = [
            "-o",
            f"Dir::Etc::SourceList={self.root}/sources.list.d/distribution.sources",
            "-o",
            "Dir::Etc::SourceParts=-",
        ]
        environment = {"APT_CONFIG": f"{self.root}/apt.conf", "LC_ALL": "C"}
        command = ["apt-get", "update", "-q", "--error-on=any", *only]
        rc, _out, err = self.module.run_command(command, environ_update=environment)
        if rc != 0:
            raise bundle_contents.BundleError(
                f"apt does not take the packages of {self.path}: {packages_apt.complaint(err)}"
            )
        node_files.write_atomically(self.mark, bundle_run.mark(text, self.path))


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["sealed", "opened"], "required": True},
            "system": {"type": "dict", "required": True},
            "tar": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/var/lib/gpunode/bundle"},
            "wait_s": {"type": "int", "default": 10},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    bundle = Bundle(module)
    try:
        if module.params["state"] == "opened" and not module.params["resume"] and bundle.settled():
            bundle.finish(changed=False, progress=f"{bundle.path} was opened")
        if module.check_mode:
            bundle.finish(changed=True, progress=f"{bundle.path} would be {module.params['state']}")
        bundle.step()
    except (bundle_contents.BundleError, units_job.JobError, OSError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")


if __name__ == "__main__":
    main()
