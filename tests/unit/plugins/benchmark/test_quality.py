# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quality: lm-eval in a container of the engine's image, what it leaves, and when a loss is no chance."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import quality
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.quality import (
    Endpoint,
    Harness,
    Index,
    Quality,
    QualityError,
)

CATALOG = Path(__file__).resolve().parents[4] / "catalog" / "quality"
QUESTION = json.dumps({"question": "How many?", "answer": "2 + 2 = 4\n#### 4"})
ENDPOINT = Endpoint("http://127.0.0.1:8000", "8b", "/run/gpunode/8b.env")


class Docker:
    """Stands for docker: keeps each command, and does what ``work`` says with the folders that a container has."""

    def __init__(self, work: Callable[[dict[str, str]], tuple[int, str, str]] = lambda _folders: (0, "", "")) -> None:
        self.work, self.commands = work, []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(list(argv))
        if "run" not in argv:
            return 1, "", "no such container"
        volumes = [word.split("=", 1)[1].split(":") for word in argv if word.startswith("--volume=")]
        return self.work({volume[1]: volume[0] for volume in volumes})

    @property
    def runs(self) -> list[list[str]]:
        return [argv for argv in self.commands if "run" in argv]


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    for name, text in (("requirements.txt", "lm-eval==0.4.13\n"), ("questions.jsonl", f"{QUESTION}\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    requirements, questions = (str(tmp_path / name) for name in ("requirements.txt", "questions.jsonl"))
    return Harness("vllm/vllm-openai:v0.33.0", requirements, questions, str(tmp_path / "home"))


def install(folders: dict[str, str]) -> tuple[int, str, str]:
    Path(folders["/packages"], "lm_eval").mkdir()
    return 0, "", ""


def answer(
    right: Sequence[int], said: str = " The answer is 4.", prompt: str = "p"
) -> Callable[[dict[str, str]], tuple[int, str, str]]:
    """Leaves samples in the form of lm-eval 0.4.13: each question once for each way of reading its answer."""

    def work(folders: dict[str, str]) -> tuple[int, str, str]:
        rows = [
            {
                "doc_id": number,
                "filter": name,
                "resps": [[said]],
                "exact_match": float(hit if name != "strict-match" else 0),
            }
            | {"prompt_hash": f"{prompt}{number}", "target_hash": f"t{number}"}
            for name in ("strict-match", "flexible-extract")
            for number, hit in reversed(list(enumerate(right)))
        ]
        folder = Path(folders["/answers"], "8b")
        folder.mkdir()
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "samples_gsm8k_cot_2026-11-26.jsonl").write_text(lines, encoding="utf-8")
        return 0, "", ""

    return work


def test_the_kept_questions_are_200_with_their_licence() -> None:
    kept = (CATALOG / "gsm8k-200.jsonl").read_text(encoding="utf-8")
    assert quality.check_questions(kept, "gsm8k-200.jsonl") == 200
    assert "MIT License" in (CATALOG / "LICENSE").read_text(encoding="utf-8")


def test_the_kept_packages_are_all_named_with_hashes() -> None:
    listed = (CATALOG / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    assert [line for line in listed if "==" not in line or "--hash=sha256:" not in line] == []
    (pinned,) = [line.split()[0] for line in listed if line.startswith("lm-eval==")]
    assert pinned.replace("lm-eval", "lm_eval[api]") in (CATALOG / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("answer", ["4", "so it is\n#### 4", "#### -1,000.50", "#### $30", "#### 4."])
def test_an_answer_is_or_ends_with_a_number(answer: str) -> None:
    text = f"\n{json.dumps({'question': 'How many?', 'answer': answer})}\n\n"
    assert quality.check_questions(text, "mine.jsonl") == 1


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        '["How many?", "4"]',
        '{"question": "How many?"}',
        '{"question": " ", "answer": "4"}',
        '{"question": "How many?", "answer": 4}',
        '{"question": "Where?", "answer": "Paris"}',
        '{"question": "How many?", "answer": "#### four"}',
    ],
)
def test_a_line_that_could_never_be_right_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(QualityError, match=r"^mine\.jsonl, line 2: want .*ends with a number"):
        quality.check_questions(f"{QUESTION}\n{line}\n", "mine.jsonl")


def test_a_file_without_questions_is_refused(harness: Harness) -> None:
    docker = Docker()
    with pytest.raises(QualityError, match="/absent holds no question"):
        quality.prepare(docker, replace(harness, questions="/absent"), Index(), print)
    assert docker.commands == []


def test_packages_are_installed_once_for_an_image(harness: Harness) -> None:
    docker, said = Docker(install), []
    for _time in range(2):
        quality.prepare(docker, harness, Index(), said.append)
    (argv,) = docker.runs
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps", "--cap-drop=ALL", "--pull=never"} <= set(argv)
    assert argv[:3] == ["timeout", "--kill-after=5", "1800"]
    assert os.listdir(harness.packages) == ["lm_eval"]
    assert len(said) == 1
    assert "1 questions" in said[0]


def test_another_image_or_another_list_takes_the_place_of_the_old_packages(harness: Harness) -> None:
    other = replace(harness, image="vllm/vllm-openai:v0.34.0")
    for one in (harness, other):
        quality.prepare(Docker(install), one, Index(), lambda _line: None)
    Path(harness.requirements).write_text("lm-eval==0.4.14\n", encoding="utf-8")
    quality.prepare(Docker(install), other, Index(), lambda _line: None)
    assert os.listdir(harness.home) == [os.path.basename(other.packages)]


def test_pip_is_told_where_packages_are_and_passwords_stay_in_a_file(harness: Harness, tmp_path: Path) -> None:
    wheels, authority = tmp_path / "wheels", tmp_path / "ca.pem"
    wheels.mkdir()
    authority.touch()
    index = Index(
        "https://me:secret@mirror/simple",
        f"--no-index --find-links={wheels} --find-links /absent",
        str(authority),
        {"HTTPS_PROXY": "http://me:other@proxy", "NO_PROXY": ""},
    )
    seen = {}

    def work(folders: dict[str, str]) -> tuple[int, str, str]:
        file = Path(harness.home, "pip.env")
        seen["text"], seen["mode"] = file.read_text(encoding="utf-8"), stat.S_IMODE(file.stat().st_mode)
        return install(folders)

    docker = Docker(work)
    quality.prepare(docker, harness, index, lambda _line: None)
    (argv,) = docker.runs
    assert {f"--volume={path}:{path}:ro" for path in (wheels, authority)} <= set(argv)
    assert not any(word.startswith("--volume=/absent") for word in argv)
    assert argv[-4:] == ["--no-index", f"--find-links={wheels}", "--find-links", "/absent"]
    assert f"--env-file={harness.home}/pip.env" in argv
    assert not any("secret" in word or "other" in word for word in argv)
    assert seen["mode"] == 0o600
    assert seen["text"].splitlines() == [
        "PIP_INDEX_URL=https://me:secret@mirror/simple",
        f"PIP_CERT={authority}",
        "HTTPS_PROXY=http://me:other@proxy",
    ]
    assert not os.path.exists(f"{harness.home}/pip.env")


def test_a_failed_installation_says_why_and_leaves_its_downloads(harness: Harness) -> None:
    def fail(folders: dict[str, str]) -> tuple[int, str, str]:
        Path(folders["/cache"], "wheel").touch()
        return 1, "", "WARNING: slow\nERROR: No matching distribution found for aiohttp==3.14.5\nERROR: more\n"

    before = replace(harness, image="vllm/vllm-openai:v0.32.0")
    quality.prepare(Docker(install), before, Index(), lambda _line: None)
    with pytest.raises(QualityError, match=r"No matching distribution found for aiohttp==3\.14\.5\. This node needs"):
        quality.prepare(Docker(fail), harness, Index(), lambda _line: None)
    assert os.path.exists(before.packages)
    assert not os.path.exists(harness.packages)
    assert not os.path.exists(f"{harness.home}/pip.env")
    assert os.listdir(f"{harness.home}/cache") == ["wheel"]
    quality.prepare(Docker(install), harness, Index(), lambda _line: None)
    assert os.listdir(harness.home) == [os.path.basename(harness.packages)]


def test_lm_eval_asks_the_endpoint_with_the_key_in_a_file(harness: Harness) -> None:
    argv = quality.command(harness, ENDPOINT, "/var/answers")
    assert argv[:3] == ["docker", "run", "--rm"]
    assert {"--env-file=/run/gpunode/8b.env", "--network=host", "--read-only", "--env=HF_HUB_OFFLINE=1"} <= set(argv)
    assert {f"--volume={harness.packages}:/packages:ro", "--volume=/var/answers:/answers"} <= set(argv)
    (given,) = [word.split("=", 1)[1] for word in argv if word.startswith("--model_args=")]
    model = json.loads(given)
    assert (model["model"], model["base_url"]) == ("8b", "http://127.0.0.1:8000/v1/completions")
    assert (model["tokenizer_backend"], model["tokenized_requests"], model["num_concurrent"]) == (None, False, 32)
    assert "--num_fewshot=8" in argv


def test_an_endpoint_without_a_key_has_no_file() -> None:
    argv = quality.command(Harness("image", shots=0), replace(ENDPOINT, env_file=""), "/var/answers")
    assert not any(word.startswith("--env-file") for word in argv)
    assert "--num_fewshot=0" in argv


def test_what_was_answered_is_counted_by_question(harness: Harness, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    (answers / "8b").mkdir(parents=True)
    (answers / "8b" / "samples_old.jsonl").write_text("of a candidate before\n", encoding="utf-8")
    docker = Docker(answer([1, 1, 1, 0]))
    found = quality.measure(docker, harness, ENDPOINT, str(answers))
    assert (found.task, found.questions, found.score, found.right) == ("gsm8k_cot", 4, 0.75, "1110")
    assert found.stderr == pytest.approx(0.25)
    assert [argv[:3] for argv in docker.commands] == [["docker", "rm", "--force"], ["timeout", "--kill-after=5", "360"]]
    assert docker.commands[1][3:] == quality.command(harness, ENDPOINT, str(answers))
    task = json.loads(Path(harness.home, "task.yaml").read_text(encoding="utf-8"))
    assert task["dataset_kwargs"] == {"data_files": {"test": "/questions.jsonl"}}
    assert Quality(**json.loads(json.dumps(asdict(found)))) == found


def test_other_words_are_other_answers_to_the_same_questions(harness: Harness, tmp_path: Path) -> None:
    one, same, other, asked = (
        quality.measure(Docker(answer([1, 0], *said)), harness, ENDPOINT, str(tmp_path / "answers"))
        for said in (["4"], ["4"], ["It is 4"], ["4", "with fewer examples"])
    )
    assert one == same
    assert (one.answers != other.answers, one.asked == other.asked) == (True, True)
    assert (one.answers == asked.answers, one.asked != asked.asked) == (True, True)


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (
            (
                1,
                "",
                "0%|  | 0/200 WARNING API request failed! Status code: 500, Response text: {}. Retrying...\nx\n",
            ),
            r"Status code: 500, Response text: {}\.$",
        ),
        (
            (1, "", "Exception:ClientConnectorError(111, 'refused'), (no outputs), retrying.\nConnector is closed.\n"),
            r"ClientConnectorError\(111, 'refused'\)\.$",
        ),
        (
            (1, "", "API request failed! This model's maximum context length is 2048 tokens. Retrying.\n"),
            r"2048 tokens\. Fewer .*: benchmark_quality_shots\.$",
        ),
        ((125, "", "docker: Error response: No such image: x.\nSee 'docker run --help'.\n"), r"such image: x\.$"),
        ((1, "", "first\nlast\n"), "last"),
        ((1, "", ""), "it said nothing"),
        ((124, "", "half"), "it took too long"),
    ],
)
def test_a_question_without_an_answer_is_no_measurement(
    harness: Harness, tmp_path: Path, outcome: tuple[int, str, str], why: str
) -> None:
    with pytest.raises(QualityError, match=f"^lm-eval did not ask 8b: .*{why}"):
        quality.measure(Docker(lambda _folders: outcome), harness, ENDPOINT, str(tmp_path / "answers"))


def test_no_answers_are_no_measurement(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(QualityError, match=r"left no answers in .*/answers\.$"):
        quality.measure(Docker(), harness, ENDPOINT, str(tmp_path / "answers"))


def test_what_a_killed_play_left_is_stopped_before_anything_new(harness: Harness) -> None:
    os.makedirs(harness.home)
    left = Path(harness.home, "pip.env")
    left.write_text("PIP_INDEX_URL=https://me:secret@mirror\n", encoding="utf-8")
    docker = Docker(install)
    quality.stop(docker, harness)
    assert docker.commands == [["docker", "rm", "--force", "gpunode-quality"]]
    assert not left.exists()
    quality.prepare(docker, harness, Index(), lambda _line: None)
    assert docker.commands[1:2] == docker.commands[:1]
    assert "--name=gpunode-quality" in docker.runs[0]


def of(right: str, asked: str = "sha256:1") -> Quality:
    return Quality("gsm8k_cot", len(right), right.count("1") / len(right), 0.0, "sha256:2", asked, right)


@pytest.mark.parametrize(
    ("lost", "won", "outside"),
    [
        (0, 0, False),
        (4, 0, False),  # 1 of 16
        (5, 0, True),  # 1 of 32
        (15, 5, True),
        (15, 10, False),
        (30, 40, False),
    ],
)
def test_a_loss_counts_where_chance_does_not_explain_it(lost: int, won: int, outside: bool) -> None:
    same = "1" * 70 + "0" * (130 - lost - won)
    before, after = of(same + "1" * lost + "0" * won), of(same + "0" * lost + "1" * won)
    assert (quality.outside_noise(before, after) is not None) is outside


def test_a_loss_is_told_with_its_numbers() -> None:
    assert quality.outside_noise(of("1" * 150 + "0" * 50), of("0" * 20 + "1" * 135 + "0" * 45)) == (
        "135 of 200 answers are right, of the baseline's 150: 20 were lost and 5 won, which chance alone does in 0.2 %"
        " of cases, and 5 % is the limit"
    )


def test_answers_to_other_questions_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different questions"):
        quality.outside_noise(of("1"), of("1", "sha256:other"))


def test_quality_is_asked_for_where_numbers_change() -> None:
    before = {"max-num-seqs": 256, "kv-cache-dtype": "auto"}
    assert quality.changes_numbers(before, {**before, "max-num-seqs": 1024, "api-server-count": 4}) == []
    after = {"max-num-seqs": 256, "kv-cache-dtype": "fp8", "speculative-config": {"model": "draft"}}
    assert quality.changes_numbers(before, after) == ["kv-cache-dtype", "speculative-config"]
