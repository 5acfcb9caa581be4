"""What starts dav on clusters does what it says: checked by the clusters' own schemas and linters,
and run on stubs of Slurm and of gcloud that really start the processes."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from dav import main as entry
from dav.runtime import processes

LAUNCH = ROOT / "launch"
KUBERNETES = "1.33"
JOBSETS = ("gke_train", "gke_train_gpu")
PAGE = (ROOT / "docs" / "scale.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.S)
SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
TRAIN = ["--config=configs/student.py", "--workdir=runs/x"]


def tool(name):
    """A linter of the `test` extra."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip(f"no {name}: pip install -e '.[test]'")
    return found


def load(name):
    """The last document of a manifest."""
    return load_all(name)[-1]


def load_all(name):
    return list(yaml.safe_load_all((LAUNCH / f"{name}.yaml").read_text()))


def jobs_of(document):
    """The batch/v1 jobs of a Job or JobSet."""
    if document["kind"] == "Job":
        return [document]
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    return [
        {**head, "metadata": {"name": job["name"]}, **job["template"]}
        for job in document["spec"]["replicatedJobs"]
    ]


def action_of(job, exit_code):
    """What Kubernetes does about a pod that ends so: the first rule that fits."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {})
        if exit_code in codes.get("values", ()):
            assert codes["operator"] == "In" and codes["containerName"] == "dav"
            return rule["action"]
    return "Count"


def command_of(job):
    """The container's command line, with Kubernetes' variables filled in."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    values = {"COORDINATOR": "dav-train-nodes-0-0.dav-train", "JOB_COMPLETION_INDEX": "3"}
    names = {"JOB_COMPLETION_INDEX", *(entry["name"] for entry in container.get("env", ()))}
    fill = {f"$({name})": values[name] for name in names if name in values}
    for argument in [*container["command"], *container["args"]]:
        for variable, value in fill.items():
            argument = argument.replace(variable, value)
        yield argument


@pytest.mark.parametrize("name", sorted(path.stem for path in LAUNCH.glob("*.yaml")))
def test_kubernetes_takes_the_manifests(name):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "tests" / "jobset_schema.json").read_text())
    for document in load_all(name):
        if document["kind"] == "JobSet":
            jsonschema.validate(document, schema)
        parts = jobs_of(document) if document["kind"] == "JobSet" else [document]
        for part in parts:
            kubernetes.validate(part, KUBERNETES, strict=True)


def test_the_schemas_would_notice_a_wrong_field():
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "tests" / "jobset_schema.json").read_text())
    document = load("gke_train")
    document["spec"]["failurePolicy"]["rules"][0]["action"] = "Fail"
    with pytest.raises(jsonschema.ValidationError, match="'Fail' is not one of"):
        jsonschema.validate(document, schema)
    [job] = jobs_of(load("gke_label"))
    job["spec"]["backoffPerIndex"] = 3
    with pytest.raises(jsonschema.ValidationError, match="backoffPerIndex"):
        kubernetes.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_restarts_on_all_but_a_wrong_command(name):
    document = load(name)
    [job] = jobs_of(document)
    assert {code: action_of(job, code) for code in (1, 2, 75, 137)} == {
        **{1: "Count", 75: "Count", 137: "Count"},
        2: "FailJob",
    }
    assert job["spec"]["backoffLimit"] == 0  # one pod ends, all start again
    policy = document["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 100
    [rule] = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_the_label_job_replaces_pods_but_for_a_wrong_command():
    [job] = jobs_of(load("gke_label"))
    actions = {code: action_of(job, code) for code in (1, 2, 65, 75, 137)}
    ends = {2: "FailJob", 65: "FailIndex"}  # the second lets the other pods come to their end
    assert actions == {1: "Count", **ends, 75: "Ignore", 137: "Count"}
    assert job["spec"]["backoffLimitPerIndex"] >= 10
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert {"action": "Ignore", "onPodConditions": [disrupted]} in rules


@pytest.mark.parametrize("name", [*JOBSETS, "gke_label"])
def test_the_commands_of_the_manifests_are_understood(name):
    [job] = jobs_of(load(name))
    python, option, module, *arguments = command_of(job)
    assert (python, option, module) == ("python", "-m", "dav.main")
    _, _, verb, start, _ = entry.parse_all(["dav", *arguments])
    assert verb == ("label" if name == "gke_label" else "train")
    start.pop("compilation_cache")
    found = processes.check_flags(*start.values())
    if name == "gke_train":
        assert found is None  # GKE tells the hosts of each other
    elif name == "gke_label":
        assert found == {}
    else:
        assert found["process_id"] == 3
        assert found["num_processes"] == job["spec"]["parallelism"] == job["spec"]["completions"]
        [pods] = load(name)["spec"]["replicatedJobs"]
        assert load(name)["spec"]["coordinator"]["replicatedJob"] == pods["name"]


def test_all_use_the_same_disk():
    disk, claim = load_all("gke_disk")
    assert claim["spec"]["volumeName"] == disk["metadata"]["name"]
    for name in (*JOBSETS, "gke_label"):
        [job] = jobs_of(load(name))
        claims = [
            v.get("persistentVolumeClaim") for v in job["spec"]["template"]["spec"]["volumes"]
        ]
        assert {"claimName": claim["metadata"]["name"]} in claims


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    done = subprocess.run([tool("shellcheck"), LAUNCH / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_nothing():
    command = [tool("hadolint"), "--no-color", LAUNCH / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_made_of_what_there_is():
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [name for verb, *names in instructions if verb == "COPY" for name in names[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored
    [command] = [json.loads(" ".join(rest)) for verb, *rest in instructions if verb == "CMD"]
    assert command[0] == "python" and importlib.util.find_spec(command[2])


def make_stub(folder, script, names):
    """Puts commands on a PATH of their own that are verbs of a stub."""
    for name in names:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {ROOT}/tests/{script} {name} "$@"\n')
        path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
    """slurm(options, script, arguments, **environment) → the running job."""
    make_stub(tmp_path, "stub_slurm.py", ("srun", "scontrol"))
    started = []

    def submit(options, script, arguments, **environ):
        sbatch = [sys.executable, ROOT / "tests" / "stub_slurm.py", "sbatch"]
        job = subprocess.Popen(
            [*sbatch, *options, LAUNCH / script, *arguments],
            cwd=ROOT,
            env={**os.environ, **environ, "STUB_SLURM": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(job)
        return job

    # jax makes its port of the job's number.
    (tmp_path / "job").write_text(str(high_port() - 61440))
    yield submit
    for job in started:
        assert job.poll() is not None, "a job is left running"


def high_port():
    """A free one of those that jax takes under Slurm."""
    for port in range(61440, 65536):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


PROGRAM = """#!/bin/bash
echo "$@" >> "$STUB_SLURM/started"
read -ra codes < <(sed -n "$((${SLURM_RESTART_COUNT:-0} + 1))p" "$STUB_SLURM/codes")
code=${codes[$SLURM_PROCID]}
[ "$code" = killed ] && kill -KILL $$
[ "$code" = waits ] && { trap 'exit 75' TERM; touch "$STUB_SLURM/waits$SLURM_PROCID"; }
while [ "$code" = waits ]; do sleep 0.05; done
exit "$code"
"""


def make_program(folder, codes):
    """A program in place of Python that ends each attempt as told: `CODE OF TASK 0 CODE OF TASK 1`;
    returns its path."""
    (folder / "codes").write_text("\n".join(codes) + "\n")
    (folder / "program").write_text(PROGRAM)
    (folder / "program").chmod(0o755)
    return str(folder / "program")


@pytest.mark.parametrize(
    ("codes", "attempts", "code"),
    [
        (["0 0"], 1, 0),
        (["75 75", "0 0"], 2, 0),
        (["1 killed", "1 1", "0 0"], 3, 0),  # a crash, and a host that is lost
        (["2 2", "0 0"], 1, 2),
        (["2 1", "0 0"], 1, 2),  # the others end as one has gone
    ],
)
def test_slurm_trains_again_on_all_but_a_wrong_command(slurm, tmp_path, codes, attempts, code):
    options = ["--nodes=1", "--ntasks-per-node=2"]
    program = make_program(tmp_path, codes)
    job = slurm(options, "slurm_train.sbatch", TRAIN, PYTHON=program)
    out, err = job.communicate(timeout=60)
    assert job.returncode == code, err
    started = (tmp_path / "started").read_text().splitlines()
    assert started == [f"-m dav.main --job=train {' '.join(TRAIN)}"] * 2 * attempts
    assert out.count("back into the queue") == attempts - 1


def test_slurm_s_time_limit_stops_all_processes_and_starts_them_again(slurm, tmp_path):
    program = make_program(tmp_path, ["waits waits", "0 0"])
    options = ["--nodes=1", "--ntasks-per-node=2"]
    job = slurm(options, "slurm_train.sbatch", TRAIN, PYTHON=program)
    while not all((tmp_path / f"waits{k}").exists() for k in (0, 1)):
        time.sleep(0.05)
    (tmp_path / "time_limit").touch()
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    assert "exit code 75): back into the queue" in out and out.endswith("done\n")


def test_a_label_task_is_alone_and_comes_back(slurm, tmp_path):
    program = make_program(tmp_path, ["75", "killed", "0"])
    job = slurm([], "slurm_label.sbatch", TRAIN, PYTHON=program)
    assert job.communicate(timeout=60)[0].count("back into the queue") == 2
    assert job.returncode == 0
    started = (tmp_path / "started").read_text().splitlines()
    assert started == [f"-m dav.main --job=label --num_processes=1 {' '.join(TRAIN)}"] * 3


def test_a_label_task_that_found_damaged_data_does_not_come_back(slurm, tmp_path):
    program = make_program(tmp_path, ["65", "0"])
    job = slurm([], "slurm_label.sbatch", TRAIN, PYTHON=program)
    assert "not started again" in job.communicate(timeout=60)[0] and job.returncode == 65
    assert len((tmp_path / "started").read_text().splitlines()) == 1


def test_slurm_s_processes_find_each_other(slurm, environment):
    quick = {**environment, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
    plan = ["--config=configs/student.py", "--job=plan"]  # the last --job counts
    job = slurm(["--nodes=1", "--ntasks-per-node=2"], "slurm_train.sbatch", plan, **quick)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert out.count("data 2 × fsdp 1 on 2 cpu device(s)") == 1 and out.endswith("done\n")


@pytest.mark.long
def test_slurm_s_processes_train_together(slurm, environment, sample_root, tmp_path):
    steps = ["--config.steps=2", "--config.log_every=1", "--config.batch.labelled=4"]
    small = ["--config.crop_px=(28, 28)", "--config.train_short_side_px=28"]
    arguments = ["--config=configs/teacher.py", f"--config.data.root={sample_root}", *steps, *small]
    quick = {**environment, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
    run = tmp_path / "run"
    options = ["--nodes=1", "--ntasks-per-node=2"]
    job = slurm(options, "slurm_train.sbatch", [*arguments, f"--workdir={run}"], **quick)
    out, err = job.communicate(timeout=600)
    assert job.returncode == 0, err
    assert out.count("teacher: 2 steps in") == 1 and (run / "checkpoints" / "2").is_dir()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def run_tpu_script(folder, codes, *command):
    """Runs launch/tpu_vm.sh on a stub whose two hosts end each attempt as told; returns its exit
    code, what it printed, and the gcloud verbs that it used."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    make_stub(bin_folder, "stub_gcloud.py", ("gcloud", "docker"))
    for name, does in (("sudo", '[ "$1" != docker ] || exec "$@"'), ("mountpoint", "exit 0")):
        (bin_folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin_folder / name).chmod(0o755)
    (folder / "codes").write_text("\n".join(codes))
    environ = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        [LAUNCH / "tpu_vm.sh", *command],
        env={**environ, "STUB_GCLOUD": str(folder), "POLL_S": "0.01"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    verbs = [line.split()[1] for line in (folder / "log").read_text().splitlines()]
    return done.returncode, done.stdout, verbs


def test_a_tpu_is_asked_for_used_and_asked_for_again_when_it_is_taken_away(tmp_path):
    command = ["python", "-m", "dav.main", "--job=train", "--config.data.labelled=('a b',)"]
    attempts = ["75 75", "1 137", "taken", "0 0"]
    code, said, verbs = run_tpu_script(tmp_path, attempts, *command)
    assert code == 0 and said.endswith("done\n")
    assert verbs.count("create") == 2 and verbs.count("delete") == 1
    assert said.count("starting again") == 2 and "no answer from TPU dav" in said
    assert (tmp_path / "host1" / "command").read_text().splitlines() == command
    assert run_tpu_script(tmp_path, [], "delete")[0] == 0 and not (tmp_path / "state").exists()


@pytest.mark.parametrize(("codes", "code"), [("2 1", 2), ("0 65", 65)])
def test_what_starting_again_would_not_mend_is_not_started_again_on_a_tpu(tmp_path, codes, code):
    found, said, verbs = run_tpu_script(tmp_path, [codes], "python", "-m", "dav.main", "--job=x")
    assert found == code and "not started again" in said and verbs.count("create") == 1


def test_a_tpu_is_kept_while_nobody_answers(tmp_path):
    make_tpu(tmp_path)
    (tmp_path / "unanswered").write_text("3")
    code, said, verbs = run_tpu_script(tmp_path, ["0 0"], "python", "-m", "dav.main")
    assert code == 0 and "UNKNOWN" in said and "create" not in verbs


@pytest.mark.parametrize(("trouble", "says"), [("denied", "no quota for that"), ("deaf", "")])
def test_a_tpu_that_is_not_given_or_does_not_listen_is_tried_again_but_not_for_ever(
    tmp_path, trouble, says
):
    (tmp_path / trouble).write_text("3")
    code, said, verbs = run_tpu_script(tmp_path, ["0 0"], "python", "-m", "dav.main")
    assert code == 0 and said.endswith("done\n") and says in said
    assert run_tpu_script(tmp_path, [], "delete")[0] == 0
    (tmp_path / trouble).write_text("1000")
    code, said, verbs = run_tpu_script(tmp_path, ["0 0"], "python", "-m", "dav.main")
    assert code == 1 and said.endswith("failed 10 times in a row: giving up\n")
    assert len(verbs) < 100


def test_a_host_without_a_container_is_not_done(tmp_path):
    attempts = ["0 none", "none none", "0 0"]
    code, said, _ = run_tpu_script(tmp_path, attempts, "python", "-m", "dav.main")
    assert code == 0 and said.endswith("done\n")
    assert "exit codes 0 none" in said and "nothing was started" in said


def test_another_command_is_not_taken_for_this_one(tmp_path):
    make_tpu(tmp_path, container="12345 running")
    code, said, _ = run_tpu_script(tmp_path, [], "python", "-m", "dav.main")
    assert code == 2 and "at work on another command" in said
    make_tpu(tmp_path, container="12345 0")
    assert run_tpu_script(tmp_path, ["0 0"], "python", "-m", "dav.main")[0] == 0
    assert (tmp_path / "host1" / "command").read_text() == "python\n-m\ndav.main"


def make_tpu(folder, container=""):
    """A TPU that is there already, with a container on each host."""
    (folder / "state").write_text("ACTIVE")
    for host in ("host0", "host1"):
        (folder / host).mkdir(exist_ok=True)
        if container:
            (folder / host / "container").write_text(container)


def test_the_tpu_script_without_a_command_shows_its_usage(tmp_path):
    done = subprocess.run([LAUNCH / "tpu_vm.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "launch/tpu_vm.sh python -m dav.main" in done.stdout


def commands_of_the_page():
    """Each command of docs/scale.md, as words; continued lines joined."""
    for block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def dav_arguments(words):
    """The arguments of dav.main in a command, whatever starts it; None where there are none."""
    if "dav.main" in words:
        return words[words.index("dav.main") + 1 :]
    scripts = [i for i, word in enumerate(words) if word.endswith(".sbatch")]
    return words[scripts[0] + 1 :] if scripts else None


def test_the_commands_of_the_guide_are_understood():
    parsed = [a for a in map(dav_arguments, commands_of_the_page()) if a is not None]
    assert len(parsed) >= 6
    for arguments in parsed:
        *_, start, _ = entry.parse_all(["dav", *arguments])
        start.pop("compilation_cache")
        processes.check_flags(*start.values())


def test_the_files_of_the_guide_are_there_and_its_shell_is_sound(tmp_path):
    named = set(re.findall(r"launch/[\w.]+", PAGE))
    assert named == {f"launch/{path.name}" for path in LAUNCH.iterdir()}
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
    script = tmp_path / "guide.sh"
    script.write_text("#!/bin/bash\n" + "\n".join(BLOCKS))
    done = subprocess.run([tool("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
