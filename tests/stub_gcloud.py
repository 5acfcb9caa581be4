"""As much of gcloud and docker as launch/tpu_vm.sh needs, on this machine alone.

    python tests/stub_gcloud.py gcloud|docker ARGUMENT ...

STUB_GCLOUD holds its files: `log` of all gcloud commands, `state` of the queued resource, and a
folder for each of its two hosts. A container runs its command at once and to its end; the file
`codes` has its exit codes, attempt by attempt, as `HOST0 HOST1`; `taken` in place of a pair takes
the TPU away during that attempt; a host's `none` means that its container was not made. The files
`unanswered`, `denied` and `deaf` say how often describe fails, a TPU is not given, and ssh fails.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["STUB_GCLOUD"])
STATE = ROOT / "state"
HOSTS = ("host0", "host1")


def gcloud(arguments):
    """`compute tpus queued-resources …` and `compute tpus tpu-vm ssh …`."""
    with open(ROOT / "log", "a") as log:
        log.write(" ".join(arguments[2:4] + arguments[4:5]) + "\n")
    assert arguments[:2] == ["compute", "tpus"]
    assert {"--project=my-project", "--zone=us-west4-a"} <= set(arguments)
    return {"describe": describe, "create": create, "delete": delete, "ssh": ssh}[arguments[3]](
        arguments
    )


def times_left(name):
    """Whether this is one of the times that a file speaks of; counts it."""
    path = ROOT / name
    left = int(path.read_text()) if path.exists() else 0
    path.write_text(str(max(left - 1, 0)))
    return left > 0


def describe(arguments):
    """Prints the state, which moves on by itself, or why there is no TPU."""
    if "--format=value(state.failedData.error.message)" in arguments:
        print("no quota for that")
        return 0
    assert "--format=value(state.state)" in arguments
    if times_left("unanswered"):
        print("ERROR: There was a problem refreshing your current auth tokens", file=sys.stderr)
        return 1
    if not STATE.exists():
        print("ERROR: (gcloud…describe) NOT_FOUND: Resource was not found", file=sys.stderr)
        return 1
    now = STATE.read_text()
    print(now)
    follows = {"WAITING_FOR_RESOURCES": "PROVISIONING", "PROVISIONING": "ACTIVE"}
    STATE.write_text({**follows, "SUSPENDING": "SUSPENDED"}.get(now, now))
    return 0


def create(arguments):
    needed = ("--node-id", "--accelerator-type", "--runtime-version", "--scopes", "--spot")
    assert all(any(a.startswith(name) for a in arguments) for name in needed)
    if STATE.exists():
        print("ERROR: (gcloud…create) ALREADY_EXISTS", file=sys.stderr)
        return 1
    STATE.write_text("FAILED" if times_left("denied") else "WAITING_FOR_RESOURCES")
    for host in HOSTS:
        (ROOT / host).mkdir()
    return 0


def delete(arguments):
    assert {"--force", "--quiet"} <= set(arguments)
    STATE.unlink()
    for host in HOSTS:
        shutil.rmtree(ROOT / host)
    return 0


def ssh(arguments):
    """Runs the command on every host; its exit code says nothing of theirs."""
    assert "--worker=all" in arguments
    if STATE.read_text() != "ACTIVE" or times_left("deaf"):
        return 255
    command = next(a for a in arguments if a.startswith("--command=")).partition("=")[2]
    for host in HOSTS:
        subprocess.run(["bash", "-c", command], env={**os.environ, "STUB_HOST": host})
    return 0


def docker(arguments):
    """One container: `run` to its end, its exit code from the plan; inspect, logs, rm."""
    host = ROOT / os.environ["STUB_HOST"]
    container = host / "container"  # what its command is called, and its exit code
    if arguments[0] == "run":
        image = next(i for i, a in enumerate(arguments) if "pkg.dev" in a)
        needed = {"--privileged", "--net=host", "--detach", "--pull=always"}
        assert needed <= set(arguments[:image])
        [label] = [a for a in arguments[:image] if a.startswith("--label=command=")]
        (host / "command").write_text("\n".join(arguments[image + 1 :]))
        if (code := code_of_this_attempt(host)) != "none":
            container.write_text(f"{label.rpartition('=')[2]} {code}")
    elif not container.exists():
        return 1
    elif arguments[0] == "inspect":
        print(shown(arguments[arguments.index("--format") + 1], *container.read_text().split()))
    elif arguments[0] == "rm":
        container.unlink()
    return 0


def shown(form, label, code):
    """docker's template language, as far as it goes here."""
    form = form.replace("{{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}", code)
    form = form.replace("{{.State.Running}}", "true" if code == "running" else "false")
    form = form.replace("{{.Config.Labels.command}}", label)
    assert "{{" not in form
    return form


def code_of_this_attempt(host):
    """The next line of the plan; its last host takes it off."""
    plan = (ROOT / "codes").read_text().splitlines()
    if host.name == HOSTS[-1]:
        (ROOT / "codes").write_text("\n".join(plan[1:]))
        if plan[0] == "taken":
            STATE.write_text("SUSPENDING")
    return "running" if plan[0] == "taken" else plan[0].split()[HOSTS.index(host.name)]


if __name__ == "__main__":
    sys.exit({"gcloud": gcloud, "docker": docker}[sys.argv[1]](sys.argv[2:]))
