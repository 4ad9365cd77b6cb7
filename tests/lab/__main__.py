# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: fresh nodes and the servers they talk to, on this machine. Every command is safe to repeat."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import answers
import engine
import nodes
import servers
from shell import CACHE, LabError, say


@contextmanager
def alone() -> Iterator[None]:
    """One at a time: of two that build and push the same image, one takes it from under the other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command of the lab is at work; waiting for it …")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def up(args: argparse.Namespace) -> None:
    with alone():
        engine.ensure()
        servers.up()
    say("the lab is up; `tests/lab/lab node NAME` makes a fresh node")


def node(args: argparse.Namespace) -> None:
    with alone():
        nodes.create(args.name, args.platform, args.board)


def fit(args: argparse.Namespace) -> None:
    nodes.fit_board(args.name, args.board)


def remove(args: argparse.Namespace) -> None:
    for name in args.names or nodes.names():
        nodes.remove(name)


def reboot(args: argparse.Namespace) -> None:
    nodes.reboot(args.name)


def ssh(args: argparse.Namespace) -> None:
    command = nodes.ssh_command(args.name) + args.command
    os.execvp(command[0], command)


def ask(args: argparse.Namespace) -> None:
    replies = answers.ask(answers.over_ssh(nodes.ssh_command(args.name)), args.questions or answers.ANSWERS)
    for question, answer in replies.items():
        print(f"  you:  {question}\n  tiny: {answer}")
    for question, answer in answers.wrong(replies).items():
        raise LabError(
            f"{question!r} should be answered {answers.ANSWERS[question]!r}, not {answer!r}: "
            "the weights, the tokenizer or the chat template are not those of the hub"
        )


def inventory(args: argparse.Namespace) -> None:
    print(nodes.inventory())


def down(args: argparse.Namespace) -> None:
    if not engine.succeeds("docker", "info"):
        say("no Docker runs, so neither does the lab")
        return
    with alone():
        for name in nodes.names():
            nodes.remove(name)
        servers.down()
        if args.purge:
            servers.purge()
        engine.stop_if_ours()
    say("the lab is down" + ("" if args.purge else "; what it built is kept (`down --purge` drops it)"))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tests/lab/lab", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(run, text: str, name: str | None = None) -> argparse.ArgumentParser:
        made = commands.add_parser(name or run.__name__, help=text, description=text)
        made.set_defaults(run=run)
        return made

    command(up, "bring up Docker where none runs, and the lab's servers")
    fresh = command(node, "make a fresh node")
    fresh.add_argument("name")
    fresh.add_argument("--platform", default="debian12", choices=sorted(nodes.PLATFORMS))
    fresh.add_argument(
        "--board",
        help="GPUs that the stand-in nvidia-smi shows: a file of tests/fixtures/nvidia_smi "
        "without .xml; none without it",
    )
    other = command(fit, "put other GPUs into a node")
    other.add_argument("name")
    other.add_argument("board")
    command(remove, "end nodes, all of them where none is named", "remove").add_argument("names", nargs="*")
    command(reboot, "restart a node").add_argument("name")
    into = command(ssh, "open a shell on a node, or run a command there")
    into.add_argument("name")
    into.add_argument("command", nargs=argparse.REMAINDER)
    question = command(ask, "ask a node's tiny model, and fail where it answers otherwise than it was trained to")
    question.add_argument("name")
    question.add_argument("questions", nargs="*", help="without any, all that it was trained to answer")
    listing = command(inventory, "print the running nodes as ansible's JSON inventory")
    listing.add_argument("--list", action="store_true", help="what ansible passes; nothing else is printed anyway")
    command(down, "end the nodes, the servers and the Docker that `up` started").add_argument(
        "--purge", action="store_true", help="and drop what was built"
    )
    return top


if __name__ == "__main__":
    try:
        asked = parser().parse_args()
        asked.run(asked)
    except LabError as error:
        sys.exit(f"lab: {error}")
