# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the node stays what it was: damage is mended, old revisions go when asked, the token is nowhere else."""

from __future__ import annotations

import json
import re

import pytest
from conftest import CONVERGE, FETCH, HOLD, REPO, SHARDS, note
from scenario import hunt, on_node, processes, repository, run_play

TOKEN, TOKEN_FILE = "hf_lab_good", "/etc/huggingface/token"
FLIP = """
path = '{path}'
with open(path, 'r+b') as stream:
    stream.seek(1000000)
    byte = stream.read(1)[0]
    stream.seek(1000000)
    stream.write(bytes([byte ^ 1]))
"""


def flip(path: str) -> None:
    """One bit of a file; its size and its time do not tell."""
    on_node(f'touch -r {path} /tmp/time; python3 -c "{FLIP.format(path=f"$(ls {path})")}"; touch -r /tmp/time {path}')


def verify(pull, **more):
    return run_play("playbooks/verify.yml", *pull.variables(huggingface_instances=[], **more))


def test_a_flipped_byte_is_found_without_a_hub_and_mended(pull, hub) -> None:
    assert pull.run().status == 0
    result = verify(pull)
    assert result.status == 0, result.text[-3000:]
    assert "the hash of every file is right" in result.words
    flip(f"{pull.folder}/snapshots/*/{SHARDS[1]}")
    hub.reset()
    hub.faults({"kind": "status", "method": "*", "status": 503, "times": -1})

    result = verify(pull)
    assert result.status != 0
    assert f"{SHARDS[1]}: its bytes differ from the hub" in result.words
    assert f"{SHARDS[0]}: " not in result.words
    assert hub.counters()["total_requests"] == 0

    hub.reset()
    result = verify(pull, huggingface_verify_mend=True)
    assert result.status == 0, result.text[-3000:]
    assert result.changed == 1
    note(f"{sum(pull.sent().values())} bytes fetched to mend it, the file has {pull.sizes()[SHARDS[1]]}")
    assert pull.sent() == {SHARDS[1]: pull.sizes()[SHARDS[1]]}
    again = verify(pull)
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]


def test_damaged_files_are_downloaded_again_by_the_next_run(pull, hub) -> None:
    assert pull.run().status == 0
    flip(f"{pull.folder}/snapshots/*/{SHARDS[0]}")
    assert verify(pull).status != 0
    hub.reset()
    assert pull.run().status == 0
    assert pull.sent() == {SHARDS[0]: pull.sizes()[SHARDS[0]]}
    assert verify(pull).status == 0


def test_a_folder_on_another_disk_is_refused_and_the_remedy_works(pull, hub) -> None:
    """A link is as good as a folder on the host, and leads nowhere in a container that has the cache alone."""
    result = pull.run(CONVERGE)
    assert result.status == 0, result.text[-3000:]
    disk = f"{pull.home}-disk"
    on_node(f"mkdir {disk} && mv {pull.folder} {disk}/model && ln -s {disk}/model {pull.folder}")
    hub.reset()
    for playbook in (CONVERGE, FETCH):
        result = pull.run(playbook)
        assert result.status != 0
        assert f"{pull.folder} is a link to {disk}/model, which a container cannot see" in result.words
        assert result.changed == 0
    remedy = re.findall(r"in its place: (rm .*?), and the same in /etc/fstab", result.words)[0]
    try:
        on_node(remedy)
        again = pull.run(CONVERGE)
        assert (again.status, again.changed) == (0, 0), again.text[-3000:]
        assert pull.sent() == {}
    finally:
        on_node(f"umount {pull.folder}; rm -rf {disk}")


OTHER = "weights/moves"
UNIT = "/etc/systemd/system/somebody.service"


@pytest.fixture
def moved(pull, hub):
    """A repository whose branch went on: its old commit and its new one are here."""
    with repository(OTHER, 1, 1, "gpunode/tiny-llama", hub):
        pull.repo_id = OTHER
        assert pull.run().status == 0
        (old,) = on_node(f"ls {pull.folder}/snapshots").split()
        hub.python(f"open('/srv/hub/{OTHER}/ballast-00000.bin', 'ab').write(b'more')")
        assert pull.run().status == 0
        assert on_node(f"ls {pull.folder}/snapshots").split() == [old]  # pinned, until an update is asked for
        assert pull.run(huggingface_update=True).status == 0
        (new,) = set(on_node(f"ls {pull.folder}/snapshots").split()) - {old}
        yield old, new
        on_node(f"rm -f {UNIT}")


def prune(pull, *args: str):
    return run_play("playbooks/prune.yml", *args, "-e", json.dumps({"huggingface_home": pull.home}))


def test_an_old_revision_goes_when_asked_and_not_in_use(pull, moved) -> None:
    old, new = moved
    on_node(f"echo '# serves {OTHER} at {old}' >{UNIT}")
    result = prune(pull)
    assert (result.status, result.changed) == (0, 0), result.text[-3000:]
    assert "somebody.service names it" in result.words
    on_node(f"rm {UNIT}")

    result = prune(pull, "--check", "--diff")
    assert (result.status, result.changed) == (0, 1), result.text[-3000:]
    assert f"-{OTHER} {old}" in result.words
    assert set(on_node(f"ls {pull.folder}/snapshots").split()) == {old, new}

    before = int(on_node(f"du -sb {pull.folder}/blobs | cut -f1"))
    result = prune(pull)
    assert (result.status, result.changed) == (0, 1), result.text[-3000:]
    assert on_node(f"ls {pull.folder}/snapshots").split() == [new]
    freed = before - int(on_node(f"du -sb {pull.folder}/blobs | cut -f1"))
    note(f"{freed} bytes freed: the old ballast, and nothing that the new revision shares")
    assert freed == 1 << 20
    assert verify(pull).status == 0
    result = prune(pull)
    assert (result.status, result.changed) == (0, 0), result.text[-3000:]


def test_the_token_is_in_its_file_and_nowhere_else(pull, hub) -> None:
    """Written and used anew, with everything told that ansible can tell."""
    on_node(f"rm -f {TOKEN_FILE}")
    hub.faults({**HOLD, "at": 0.3})
    play = pull.begin(FETCH, "-vvv")
    pull.wait_for(0.3)
    seen = processes()
    hub.let_go()
    result = play.wait()
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"stat -c '%a %U' {TOKEN_FILE}") == "600 root"
    assert f"HF_TOKEN_PATH={TOKEN_FILE}" in seen
    assert TOKEN not in seen
    assert TOKEN not in result.text
    assert hunt(TOKEN) == [TOKEN_FILE]
    assert REPO in result.words
