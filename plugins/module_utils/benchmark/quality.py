# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a model still answers as well: EleutherAI's lm-eval asks an endpoint fixed questions, greedily.

lm-eval runs in a container of the engine's image, which brings nothing but its Python: the packages lie in a folder of
their own on the node, installed once from a list with hashes. The node needs no Python packages, and the engine's are
neither used nor changed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..image import container
from ..node import commands, files as node_files
from ..node.commands import Runner

HOME = "/var/lib/gpunode/benchmark/quality"
TASK = "gsm8k_cot"
#: The last number of an answer, with commas and dollars removed: what models are asked to end with differs.
FILTER = "flexible-extract"
#: A candidate loses only where chance gives such a loss less often than this.
CHANCE = 0.05
#: The options of vLLM that change what is computed, and not only when and where.
CHANGES_NUMBERS = frozenset(
    {
        *("model", "revision", "dtype", "quantization", "quantization-config", "hf-overrides", "speculative-config"),
        *("kv-cache-dtype", "kv-cache-dtype-skip-layers", "mamba-cache-dtype", "mamba-ssm-cache-dtype"),
    }
)
_NAME = "gpunode-quality"
_PACKAGES, _QUESTIONS, _TASK_FILE, _ANSWERS = "/packages", "/questions.jsonl", "/task.yaml", "/answers"
_TARGET = re.compile(r"-?[$0-9.,]*[0-9][.]?")
_TELLING = re.compile(r"^(?:ERROR|docker): (.*)|API request failed! (.*)|Exception:(.*)")
_LONG = "maximum context length"
_RETRIES = re.compile(r"(, \(no outputs\))?[.,] retry\w*[.]*$", re.IGNORECASE)
#: How long pip may take, and lm-eval for each question, in seconds.
INSTALL_S, ANSWER_S = 1800, 60


class QualityError(Exception):
    """Quality could not be measured. The message is for the user."""


@dataclass(frozen=True)
class Harness:
    """Where lm-eval runs.

    ``requirements`` and ``questions``: files on the node, ``catalog/quality`` on the controller. ``shots``: how many
    solved examples precede each question; the task's 8 take about 1000 tokens of a model's context.
    """

    image: str
    requirements: str = f"{HOME}/requirements.txt"
    questions: str = f"{HOME}/questions.jsonl"
    home: str = HOME
    docker: str = "docker"
    shots: int = 8

    @property
    def packages(self) -> str:
        """The folder of the packages: another list or another image, which may have another Python, gets its own."""
        what = f"{node_files.text_of(self.requirements)}\n{self.image}"
        return os.path.join(self.home, f"packages-{hashlib.sha256(what.encode()).hexdigest()[:12]}")


@dataclass(frozen=True)
class Index:
    """Where pip finds packages: role huggingface's settings of the same names. Passwords stay in a file."""

    pip_index_url: str = ""
    pip_args: str = ""
    ca_path: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """``url`` without ``/v1``. ``env_file``: a file of root's with OPENAI_API_KEY; empty if there is no key."""

    url: str
    served: str
    env_file: str = ""
    concurrency: int = 32


@dataclass(frozen=True)
class Quality:
    """What a model answered. ``dataclasses.asdict`` is the form of a record; ``Quality(**kept)`` reads it back.

    ``score``: the share of right answers; ``stderr``: its standard error; ``answers`` and ``asked``: SHA-256 of all
    answers and of all prompts; ``right``: 1 or 0 for each question.
    """

    task: str
    questions: int
    score: float
    stderr: float
    answers: str
    asked: str
    right: str


def changes_numbers(before: Mapping[str, Any], after: Mapping[str, Any]) -> List[str]:
    """The options that differ and change what the model computes: quality is measured where there is one."""
    return sorted(name for name in CHANGES_NUMBERS if before.get(name) != after.get(name))


def check_questions(text: str, name: str) -> int:
    """The number of questions in a file of lines ``{"question": …, "answer": …}``; an answer ends with its number.

    Raises:
        QualityError: a line is something else, or there is none.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        try:
            row = json.loads(line)
            question, answer = row["question"], row["answer"]
            wrong = not question.strip() or not _TARGET.fullmatch(answer.split("####")[-1].strip())
        except (ValueError, LookupError, TypeError, AttributeError):
            wrong = True
        if wrong:
            want = '{"question": "…", "answer": "… #### 18"}, whose answer is or ends with a number after ####'
            raise QualityError(f"{name}, line {number}: want {want}.")
    if not lines:
        raise QualityError(f"{name} holds no question: want one JSON object with question and answer a line.")
    return len(lines)


def prepare(run: Runner, harness: Harness, index: Index, say: Callable[[str], None]) -> None:
    """Install lm-eval for this image unless it is there. A cut installation is begun anew, its downloads are kept.

    Raises:
        QualityError: the questions are none, or pip failed.
    """
    count = check_questions(node_files.text_of(harness.questions), harness.questions)
    if os.path.isdir(harness.packages):
        return
    say(f"Installs lm-eval for {count} questions in {harness.packages}: 0.5 GB, once for this image")
    partial = f"{harness.home}/partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial, mode=0o755)
    os.makedirs(f"{harness.home}/cache", mode=0o700, exist_ok=True)
    stop(run, harness)
    secrets = f"{harness.home}/pip.env"
    node_files.write(secrets, _pip_environment(index), 0o600)
    try:
        rc, out, err = run(commands.within(INSTALL_S, *_installing(harness, index, partial, secrets)))
    finally:
        os.remove(secrets)
    if rc != 0:
        raise QualityError(
            f"pip did not install lm-eval in a container of {harness.image}: {_why(out + err, rc)}. This node"
            " needs a package index (huggingface_pip_index_url), or the wheels of catalog/quality/requirements.txt in"
            " a folder (huggingface_pip_args: --no-index --find-links FOLDER)."
        )
    earlier = glob.glob(f"{glob.escape(harness.home)}/packages-*")
    os.rename(partial, harness.packages)
    for old in (f"{harness.home}/cache", *earlier):
        shutil.rmtree(old, ignore_errors=True)


def _pip_environment(index: Index) -> str:
    given = {"PIP_INDEX_URL": index.pip_index_url, "PIP_CERT": index.ca_path, **index.environment}
    return "".join(f"{name}={value}\n" for name, value in given.items() if value)


def _installing(harness: Harness, index: Index, partial: str, secrets: str) -> List[str]:
    arguments = shlex.split(index.pip_args)
    # Folders and certificates of the node are where the settings say, in the container too. Docker makes absent ones.
    paths = ["/etc/pip.conf", index.ca_path, *(word.split("=", 1)[-1] for word in arguments)]
    seen = [f"--volume={path}:{path}:ro" for path in paths if path.startswith("/") and os.path.exists(path)]
    mounts = [f"--volume={partial}:{_PACKAGES}", f"--volume={harness.home}/cache:/cache", *seen]
    mounts.append(f"--volume={harness.requirements}:/requirements.txt:ro")
    words = [
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--cache-dir=/cache"),
        # The list is complete, and wheels run no code when they are installed.
        *("--no-deps", "--only-binary=:all:", "--require-hashes", f"--target={_PACKAGES}"),
        *("--root-user-action=ignore", "--requirement=/requirements.txt", *arguments),
    ]
    # pip unpacks on the disk: /tmp is memory.
    options = [*mounts, f"--env-file={secrets}", "--env=TMPDIR=/cache"]
    return _docker(harness, [*options, *_python(harness, *words)])


def command(harness: Harness, endpoint: Endpoint, answers: str) -> List[str]:
    """The command that asks an endpoint all questions; it writes into the folder ``answers``."""
    # Completions and not chats: every model has them, and a chat's answer may be thoughts that end before its number.
    model = {
        "model": endpoint.served,
        "base_url": f"{endpoint.url}/v1/completions",
        # Else lm-eval would fetch the model's tokenizer.
        "tokenizer_backend": None,
        "tokenized_requests": False,
        "num_concurrent": endpoint.concurrency,
        "timeout": 600,
    }
    mounts = {harness.packages: f"{_PACKAGES}:ro", harness.questions: f"{_QUESTIONS}:ro"}
    mounts.update({f"{harness.home}/task.yaml": f"{_TASK_FILE}:ro", answers: _ANSWERS})
    options = [f"--volume={here}:{there}" for here, there in mounts.items()]
    options += [f"--env-file={endpoint.env_file}"] if endpoint.env_file else []
    options += [f"--env=PYTHONPATH={_PACKAGES}", "--env=HF_HOME=/tmp", "--env=HF_HUB_OFFLINE=1"]
    # -S: without the image's own packages, whose versions are other ones.
    words = ["-S", "-m", "lm_eval", "run", "--model=local-completions", f"--model_args={json.dumps(model)}"]
    words += [f"--tasks={_TASK_FILE}", f"--num_fewshot={harness.shots}", f"--output_path={_ANSWERS}", "--log_samples"]
    return _docker(harness, [*options, *_python(harness, *words)])


def _docker(harness: Harness, words: Sequence[str]) -> List[str]:
    return [
        *(harness.docker, "run", "--rm", "--init", "--pull=never", f"--name={_NAME}", "--network=host", "--read-only"),
        *("--tmpfs=/tmp", "--security-opt=no-new-privileges", "--cap-drop=ALL", "--log-driver=none"),
        *("--entrypoint=/bin/sh", *words),
    ]


def _python(harness: Harness, *words: str) -> List[str]:
    return [harness.image, "-c", container.PYTHON, "sh", *words]


def _task() -> str:
    """lm-eval's own task, with the questions of a file; JSON is YAML."""
    return json.dumps(
        {
            "include": f"{_PACKAGES}/lm_eval/tasks/gsm8k/gsm8k-cot.yaml",
            "task": TASK,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": _QUESTIONS}},
        }
    )


def measure(run: Runner, harness: Harness, endpoint: Endpoint, answers: str) -> Quality:
    """Ask an endpoint all questions. ``prepare`` was called before. What the folder ``answers`` holds is replaced.

    Raises:
        QualityError: lm-eval failed, as it does where a question stays without an answer.
    """
    count = check_questions(node_files.text_of(harness.questions), harness.questions)
    shutil.rmtree(answers, ignore_errors=True)
    os.makedirs(answers, mode=0o700)
    node_files.write_atomically(f"{harness.home}/task.yaml", _task())
    stop(run, harness)
    rc, out, err = run(commands.within(300 + ANSWER_S * count, *command(harness, endpoint, answers)))
    if rc != 0:
        why = _why(out + err, rc)
        remedy = " Fewer examples before each question are shorter: benchmark_quality_shots." if _LONG in why else ""
        raise QualityError(f"lm-eval did not ask {endpoint.served}: {why}.{remedy}")
    return read(answers)


def stop(run: Runner, harness: Harness) -> None:
    """Remove what a killed play left: a container goes on without the program that started it."""
    run([harness.docker, "rm", "--force", _NAME])
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{harness.home}/pip.env")


def _why(text: str, rc: int) -> str:
    """The first error that pip or lm-eval tells of, else the last line."""
    if rc in commands.TIMED_OUT:
        return "it took too long"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [found.group(found.lastindex or 0) for found in map(_TELLING.search, lines) if found]
    return _RETRIES.sub("", (told[:1] or lines[-1:] or ["it said nothing"])[0]).rstrip(".")[:500]


def read(answers: str) -> Quality:
    """What lm-eval left in a folder.

    Raises:
        QualityError: it left no answers.
    """
    files = sorted(glob.glob(f"{glob.escape(answers)}/**/samples_*.jsonl", recursive=True))
    lines = node_files.text_of(files[-1]).splitlines() if files else []
    rows: Dict[int, Any] = {row["doc_id"]: row for row in map(json.loads, lines) if row["filter"] == FILTER}
    if not rows:
        raise QualityError(f"lm-eval left no answers in {answers}.")
    ordered = [rows[number] for number in sorted(rows)]
    right = [int(row["exact_match"]) for row in ordered]
    score = sum(right) / len(right)
    return Quality(
        task=TASK,
        questions=len(right),
        score=score,
        stderr=math.sqrt(score * (1 - score) / max(len(right) - 1, 1)),
        answers=_digest([row["resps"] for row in ordered]),
        asked=_digest([(row["prompt_hash"], row["target_hash"]) for row in ordered]),
        right="".join(map(str, right)),
    )


def _digest(values: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(values).encode()).hexdigest()}"


def outside_noise(baseline: Quality, candidate: Quality) -> Optional[str]:
    """Why a candidate cannot win: it answers worse than the baseline, and not by chance. None if it may.

    Raises:
        ValueError: they were asked different questions.
    """
    if baseline.asked != candidate.asked:
        raise ValueError("the two were asked different questions, so their answers cannot be compared")
    pairs = list(zip(baseline.right, candidate.right))
    lost, won = pairs.count(("1", "0")), pairs.count(("0", "1"))
    # The exact test of McNemar, one-sided. Both had the same questions, so only those with another result tell: if both
    # are as good, each of them is lost or won by the toss of a coin. Two intervals would count the questions' own
    # spread twice, and see only twice the loss; tosses also cover what batches change in a greedy answer.
    tosses = lost + won
    chance = sum(math.comb(tosses, heads) for heads in range(lost, tosses + 1)) / 2**tosses
    if chance >= CHANCE:
        return None
    return (
        f"{candidate.right.count('1')} of {candidate.questions} answers are right, of the baseline's"
        f" {baseline.right.count('1')}: {lost} were lost and {won} won, which chance alone does in"
        f" {100 * chance:.2g} % of cases, and {100 * CHANCE:.0f} % is the limit"
    )
