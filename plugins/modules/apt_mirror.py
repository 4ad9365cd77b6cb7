# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: apt_mirror
short_description: Download packages and their dependencies as a signed repository in a folder
version_added: 1.0.0
description:
  - Downloads packages with all their dependencies, down to the C library. Any node of this release can then install
    them from the folder alone. The folder keeps the index of each repository with its original signature, so apt on
    the node checks it as usual.
  - Uses the apt of this host with its sources, proxy and logins, but with separate package lists and a separate package
    database. So it changes nothing on this host, and packages that the host has installed are downloaded too.
  - Downloads nothing if an earlier call with the same request did, and all its files are still in the folder.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports whether the module would download packages, and downloads nothing.
    support: full
  diff_mode:
    description: Shows the request, before and after.
    support: full
options:
  path:
    description: The folder of the bundle. The subfolder C(apt) holds the repositories, C(keys) their keys.
    type: path
    required: true
  name:
    description: The name of the record of the request and of the key, without the suffix.
    type: str
    required: true
  packages:
    description: The packages to download, in the same form as for M(gpunode.llm.apt_source).
    type: list
    elements: str
    required: true
  version:
    description: The version to download, as in M(gpunode.llm.apt_source).
    type: str
  pinned:
    description: The packages that O(version) applies to, as in M(gpunode.llm.apt_source).
    type: list
    elements: str
  uri:
    description: The URL of a repository to use in addition to those of this host.
    type: str
    required: true
  suite:
    description: The suite of this repository.
    type: str
    required: true
  components:
    description: The components of this repository.
    type: list
    elements: str
    default: []
  architectures:
    description: The architectures to download packages for, by Debian's names, such as V(amd64).
    type: list
    elements: str
    default: []
  key_url:
    description: The URL of the key of this repository.
    type: str
  key:
    description: The key itself, armored, in place of O(key_url).
    type: str
  fingerprint:
    description: The fingerprint that the key must have.
    type: str
    required: true
  update:
    description: Whether to ask the repositories again although the folder holds the packages of the same request.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Download Docker for a node without a network
  gpunode.llm.apt_mirror:
    path: /srv/bundle
    name: docker
    packages: [docker-ce, docker-ce-cli, containerd.io]
    uri: https://download.docker.com/linux/debian
    suite: bookworm
    components: [stable]
    key_url: https://download.docker.com/linux/debian/gpg
    fingerprint: 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
"""

RETURN = r"""
repository:
  description: The folder of the repository O(uri), relative to O(path). The apt source of the node uses it.
  type: str
  returned: success
  sample: apt/download.docker.com/linux/debian
key:
  description: The file of its key, relative to O(path).
  type: str
  returned: success
  sample: keys/docker.asc
packages:
  description: The number of packages. 0 in check mode if the module would download packages.
  type: int
  returned: success
fetched_bytes:
  description: The total size of the downloaded packages in bytes. Packages that were in the folder before do not count.
  type: int
  returned: success
"""

import contextlib
import glob
import json
import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils import paths
from ..module_utils.hub import snapshot as hub_snapshot
from ..module_utils.node import files as node_files, schema as node_schema
from ..module_utils.packages import (
    apt as packages_apt,
    key as packages_key,
    mirror as packages_mirror,
    repository as packages_repository,
)

REQUEST = ("packages", "version", "pinned", "uri", "suite", "components", "architectures", "fingerprint")


class Mirror:
    def __init__(self, module, work):
        self.module, self.params, self.work = module, module.params, work
        self.path, self.name = module.params["path"], module.params["name"]
        self.record = os.path.join(self.path, "apt", f"{self.name}.json")
        self.key = os.path.join(self.path, "keys", f"{self.name}.asc")
        self.request = {key: self.params[key] for key in REQUEST}

    def recorded(self):
        """The record of an earlier run for the same request. None if there is none or if a file of it is missing."""
        try:
            record = json.loads(node_files.read_text(self.record))
            files = record["files"]
        except (OSError, ValueError, KeyError):
            return None
        same = record.get("request") == self.request and self.key_is_valid()
        whole = all(hub_snapshot.size_of(os.path.join(self.path, path)) == size for path, size in files.items())
        return record if same and whole else None

    def fetch_key(self):
        data = packages_repository.fetched_key(self.params, self.params["uri"], open_url)
        key = packages_key.checked(data, self.params["fingerprint"], packages_repository.origin(self.params))
        packages_repository.write(self.key, key, self.module.atomic_move)

    def key_is_valid(self):
        """Whether the key file holds only the key with the given fingerprint."""
        key = node_files.bytes_of(self.key)
        try:
            return key == packages_key.checked(key, self.params["fingerprint"], self.key)
        except ValueError:
            return False

    def configure(self):
        """Configure a separate apt: the sources of this host, the given source, and no installed packages."""
        parts = os.path.join(self.work, "sources.list.d")
        for folder in (parts, f"{self.work}/lists/partial", f"{self.work}/archives/partial"):
            os.makedirs(folder)
        source = packages_apt.Source(
            uri=self.params["uri"],
            suite=self.params["suite"],
            components=tuple(self.params["components"]),
            architectures=tuple(self.params["architectures"]),
            signed_by=self.key,
        )
        own = os.path.join(parts, "gpunode-mirror.sources")
        node_files.write_atomically(own, source.render())
        others = packages_apt.sources(self.module.run_command)
        # Leave out this host's sources for the same repository: apt refuses one repository with two keys.
        conflicting = packages_apt.conflicts(own, others, self.work, self.module.run_command)
        for at, path in enumerate(others):
            if path not in conflicting:
                os.symlink(path, os.path.join(parts, f"{at:04}-{os.path.basename(path)}"))
        node_files.write_atomically(f"{self.work}/status", "")
        node_files.write_atomically(
            f"{self.work}/apt.conf", packages_apt.configuration(packages_mirror.settings(self.work))
        )

    def apt(self, *command):
        environment = {"APT_CONFIG": f"{self.work}/apt.conf", "LC_ALL": "C"}
        rc, out, err = self.module.run_command(list(command), environ_update=environment)
        if rc != 0:
            self.module.fail_json(
                msg=f"apt cannot download the packages of {self.name} for the bundle: {packages_apt.complaint(err)}",
                stderr=err,
            )
        return out

    def fetch(self):
        self.fetch_key()
        self.configure()
        self.apt("apt-get", "update", "-q", "--error-on=any")
        names = self.params["packages"]
        specs = packages_apt.pin(names, self.params["version"], self.params["pinned"] or names)
        debs = packages_mirror.parse_uris(self.apt("apt-get", "install", "-qq", "--print-uris", *specs))
        own = self.own_repository()
        indexes = packages_mirror.used(
            packages_mirror.parse_targets(self.apt("apt-get", "indextargets", "--format", packages_mirror.TARGETS)),
            debs,
            [own],
        )
        lacking = [
            d for d in debs if hub_snapshot.size_of(os.path.join(self.path, packages_mirror.place(d.uri))) != d.size
        ]
        if lacking:
            self.apt("apt-get", "install", "-qq", "--yes", "--download-only", *specs)
        copies = [(f"{self.work}/archives/{deb.name}", packages_mirror.place(deb.uri)) for deb in lacking]
        copies += [pair for index in indexes for pair in self.index_files(index)]
        files = {packages_mirror.place(deb.uri): deb.size for deb in debs}
        files.update({place: hub_snapshot.size_of(held) for held, place in copies})
        self.keep(files, copies)
        repositories = packages_mirror.repositories(indexes, [own])
        record = {"request": self.request, "repositories": repositories, "files": files}
        record.update(repository=packages_mirror.place(own), packages=len(debs))
        node_files.write_atomically(
            self.record, json.dumps(node_schema.numbered(record), indent=1, sort_keys=True) + "\n"
        )
        return record, sum(deb.size for deb in lacking)

    def keep(self, files, copies):
        """Copy the files to the bundle, and delete files of an earlier run that this request no longer has."""
        records = {
            path: json.loads(node_files.read_text(path))["files"] for path in glob.glob(f"{self.path}/apt/*.json")
        }
        before = records.pop(self.record, {})
        stale = [] if self.params["update"] else packages_mirror.outdated(files, records)
        if stale:
            names = " and ".join(os.path.basename(path)[: -len(".json")] for path in stale)
            self.module.fail_json(
                msg=f"The bundle holds an older state of a repository, for {names}. "
                "Make the bundle again with -e update=true."
            )
        for held, place in copies:
            target = os.path.join(self.path, place)
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            shutil.copyfile(held, target)
        for place in set(before) - set(files) - {path for had in records.values() for path in had}:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, paths.relative(place)))

    def index_files(self, index):
        """Download an index as it was published; return it with its signatures, as pairs of file and place."""
        signed = [pair for pair in index.signatures() if os.path.exists(pair[0])]
        listed = index.published(node_files.read_text(signed[0][0]))
        held = os.path.join(self.work, "index", packages_mirror.place(listed.uri))
        os.makedirs(os.path.dirname(held), exist_ok=True)
        self.apt("/usr/lib/apt/apt-helper", "download-file", listed.uri, held, f"SHA256:{listed.sha256}")
        return [*signed, (held, packages_mirror.place(listed.uri))]

    def own_repository(self):
        """The URL of the given repository, with apt's variable for the architecture filled in."""
        rc, out, _err = self.module.run_command(["dpkg", "--print-architecture"])
        architecture = (self.params["architectures"] or [out.strip() if rc == 0 else ""])[0]
        return self.params["uri"].replace("$(ARCH)", architecture)

    def answer(self, record, changed, fetched=0):
        after = json.dumps(self.request, indent=1, sort_keys=True) + "\n"
        self.module.exit_json(
            changed=changed,
            repository=record["repository"],
            key=os.path.relpath(self.key, self.path),
            packages=record["packages"],
            fetched_bytes=fetched,
            diff={"before": "" if changed else after, "after": after},
        )


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "version": {"type": "str"},
            "pinned": {"type": "list", "elements": "str"},
            "uri": {"type": "str", "required": True},
            "suite": {"type": "str", "required": True},
            "components": {"type": "list", "elements": "str", "default": []},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "key_url": {"type": "str", "no_log": False},
            "key": {"type": "str", "no_log": False},
            "fingerprint": {"type": "str", "required": True},
            "update": {"type": "bool", "default": False},
        },
        required_one_of=[("key_url", "key")],
        supports_check_mode=True,
    )
    work = tempfile.mkdtemp(prefix="gpunode-mirror-", dir=module.tmpdir)
    mirror = Mirror(module, work)
    try:
        record = None if module.params["update"] else mirror.recorded()
        if record:
            mirror.answer(record, changed=False)
        if module.check_mode:
            mirror.answer({"repository": packages_mirror.place(mirror.own_repository()), "packages": 0}, changed=True)
        record, fetched = mirror.fetch()
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.")
    mirror.answer(record, changed=True, fetched=fetched)


if __name__ == "__main__":
    main()
