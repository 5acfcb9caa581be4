"""Whether processes that run for long keep what they should have given back.

    python benchmarks/soak.py [--minutes=30] [--warm_up_minutes=5] [--limit_mib_per_hour=32]
                              [--workdir=DIR] [--out=FILE]

Runs the student's recipe on the sample that comes with dav, six crops of 56×70 to a batch so that
steps are quick, by the real commands: `--job=train` in two processes on loopback, each with two
workers that make batches in shared memory, with checkpoints and pictures; and beside it, in one
process with one worker, `--job=label` over 120,000 images in shards of 64. The teacher is a network
of random weights. Once training has taken its first steps the clock starts, and after so many
minutes all are asked to stop by SIGTERM.

Meanwhile every process of theirs is looked at in /proc: twenty times a second its memory (what is
its own of RSS, anonymous and shared, for pages of mapped files come and go as the system has room),
every ten seconds PSS, where shared pages are divided, threads, open descriptors, mapped files,
nameless shared memory. A line through the least memory of every two minutes after the warm-up has a
slope in MiB per hour and a 95 % interval (soak_trend.py). A process is flat if the interval ends
below the limit, and grows if all of it lies above; where neither can be told, it is unclear, and so
is the whole. Once they have ended nothing of theirs may be there: processes, entries of /dev/shm
(semaphores too), files in their $TMPDIR, unfinished files in the work folders.

Prints a table, writes JSON; the exit code is 1 unless everything is flat and nothing is left.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import soak_data
import soak_processes
import soak_trend

ROOT = Path(__file__).parent.parent
SAMPLE_S, LOOK_S = 10.0, 0.05  # what is least lasts for less than a step
STOP_S = 180  # within which processes must end that were asked to
CHECKPOINT_EVERY, PICTURE_EVERY = 100, 50  # steps
TRAINERS = 2


def main():
    arguments = parse_arguments()
    with contextlib.ExitStack() as stack:
        folder = Path(arguments.workdir or stack.enter_context(tempfile.TemporaryDirectory()))
        soak_data.prepare(folder, ROOT)
        run = soak(folder, arguments)
    result = judge(run, arguments)
    show(result)
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["passed"] else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm_up_minutes", type=float, default=5)
    parser.add_argument("--limit_mib_per_hour", type=float, default=32)
    parser.add_argument("--workdir")
    parser.add_argument("--out", default=ROOT / "benchmarks" / "results" / "soak.json")
    return parser.parse_args()


def commands(folder):
    """The command lines of all processes by name."""
    train = [
        "--job=train",
        f"--workdir={folder / 'run'}",
        "--config.data.workers=2",
        f"--config.checkpoint_every={CHECKPOINT_EVERY}",
        f"--config.picture_every={PICTURE_EVERY}",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    label = [
        "--job=label",
        f"--workdir={folder / 'labelling'}",
        "--config.data.workers=1",
        f"--config.data.unlabelled=('{soak_data.MANY}',)",
        "--num_processes=1",
    ]
    processes = {
        f"train {i}": [*train, where, f"--process_id={i}", f"--num_processes={TRAINERS}"]
        for i in range(TRAINERS)
    }
    return processes | {"label": label}


def soak(folder, arguments):
    """Runs everything; returns the samples, what was done, and what was left."""
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(
                soak_data.dav(folder, ROOT, *options, environment=environment, log=name)
            )
            for name, options in commands(folder).items()
        }
        watcher = soak_processes.Watcher({p.pid: name for name, p in started.items()})
        while not soak_data.steps_done(folder):
            check_alive(folder, started)
            time.sleep(1)
        samples, memory, seconds = watch(watcher, 60 * arguments.minutes, folder, started)
        done = {"steps": soak_data.steps_done(folder), "labels": soak_data.labels_done(folder)}
        codes = stop(started)
    time.sleep(2)  # a resource tracker ends after its process
    shared, others = watcher.left_shared()
    return {
        "samples": samples,
        "memory": memory,
        "seconds": seconds,
        "done": done | {"checkpoints": done["steps"] // CHECKPOINT_EVERY},
        "exit_codes": codes,
        "left": {
            "processes": watcher.left(),
            "shared memory and semaphores": shared,
            "files in $TMPDIR": sorted(path.name for path in temporary.iterdir()),
            "unfinished files": soak_data.unfinished(folder),
        },
        "new in /dev/shm, of other programs": others,
    }


def watch(watcher, limit_s, folder, started):
    """For so long: all Samples, {role: [(second, MiB), …]}, and how long it was. What has been
    seen so far is in FOLDER/samples.jsonl meanwhile."""
    begin, next_sample, samples, memory = time.monotonic(), 0.0, [], {}
    with open(folder / "samples.jsonl", "w", buffering=1) as log:
        while (second := time.monotonic() - begin) < limit_s:
            if second >= next_sample:
                check_alive(folder, started)
                new = watcher.sample(second)
                samples += new
                next_sample = second + SAMPLE_S
                log.writelines(json.dumps(dataclasses.asdict(one)) + "\n" for one in new)
            now = watcher.own()
            for role, mib in now.items():
                memory.setdefault(role, []).append((second, mib))
            log.write(json.dumps({"second": second, "own_mib": now}) + "\n")
            time.sleep(LOOK_S)
    return samples, memory, second


def check_alive(folder, started):
    """Raises SystemExit if a process has ended, of which none should."""
    for name, process in started.items():
        if (code := process.poll()) is not None:
            raise SystemExit(f"{name} ended ({code}): {soak_data.log_of(folder, name)[-2000:]}")


def stop(started):
    """Asks all to stop, one of several that train; {name: exit code}."""
    for name in ("train 1", "label"):
        if started[name].poll() is None:
            started[name].send_signal(signal.SIGTERM)
    return {name: process.wait(STOP_S) for name, process in started.items()}


def judge(run, arguments):
    """The samples as a row for each process, and the verdict on the whole."""
    warm_up_s = 60 * arguments.warm_up_minutes
    samples, memory = run.pop("samples"), run.pop("memory")
    hours = run["seconds"] / soak_trend.HOUR_S
    rows = [
        row(
            role,
            [one for one in memory[role] if one[0] >= warm_up_s],
            [one for one in samples if one.role == role and one.second >= warm_up_s],
            arguments.limit_mib_per_hour,
        )
        for role in sorted(memory)
    ]
    return run | {
        "limit_mib_per_hour": arguments.limit_mib_per_hour,
        "warm_up_s": warm_up_s,
        "steps_per_hour": run["done"]["steps"] / hours,
        "images_labelled_per_hour": run["done"]["labels"] / hours,
        "cores": len(os.sched_getaffinity(0)),
        "rows": rows,
        "passed": not any(run["left"].values())
        and all(code in (0, 75) for code in run["exit_codes"].values())
        and all(row["verdict"] == soak_trend.FLAT for row in rows),
    }


def row(role, memory, samples, limit):
    """What is told of one process."""
    own = soak_trend.fit(*zip(*memory, strict=True))
    pss = soak_trend.fit(*zip(*((one.second, one.pss_mib) for one in samples), strict=True))
    counts = {
        name: [getattr(sample, name) for sample in samples]
        for name in ("threads", "files", "mapped", "memfds")
    }
    climbed = [name for name, values in counts.items() if soak_trend.has_climbed(values)]
    return {
        "process": role,
        "own_mib": own.figures(),
        "own_peak_mib": max(mib for _, mib in memory),
        "pss_mib": pss.figures(),
        "range": {name: [min(values), max(values)] for name, values in counts.items()},
        "verdict": ", ".join(f"{name} GROW" for name in climbed) or own.verdict(limit),
    }


def show(result):
    done = result["done"]
    print(
        f"{result['seconds'] / 60:.0f} min on {result['cores']} cores: {done['steps']} steps, "
        f"{done['checkpoints']} checkpoints, {done['labels']} images labelled"
    )
    print(
        f"{'process':26}{'own MiB':>8}{'MiB/h':>8}{'95 % of it':>16}{'PSS MiB/h':>11}"
        f"{'threads':>9}{'files':>8}{'mapped':>12}{'memfds':>8}  verdict"
    )
    for one in result["rows"]:
        own, ranges = one["own_mib"], [span(*pair) for pair in one["range"].values()]
        interval = f"{own['low']:+.1f} … {own['high']:+.1f}"
        print(
            f"{one['process']:26}{own['first']:8.0f}{own['slope']:+8.1f}{interval:>16}"
            f"{one['pss_mib']['slope']:+11.1f}{ranges[0]:>9}{ranges[1]:>8}{ranges[2]:>12}"
            f"{ranges[3]:>8}  {one['verdict']}"
        )
    print(f"limit {result['limit_mib_per_hour']:.0f} MiB/h; exit codes {result['exit_codes']}")
    for what, names in result["left"].items():
        print(f"left of {what}: {names or 'nothing'}")
    print("passed" if result["passed"] else "NOT passed", flush=True)


def span(low, high):
    return str(low) if low == high else f"{low}–{high}"


if __name__ == "__main__":
    sys.exit(main())
