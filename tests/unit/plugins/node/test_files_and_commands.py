# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, programs and words of a node."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node import (
    commands,
    files as node_files,
    network as node_network,
    words as node_words,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_file_reads_as_empty_or_raises(tmp_path: Path) -> None:
    assert (node_files.text_of(tmp_path / "none"), node_files.bytes_of(tmp_path / "none")) == ("", b"")
    assert (node_files.text_of(tmp_path), node_files.bytes_of(tmp_path)) == ("", b"")
    with pytest.raises(FileNotFoundError):
        node_files.read_text(tmp_path / "none")


def test_bytes_that_are_no_text_are_refused_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"a\xffb")
    with pytest.raises(UnicodeDecodeError):
        node_files.read_text(path)
    assert (node_files.text_of(path), node_files.text_of(path, 1)) == ("a\ufffdb", "a")
    assert node_files.bytes_of(path) == b"a\xffb"


def test_a_file_is_written_whole_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    node_files.write_atomically(path, "one", mode=0o600, folder_mode=0o700)
    assert (path.read_text(), mode_of(path), mode_of(path.parent)) == ("one", 0o600, 0o700)
    node_files.write_atomically(path, b"two", power_cut=False)
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_what_a_link_led_to_stays_when_its_name_gets_another_file(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "name").symlink_to("theirs")
    node_files.write_atomically(tmp_path / "name", "ours")
    assert ((tmp_path / "theirs").read_text(), (tmp_path / "name").read_text()) == ("theirs", "ours")


def test_a_copy_takes_mode_and_time_along(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    kept.chmod(0o640)
    os.utime(kept, (1, 1))
    node_files.copy_atomically(kept, tmp_path / "there" / "file")
    copy = tmp_path / "there" / "file"
    assert (copy.read_text(), mode_of(copy), copy.stat().st_mtime) == ("kept", 0o640, 1)
    assert os.listdir(copy.parent) == ["file"]


def test_a_candidate_is_for_its_owner_alone() -> None:
    path = Path(node_files.staged("{}", suffix=".json"))
    assert (path.read_text(), path.suffix, mode_of(path)) == ("{}", ".json", 0o600)
    path.unlink()


def test_blocks_go_on_after_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"abcdefg")
    assert list(node_files.blocks(tmp_path / "large", 3)) == [b"abc", b"def", b"g"]
    assert list(node_files.blocks(tmp_path / "large", 3, skip=5)) == [b"fg"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7200, "2 h"),
        (7512, "2 h 5 min"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
        (-3, "0 s"),
    ],
)
def test_a_duration_has_its_two_largest_parts(seconds: float, words: str) -> None:
    assert node_words.duration(seconds) == words


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_holds(host):
    with socket.socket() as holder:
        holder.bind((host, 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not node_network.port_is_free(host, port)
    assert node_network.port_is_free(host, port)


def test_systemctl_show_is_read_in_the_order_of_the_units() -> None:
    assert commands.show(("Id", "Job"), "a.service", "b.service") == [
        "systemctl",
        "show",
        "a.service",
        "b.service",
        "--property=Id,Job",
    ]
    output = "Id=a.service\nEnvironment=A=1 B=2\nodd\n\nId=b.service\nJob=\n"
    assert commands.shown(output) == [
        {"Id": "a.service", "Environment": "A=1 B=2"},
        {"Id": "b.service", "Job": ""},
    ]
    assert commands.shown("") == []


def test_docker_is_asked_for_what_it_has() -> None:
    requests = []

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        requests.append(" ".join(argv))
        return 1, "sha256:1\n", "No such image: b"

    assert commands.inspected(run, "/bin/docker", "image", "{{.Id}}", "a", "b") == "sha256:1"
    assert requests == ["/bin/docker image inspect --format={{.Id}} a b"]


def test_a_command_that_hangs_is_killed() -> None:
    done = subprocess.run(commands.within(0.1, "sleep", "60"), check=False)
    assert done.returncode in commands.TIMED_OUT


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("gpu-1", "gpu-1")])
def test_an_address_before_a_port(host: str, shown: str) -> None:
    assert node_network.bracketed(host) == shown
