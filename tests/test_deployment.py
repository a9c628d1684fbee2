"""The cluster's job script and the container file, as far as they can be run without either."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from emolib.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "docs/cluster/emolib.slurm"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

EMOLIB = """\
#!/bin/bash
echo "emolib $*" >> calls
[ "$1" != doctor ] || exit "${DOCTOR:-0}"
[ -z "${SIGNAL:-}" ] || kill -USR1 "$(cat job.pid)"
exit "${RUN:-0}"
"""
PROGRAMS = {
    ".venv/bin/emolib": EMOLIB,
    "bin/srun": '#!/bin/bash\necho "srun $1" >> calls\nshift\nexec "$@"\n',
    "bin/scontrol": '#!/bin/bash\necho "scontrol $*" >> calls\nexit "${SCONTROL:-0}"\n',
}


@pytest.fixture
def submit(tmp_path):
    """Runs the job script beside stand-ins of Slurm and emolib; gives its code and their calls."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(*args: str, **environment: str) -> tuple[int, list[str]]:
        slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
        path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
        # the shell that becomes the job leaves its number, to which Slurm would send the signal
        done = subprocess.run(
            ["bash", "-c", 'echo $$ > job.pid; exec bash "$0" "$@"', str(JOB), *args],
            env={"PATH": path, **slurm, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return run


def test_the_job_checks_the_profile_and_runs_it(submit):
    code, calls = submit("paper", "--from", "03")
    assert code == 0
    assert calls == [
        "emolib doctor paper",
        "srun --cpus-per-task=3",
        "emolib run paper --from 03",
    ]


def test_what_is_missing_stops_the_job_before_the_run(submit):
    assert submit(DOCTOR="1") == (1, ["emolib doctor h200"])
    code, calls = submit(DOCTOR="1", CHECK="0")
    assert code == 0
    assert calls[-1] == "emolib run h200"


def test_the_run_decides_the_jobs_exit_code(submit):
    assert submit(RUN="4")[0] == 4


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_the_job_is_requeued_before_its_time_is_up(submit, allowed):
    code, calls = submit(SIGNAL="1", RUN="5", SCONTROL=allowed)
    assert calls[-1] == "scontrol requeue 7"
    assert code == 5, "the run was waited for"


def test_files_name_commands_and_profiles_that_exist():
    text = JOB.read_text(encoding="utf-8") + DOCKERFILE
    commands = re.findall(
        r'(?:"\$emolib"|^#\s+emolib|ENTRYPOINT.*emolib) (\w+)', text, re.MULTILINE
    )
    assert {"doctor", "run"} <= set(commands) <= set(COMMANDS)
    profiles = re.findall(r"emolib\.slurm (\w+)|emolib run (\w+)|profile=\"\$\{1:-(\w+)\}", text)
    named = {name for found in profiles for name in found if name}
    assert {"h200", "paper"} <= named
    assert all((ROOT / "params" / name).is_dir() for name in named)


def test_the_container_installs_what_the_project_declares():
    [version] = re.findall(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")
    [extras] = re.findall(r"-e '\.\[(.*?)\]' -c constraints\.txt", DOCKERFILE)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    [entry] = re.findall(r'ENTRYPOINT \["(\w+)"\]', DOCKERFILE)
    assert entry in PROJECT["scripts"]


def test_weights_and_data_stay_out_of_the_image():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"data", "weights", "outputs/*", ".git"} <= set(ignored)
