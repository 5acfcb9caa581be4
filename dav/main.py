"""dav: trains Depth Anything.

    python -m dav.main --config=configs/student.py[:PRESET] [--workdir=DIR] [--job=JOB]
                       [--compilation_cache=DIR] [--config.KEY=VALUE ...]
                       [--topology=POD] [--mfu=SHARE]
                       [--coordinator=HOST:PORT --process_id=K --num_processes=N]

JOB is one of
    auto      print the plan, then run what is missing: data, teacher, labels, student, evaluation
    prepare   build the data sets            label      pseudo-labels by the trained teacher
    train     train the config's recipe      evaluate   figures and report
    plan      print the plan only, and what the training costs

WORKDIR is runs/RECIPE-PRESET by default. The same command again continues where it stopped.

    --compilation_cache=DIR  keeps compiled programs in DIR for the next start; `workdir`: in
                             WORKDIR/compiled

    --topology=v5e:16x16     the plan is for that TPU pod, and the training step is compiled for it,
                             without a TPU: does it fit, what is sent (v5p:4x4x4, v6e:8x8, …)
    --mfu=0.4                share of the devices' peak rate that the plan reckons with

On several hosts or GPUs the same command, of one stage, is started once for each process, on a
disk that all of them see (docs/scale.md). On Cloud TPU, GKE's TPU nodes and under Slurm's srun the
processes find each other; elsewhere each is told where process 0 is, its own number and how many
there are. --num_processes=1 alone: one process, whatever the environment says.

Exit codes: 0 done; 2 wrong usage or config, or an earlier stage is missing; 65 labelled, but for
images that cannot be read; 75 stopped on request, start again to continue; 1 anything else.
"""

import os
import signal
import sys

from dav.failure import INTERRUPTED, causes, explain, fail

NO_CONFIG = "--config=FILE is missing, for example --config=configs/student.py"
START_FLAGS = ("compilation_cache", "coordinator", "process_id", "num_processes")
PLAN_FLAGS = ("topology", "mfu")
JOBS = ("auto", "prepare", "train", "label", "evaluate", "plan")


def main(argv):
    """Runs one command; returns its exit code."""
    code = carry_out(argv, __doc__, lambda: run(*parse_all(argv)))
    from dav.runtime import processes

    processes.leave(code)
    return code


def carry_out(argv, usage, work, *, interrupted=INTERRUPTED, **hints):
    """Shows the usage if it is asked for, else does the work; returns the exit code.

    `interrupted` is said at Ctrl-C, SIGTERM and SIGHUP; `hints` are those of `explain`.
    """
    from dav.runtime import interrupts, streams

    for number in interrupts.asking():
        signal.signal(number, signal.default_int_handler)
    streams.prepare()
    try:
        if {"-h", "--help"} & set(argv[1:]) or len(argv) == 1:
            print(usage)
            return 0 if len(argv) > 1 else 2
        work()
        return 0
    except KeyboardInterrupt:
        return fail(interrupted, 75)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return explain(error, **hints)


def parse(argv):
    """Command line → config, work folder, job. Raises ConfigError for what makes no sense."""
    return parse_all(argv)[:3]


def parse_all(argv):
    """The same, and by name the flags of the start (where programs are kept, who else there is) and
    of the plan."""
    from absl import flags
    from ml_collections import config_flags

    from dav.errors import ConfigError

    if "--config=" in argv:  # as from a variable of the shell that is not set
        raise ConfigError(NO_CONFIG)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    flags.DEFINE_string("job", "auto", "", flag_values=values)
    define_start_flags(values)
    flags.DEFINE_string("topology", "", "", flag_values=values)
    flags.DEFINE_float("mfu", None, "", flag_values=values)
    try:
        rest = values(argv)[1:]
        config = values.config
        name = config and f"{config.recipe}-{config.preset}"  # reading it reports a bad file
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{describe(error)} (--help shows the usage)") from None
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r} (--help shows the usage)")
    if config is None:
        raise ConfigError(NO_CONFIG)
    if values.job not in JOBS:
        raise ConfigError(f"unknown --job={values.job}; known: {', '.join(JOBS)}")
    plan = values_of(PLAN_FLAGS, values)
    check_plan_flags(values.job, **plan)
    workdir = values.workdir or f"runs/{name}"
    return config, workdir, values.job, values_of(START_FLAGS, values), plan


def define_start_flags(values):
    """Adds START_FLAGS, the arguments of `begin`, to absl's FlagValues."""
    from absl import flags

    for flag in ("compilation_cache", "coordinator"):
        flags.DEFINE_string(flag, "", "", flag_values=values)
    for flag in ("process_id", "num_processes"):
        flags.DEFINE_integer(flag, None, "", flag_values=values)


def values_of(names, values):
    """{flag: what absl's FlagValues hold for it}."""
    return {name: values[name].value for name in names}


def check_plan_flags(job, topology, mfu):
    """Raises ConfigError where they make no sense."""
    from dav.errors import ConfigError

    if (topology or mfu is not None) and job != "plan":
        raise ConfigError("--topology and --mfu are for --job=plan")
    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigError(f"--mfu={mfu} must be above 0, up to 1")


def read_flags(values, argv):
    """Sets absl's FlagValues from a command line; returns the arguments that are no flags.

    Raises ConfigError for flags that there are not, or that cannot have such a value.
    """
    from absl import flags

    from dav.errors import ConfigError

    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise ConfigError(f"{describe(error)} (--help shows the usage)") from None


def read_only_flags(values, argv, *, required):
    """The same where nothing but flags makes sense, and the `required` ones must not be empty."""
    from dav.errors import ConfigError

    rest = read_flags(values, argv)
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r} (--help shows the usage)")
    for name in required:
        if not values[name].value:
            raise ConfigError(f"--{name} is missing (--help shows the usage)")


def run(config, workdir, job, start, planning):
    """Dispatches to a job; imports happen here, so that usage errors are quick."""
    quieten()
    if planning["topology"]:
        from dav.runtime import topology

        topology.prepare_environment()
    from dav.runtime.memory import keep_freed_memory

    keep_freed_memory()
    begin(workdir, **start)
    check_job(job)
    from dav import auto, evaluation_job, folders, label, plan, prepare, recipe, train

    recipe.check(config, makes_labels=job not in ("train", "evaluate"))
    jobs = {
        "auto": auto.auto,
        "prepare": prepare.prepare,
        "train": train.train,
        "label": label.label,
        "evaluate": evaluation_job.evaluate,
        "plan": lambda *args: plan.plan(*args, **planning),
    }
    jobs[job](config, folders.make_paths(config, workdir))


def begin(workdir, compilation_cache, **others):
    """What comes before any job: the other processes, and where compiled programs are kept."""
    from dav.runtime import processes

    processes.start(**others)
    if compilation_cache:
        from dav.runtime.compiled import keep_programs

        own = os.path.join(workdir, "compiled")
        keep_programs(own if compilation_cache == "workdir" else compilation_cache)


def check_job(job):
    """Raises ConfigError for a job that several processes cannot do together."""
    from dav.errors import ConfigError
    from dav.runtime import processes

    if processes.is_alone() or job not in ("auto", "prepare"):
        return
    raise ConfigError(
        "several processes work on one stage at a time: say --job=label, train or evaluate; data "
        "sets are prepared by one process alone, with --job=prepare --num_processes=1"
    )


def quieten():
    """The libraries' own start-up chatter hides what a user needs to read."""
    import logging

    from absl import logging as absl_logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("jax").setLevel(logging.ERROR)


def describe(error):
    """In one line, why a command line or config file could not be read."""
    root = list(causes(error))[-1]
    if isinstance(root, KeyError):
        hint = str(error).partition("Did you mean ")[2].partition(" instead")[0]
        return f"unknown config key {root}" + (f", did you mean {hint}?" if hint else "")
    if isinstance(error, OSError):
        return f"cannot read the config file: {str(root).split()[-1]}"
    said = error if str(error).isprintable() else root
    return (str(said) or type(said).__name__).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
