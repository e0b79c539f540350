"""The workflows on GitHub do what .ci/run does, by the same targets of the Makefile."""

import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKE = re.compile(r"^\s*make (\w+)", re.M)  # not the environment alone, `make .venv/ready`
TARGETS = set(re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[0].split())


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"].values()


def commands(path):
    return "\n".join(step.get("run", "") for job in jobs(path) for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_that_exist_with_few_rights(path):
    workflow = yaml.safe_load(path.read_text())
    assert set(MAKE.findall(commands(path))) <= TARGETS
    assert workflow["permissions"] == {"contents": "read"}
    for job in jobs(path):
        assert job["timeout-minutes"] <= 180 and job["runs-on"] == "ubuntu-latest"
        for action in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), action
    assert len(re.findall(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+\n", path.read_text())) == path.read_text().count("uses:")


def test_every_step_of_ci_runs_on_github_too():
    ours = set(MAKE.findall((ROOT / ".ci" / "run").read_text()))
    pushed = set(MAKE.findall(commands(ROOT / ".github" / "workflows" / "ci.yml")))
    # `coverage` runs the fast tests, the others are nightly; a slow test builds the docs
    assert ours - pushed == {"test", "cluster", "parity"} and pushed - ours == {"coverage", "docs"}
    assert "bash .ci/run" in commands(ROOT / ".github" / "workflows" / "nightly.yml")
    assert (ROOT / ".ci" / "package").stat().st_mode & stat.S_IXUSR


def test_every_python_that_is_promised_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = {word.split(" :: ")[-1] for word in project["classifiers"] if re.search(r":: 3\.\d+$", word)}
    matrices = [job.get("strategy", {}).get("matrix", {}) for job in jobs(ROOT / ".github" / "workflows" / "ci.yml")]
    assert promised == set().union(*(matrix.get("python", []) for matrix in matrices))
    assert f">={min(promised)}" == project["requires-python"]


def test_hooks_run_tools_of_the_lock():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    tools = {re.match(r"\.venv/bin/(\w+)", hook["entry"])[1] for hook in hooks}
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    lint = set(re.findall(r"^\t\.venv/bin/(\w+)", recipe, re.M))
    assert tools == lint == {"ruff", "typos", "pyright"}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    assert tools | {"pre-commit", "pytest-cov"} <= locked


def test_an_older_python_is_refused_before_anything_is_made(tmp_path):
    older = tmp_path / "python"
    older.write_text("#!/bin/sh\nexit 1\n")  # to every question, as to that for its version
    older.chmod(0o755)
    command = ["make", f"PYTHON={older}", str(tmp_path / "env" / "ready")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Python 3.11 or newer is needed: make PYTHON=" in done.stderr
    assert not (tmp_path / "env").exists()
