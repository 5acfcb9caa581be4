"""The labelling job: the teacher looks once at every clean unlabelled image.

Label shards stand one for one with image shards. Any number of processes may do this job at the
same time, each with the devices of its own machine; they share nothing but the folder of labels. A
shard is claimed by one of them (runtime/claims.py) and put in place whole (data/label_shards.py),
so that processes may die and be started again at any time. Each ends when every shard is labelled.
"""

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from dav import folders, label_page, label_run, label_set, label_summary, recipe_data
from dav.data import label_shards, workers
from dav.errors import DamagedData, DavError, Stopped
from dav.files import write_json
from dav.label_teacher import make_teacher
from dav.runtime import disk, interrupts, memory, workdir
from dav.runtime.claims import Claims

SURVEY_S = 60.0  # between two looks at what other processes have finished
POLL_S = 5.0  # while all that is left is claimed by others


def label(config, paths):
    """Writes the missing label shards of every unlabelled set of the recipe.

    Raises Stopped when asked to stop, and DamagedData, after all the others are labelled, if this
    process has found image shards that cannot be read.
    """
    workdir.check_config(paths.workdir, folders.identity(config))
    if not folders.uses_labels(config):
        print(f"labels: the {config.recipe} uses no unlabelled images, nothing to do")
        return
    missing = missing_shards(config, paths, verify=config.label_verify)
    if not any(missing.values()):
        catch_up(config, paths)
        print("labels: every shard is labelled, nothing left to do")
        return
    teacher = make_teacher(config, paths)
    join_workdir(config, paths)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(interrupts.stop_request())
        sets = [label_set.open_set(config, paths, *entry, stack) for entry in missing.items()]
        images = count_missing(sets), sum(one.whole for one in sets)
        devices = {"devices": teacher.devices, "cost_per_hour": config.label_cost_per_hour}
        teller = stack.enter_context(label_summary.Teller(*images, **devices))
        pool = stack.enter_context(encoders(recipe_data.worker_processes(config)))
        with troubles_named():
            label_all(config, sets, teacher, teller, pool, stop)
        finish(config, paths, sets)
    tell_damage(sets)


def missing_shards(config, paths, *, verify=False):
    """Image shards without labels, by data set."""
    return {
        name: folders.missing_label_shards(config, paths, name, verify=verify)
        for name in config.data.unlabelled
    }


def join_workdir(config, paths):
    """Records whose work folder it is, without claiming it: processes label together."""
    paths.workdir.mkdir(parents=True, exist_ok=True)
    recorded = paths.workdir / "config.json"
    if not recorded.exists():
        own = paths.workdir / f"config.json.{os.uname().nodename}-{os.getpid()}"
        write_json(own, folders.identity(config))
        os.replace(own, recorded)


@contextlib.contextmanager
def encoders(processes):
    """A pool of so many processes that encode labels; for 0 None: threads do."""
    if not processes:
        yield None
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, workers.begin, (0, processes)) as pool:
        yield pool


@contextlib.contextmanager
def troubles_named():
    """Inside, memory that is too small is said in one sentence."""
    try:
        yield
    except BrokenProcessPool as error:
        raise DavError(
            "a process that encodes labels was killed, most likely for want of memory; start again "
            "with fewer (config.data.workers)"
        ) from error
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DavError(
            "the teacher does not fit into the device's memory; choose a smaller "
            "config.label_batch, images on each device"
        ) from error


def label_all(config, sets, teacher, teller, pool, stop):
    """Labels until nothing is missing, by whomever; waits for shards that others have claimed."""

    def check():
        if stop:
            raise Stopped("labels: stopped; finished shards are kept, the same command continues")

    def with_room(work, where):
        return disk.wait_for_space(
            work, where, limit_s=config.label_wait_s, tell=teller.note, stopping=lambda: bool(stop)
        )

    def write(shard):
        return with_room(
            lambda: label_set.write_shard(by_name[shard.name], shard, teacher), shard.path.name
        )

    by_name = {one.name: one for one in sets}
    ahead = {"ahead": 2 * recipe_data.worker_processes(config)} if pool else {}
    surveyed = time.monotonic()
    teller.update(count_missing(sets), 0)
    while any(one.missing for one in sets):
        claimed = 0
        shards = label_set.claim_shards(sets, check, with_room, teller.note)
        for _, images in label_run.run(teacher, shards, write, check=check, pool=pool, **ahead):
            claimed += 1
            memory.return_freed_pages()  # protobuf does so too, but only every 10,000 blocks
            if time.monotonic() - surveyed > SURVEY_S:
                label_set.survey(sets)
                surveyed = time.monotonic()
            teller.update(count_missing(sets), images)
        if not claimed and any(one.missing for one in sets):
            wait(min(POLL_S, config.label_lease_s / 10), check)
        label_set.survey(sets)
    teller.update(count_missing(sets), 0, last=True)


def count_missing(sets):
    """Images that nobody has labelled yet, those included that nobody can."""
    return sum(sum(list(one.missing.values())) + one.lost for one in sets)


def wait(seconds, check):
    """Sleeps, ready to be stopped."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        time.sleep(0.1)


def finish(config, paths, sets):
    """Once everything is there: the manifest in one file, and the page."""
    for one in sets:
        label_shards.merge(one.folder, me=one.claims.me)
    if sets[0].claims.take("page"):
        label_page.write(config, paths)


def catch_up(config, paths):
    """The same where whoever labelled was killed before he could do it; else nothing."""
    for name in config.data.unlabelled:
        folder = folders.label_folder(paths, name)
        if not label_shards.is_merged(folder):
            work = label_shards.work_folder(folder)
            with Claims(work, lease_s=config.label_lease_s) as claims:
                label_shards.merge(folder, me=claims.me)
    if not label_page.is_written(config, paths):
        join_workdir(config, paths)
        label_page.write(config, paths)


def tell_damage(sets):
    """Tells of image shards that could not be read; raises DamagedData for the first that this
    process has found itself.

    One that has found a damaged shard and is killed before it can say so is started again, and
    finds it again: what was listed before a process began is read once more.
    """
    damaged = {path: why for one in sets for path, why in one.damaged.items()}
    if not damaged:
        return
    shards = f"{len(damaged)} image shard{'s' * (len(damaged) != 1)} could not be read"
    found = [path for one in sets for path in one.found]
    if not found:
        print(f"labels: {shards}; the process that found this tells which")
        return
    raise DamagedData(
        f"{shards} and got no labels, all others did; the first is {found[0].name}: "
        f"{damaged[found[0]]}. Run --job=prepare, which rebuilds damaged shards, then --job=label "
        "again"
    )
