# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle is made, carried and opened; what was changed on the way is named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.bundle import (
    __main__ as bundle_main,
    contents as bundle_contents,
)
from ansible_collections.gpunode.llm.plugins.module_utils.bundle.contents import BundleError, Contents

SYSTEM = {"release": "Debian 12", "architecture": "x86_64"}
BLOB = b"weights" * 1000
NAMED = f"huggingface/hub/models--o--n/blobs/{hashlib.sha256(BLOB).hexdigest()}"
LINK = "huggingface/hub/models--o--n/snapshots/c/model.safetensors"
TARGET = f"../../blobs/{os.path.basename(NAMED)}"


@pytest.fixture
def bundle(tmp_path):
    """A folder with what a bundle holds, and what it does not."""
    folder = tmp_path / "made"
    for path, data in {
        NAMED: BLOB,
        "vars.yml": b"model: tiny\n",
        "apt/d.test/x.deb": b"deb",
        "huggingface/hub/.locks/x": b"",
        "huggingface/hub/models--o--n/blobs/x.incomplete": b"half",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / LINK).parent.mkdir(parents=True)
    (folder / LINK).symlink_to(TARGET)
    return folder


@pytest.fixture
def work(tmp_path):
    """Run the job; its error, or nothing, and whether it changed anything."""

    def run(state: str, path, tar="") -> tuple[str, bool]:
        job = tmp_path / "job"
        job.mkdir(exist_ok=True)
        given = {"state": state, "path": str(path), "tar": str(tar), "system": SYSTEM}
        (job / "job.json").write_text(json.dumps(given))
        bundle_main.main(str(job))
        status = json.loads((job / "status.json").read_text())
        return status["error"], status["changed"]

    return run


def test_it_is_made_once(bundle, work, tmp_path):
    tar = tmp_path / "made.tar"
    assert work("sealed", bundle, tar) == ("", True)
    contents = Contents.load((bundle / "manifest.json").read_text())
    assert {f.path for f in contents.files} == {NAMED, "vars.yml", "apt/d.test/x.deb"}
    assert contents.links == {LINK: TARGET}
    before = tar.read_bytes()
    assert work("sealed", bundle, tar) == ("", False)
    (bundle / "vars.yml").write_text("model: tony\n")  # as long as before
    assert work("sealed", bundle, tar) == ("", True)
    assert tar.read_bytes() != before


def test_folder_and_tar_are_opened(bundle, work, tmp_path):
    tar, there = tmp_path / "made.tar", tmp_path / "there"
    work("sealed", bundle, tar)
    assert work("opened", bundle) == ("", True)
    assert work("opened", there, tar) == ("", True)
    assert (there / LINK).read_bytes() == BLOB
    assert (there / "manifest.json").read_text() == (bundle / "manifest.json").read_text()


FILE = {"size": 1, "sha256": "0" * 64}


def flip(path) -> None:
    with open(path, "r+b") as stream:
        first = stream.read(1)
        stream.seek(0)
        stream.write(bytes([first[0] ^ 1]))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda b: flip(b / NAMED), f"{NAMED} differs from its SHA-256"),
        (lambda b: flip(b / "apt/d.test/x.deb"), "apt/d.test/x.deb differs from its SHA-256"),
        (lambda b: (b / "vars.yml").unlink(), "vars.yml is missing"),
        (lambda b: (b / "vars.yml").write_text("m"), "vars.yml has 1 bytes of 12"),
        (lambda b: ((b / LINK).unlink(), (b / LINK).write_bytes(BLOB)), f"{LINK} is not the original link"),
        (lambda b: (b / "apt" / "zz.json").write_text("{}"), "'apt/zz.json' is there but not in its manifest"),
        (lambda b: (b / "zz").symlink_to("/etc"), "'zz' is there but not in its manifest"),
        (lambda b: ((b / "vars.yml").unlink(), (b / "vars.yml").symlink_to("/etc/hostname")), "vars.yml is missing"),
        (lambda b: os.mkfifo(b / "pipe"), "neither a file nor a link"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json of the bundle is damaged"),
        (lambda b: (b / "manifest.json").write_text('{"schema": 9}'), "schema 9"),
    ],
)
def test_a_folder_that_was_changed(bundle, work, harm, message):
    work("sealed", bundle)
    harm(bundle)
    error, _changed = work("opened", bundle)
    assert message in error


@pytest.mark.parametrize("at", ["weights", "end"])
def test_a_tar_that_was_changed_leaves_nothing(bundle, work, tmp_path, at):
    tar, there = tmp_path / "made.tar", tmp_path / "there"
    work("sealed", bundle, tar)
    data = tar.read_bytes()
    tar.write_bytes(data.replace(b"weightsweights", b"weightsWeights", 1) if at == "weights" else data[:5000])
    error, _changed = work("opened", there, tar)
    assert f"The bundle {tar} is damaged: " in error
    assert NAMED in error or at == "end"
    assert not there.exists()
    assert not (tmp_path / "there.partial").exists()


@pytest.mark.parametrize(
    ("files", "links"),
    [
        ({"../x": FILE}, {}),
        ({"/etc/x": FILE}, {}),
        ({}, {"a": "../../etc"}),
        ({}, {"a": "/etc"}),
        ({}, {"../a": "b"}),
        ({"f": FILE}, {"/etc/cron.d/a": "f"}),
        # Two links that each stay inside by their text, and lead out together; and a file below.
        ({"sub/f": FILE}, {"sub/b": "..", "x": "sub/b/../.."}),
        ({"x/cron.d/evil": FILE, "f": FILE}, {"x": "f"}),
        ({"f": FILE}, {"x": "f", "x/y": "../f"}),
        ({"sub/f": FILE}, {"d": "sub"}),
        ({"f": FILE}, {"a": "b", "b": "f"}),
        ({"sub/f": FILE}, {"a": "sub/../sub/f"}),
        ({"f": FILE}, {"a": "./f"}),
        ({"f": FILE}, {"a": ""}),
        ({"f": FILE, "f/g": FILE}, {}),
        ({"manifest.json": FILE}, {}),
        ({"manifest.json/x": FILE}, {}),
        ({"n" * 300: FILE}, {}),
    ],
)
def test_nothing_leads_out(files, links):
    text = json.dumps({"format": 1, "system": SYSTEM, "files": files, "links": links})
    with pytest.raises(BundleError, match=r"is invalid|none of its files"):
        Contents.load(text)


def forged(tar, files, links, members) -> None:
    """A tar with this manifest and these members, whatever either says: no tool of ours would make it."""
    system = {key: SYSTEM[key] for key in SYSTEM}
    named = {path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()}
    text = json.dumps({"format": 1, "system": system, "files": named, "links": links}).encode()
    with tarfile.open(tar, "w") as stream:
        for name, kind, linkname, data in [("manifest.json", tarfile.REGTYPE, "", text), *members]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, linkname, len(data), 0o6777
            stream.addfile(member, io.BytesIO(data))


EVIL = b"* * * * * root id\n"


@pytest.mark.parametrize(
    ("files", "links", "members"),
    [
        # A link to a link, which together lead out, and a file that is written through both.
        (
            {"x/evil": EVIL, "sub/f": b""},
            {"sub/b": "..", "x": "sub/b/../.."},
            [
                ("sub/f", tarfile.REGTYPE, "", b""),
                ("sub/b", tarfile.SYMTYPE, "..", b""),
                ("x", tarfile.SYMTYPE, "sub/b/../..", b""),
                ("x/evil", tarfile.REGTYPE, "", EVIL),
            ],
        ),
        ({"evil": EVIL}, {}, [("evil", tarfile.LNKTYPE, "/etc/passwd", b"")]),
        ({"evil": b""}, {}, [("evil", tarfile.SYMTYPE, "/etc/passwd", b"")]),
        ({"evil": b""}, {}, [("evil", tarfile.CHRTYPE, "", b"")]),
        ({"evil": b""}, {}, [("evil", tarfile.FIFOTYPE, "", b"")]),
        ({"evil": EVIL}, {}, [("evil", tarfile.REGTYPE, "", EVIL), ("evil", tarfile.REGTYPE, "", EVIL)]),
        ({"a": EVIL}, {}, [("a", tarfile.REGTYPE, "", EVIL), ("../evil", tarfile.REGTYPE, "", EVIL)]),
        ({"a": EVIL}, {"l": "a"}, [("l", tarfile.SYMTYPE, "/etc", b""), ("a", tarfile.REGTYPE, "", EVIL)]),
    ],
)
def test_a_forged_tar_writes_nothing_anywhere(work, tmp_path, files, links, members):
    tar, there = tmp_path / "forged.tar", tmp_path / "below" / "there"
    there.parent.mkdir()
    forged(tar, files, links, members)
    error, _changed = work("opened", there, tar)
    assert error
    assert not list(tmp_path.rglob("evil"))
    assert not list(there.parent.iterdir())


def test_unpacked_files_get_no_special_permissions(work, tmp_path):
    tar, there = tmp_path / "forged.tar", tmp_path / "there"
    forged(tar, {"f": EVIL}, {"l": "f"}, [("l", tarfile.SYMTYPE, "f", b""), ("f", tarfile.REGTYPE, "", EVIL)])
    assert work("opened", there, tar) == ("", True)
    assert (there / "f").stat().st_mode & 0o7111 == 0
    assert (there / "l").read_bytes() == EVIL


def test_a_tar_of_more_than_its_manifest_is_not_begun(work, tmp_path):
    """A header of gigabytes would be held in memory before anybody asks what it is."""
    tar, there = tmp_path / "forged.tar", tmp_path / "there"
    forged(tar, {"f": EVIL}, {}, [("f", tarfile.REGTYPE, "", EVIL)])
    with open(tar, "ab") as stream:
        stream.truncate(1 << 30)
    assert "it holds more files than its manifest names" in work("opened", there, tar)[0]
    extended = tarfile.TarInfo("x")
    extended.type, extended.size = tarfile.XHDTYPE, 8**11 - 1
    tar.write_bytes(extended.tobuf(tarfile.USTAR_FORMAT) + b"0" * (1 << 20))
    assert "is not a bundle" in work("opened", there, tar)[0]


def test_invalid_numbers_in_a_header_are_refused_and_leave_nothing(work, tmp_path):
    """tarfile raises what its own error is not."""
    tar, there = tmp_path / "forged.tar", tmp_path / "below" / "there"
    there.parent.mkdir()
    forged(tar, {"f": EVIL}, {}, [])
    with tarfile.open(tar, "a", format=tarfile.PAX_FORMAT) as stream:
        member = tarfile.TarInfo("f")
        member.size = len(EVIL)
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2"}
        stream.addfile(member, io.BytesIO(EVIL))
    assert "is damaged" in work("opened", there, tar)[0]
    assert not list(there.parent.iterdir())


def test_a_manifest_that_is_too_deep_is_damaged():
    with pytest.raises(BundleError, match="is damaged"):
        Contents.load('{"format": 1, "files": ' + "[" * 100_000)


def test_it_is_not_unpacked_through_a_link(bundle, work, tmp_path):
    tar, elsewhere = tmp_path / "made.tar", tmp_path / "elsewhere"
    work("sealed", bundle, tar)
    elsewhere.mkdir()
    (tmp_path / "there.partial").symlink_to(elsewhere)
    error, _changed = work("opened", tmp_path / "there", tar)
    assert "there.partial" in error
    assert not list(elsewhere.iterdir())


def test_a_file_that_the_manifest_does_not_name(bundle, work, tmp_path):
    tar, there = tmp_path / "made.tar", tmp_path / "there"
    work("sealed", bundle, tar)
    with tarfile.open(tar, "a") as stream:
        stream.add(bundle / "vars.yml", "etc/more.yml")
    error, _changed = work("opened", there, tar)
    assert "'etc/more.yml' differs from the manifest" in error
    assert not there.exists()


def test_a_bundle_fits_the_disk_or_is_refused(bundle, work, tmp_path, monkeypatch):
    tar = tmp_path / "made.tar"
    work("sealed", bundle, tar)
    monkeypatch.setattr(bundle_contents.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    error, _changed = work("opened", tmp_path / "there", tar)
    assert "has 100 B free, but the bundle needs 7.0 kB" in error
