"""Photographs → files: what dav.predict does once its command line is understood."""

import contextlib
import functools
import itertools
import os
import time
from dataclasses import dataclass

from dav import inputs, outputs
from dav.errors import DavError
from dav.files import write_whole
from dav.images import read_image, shown
from dav.main import quieten
from dav.runtime.memory import keep_freed_memory
from dav.runtime.telemetry import COMPILATION, Progress, format_duration
from dav.threads import in_threads

PLAIN_LINES = 20  # of progress, where there is no terminal


@dataclass(frozen=True)
class Job:
    """One image to do: where it is, what its results are called, and its stamp_of."""

    path: str
    name: str
    stamp: tuple | None


@dataclass
class Tally:
    """How far a run is."""

    made: int = 0
    skipped: int = 0
    network_s: float = 0.0
    compile_s: float = 0.0


def predict(options, stop=False):
    """Makes what is missing; returns the exit code, or is interrupted once `stop` is true."""
    started = time.monotonic()
    images = inputs.find_images(options.inputs, leave_out=outputs.ResultFinder())
    settings = outputs.settings_of(options)
    with outputs.claim(options.out):
        made = outputs.read_made(options.out, settings, overwrite=options.overwrite)
        jobs = missing_jobs(images, made, options)
        already = len(images) - len(jobs)
        if not jobs:
            print(f"{count_maps(already)} in {shown(options.out)} already, nothing left to do")
            return 0
        redone = {job.path for job in jobs} if options.overwrite else ()
        made = {n: one.void() if one.image in redone else one for n, one in made.items()}
        tally = run(jobs, settings, made, options, stop)
    print(summary(tally, already, time.monotonic() - started, options.out))
    return 1 if tally.skipped else 0


def summary(tally, already, seconds, out):
    """One line: what was made and what was not, and how fast."""
    left_out = [f"{tally.skipped} skipped"] * bool(tally.skipped)
    left_out += [f"{already} already done"] * bool(already)
    parts = [f"{count_maps(tally.made)} in {shown(out)}"]
    parts[0] += f" ({', '.join(left_out)})" * bool(left_out)
    parts.append(format_duration(seconds))
    if tally.made:
        rate = tally.made / max(tally.network_s - tally.compile_s, 1e-3)
        parts.append(f"{rate:.{1 if rate >= 1 else 2}f} images/s once compiled")
    return ", ".join(parts)


def count_maps(count):
    return f"{count} map" + "s" * (count != 1)


def missing_jobs(images, made, options):
    """The images whose results are not all there, under names that no other image has."""
    names = inputs.name_maps(images, {name: one.image for name, one in made.items()})
    if not options.overwrite:
        outputs.check_foreign(options.out, names.values(), options.save, made)
        names = {
            path: name
            for path, name in names.items()
            if not outputs.is_made(options.out, name, path, options.save, made)
        }
    return [Job(path, name, outputs.stamp_of(path)) for path, name in names.items()]


def run(jobs, settings, made, options, stop):
    """Reads, predicts and writes, all three at the same time; returns the tally."""
    tally = Tally()
    plain_every = max(1, len(jobs) // PLAIN_LINES)
    with Progress("depth", len(jobs), plain_every=plain_every, batch_s=0.5) as progress:

        def skip(error):
            tally.skipped += 1
            progress.note(f"skipped: {error}")
            progress.update(tally.made + tally.skipped)

        keep_freed_memory()
        read = functools.partial(read_job, wants_preview="side_by_side" in options.save)
        with in_threads(read, jobs) as reading:
            photos = readable(reading, skip, stop)
            first = next(photos, None)
            if first is None:
                return tally  # the weights are not needed
            model = load(options, progress, tally)
            since = time.monotonic()
            with outputs.recording(options.out, settings, made) as record, memory_errors(model):
                maps = model.predict_each(itertools.chain([first], photos))
                write = functools.partial(write_job, options, model.is_metric, record)
                with in_threads(write, maps) as writing:
                    for _, result in writing:
                        try:
                            result.result()
                        except DavError as error:
                            skip(error)
                        else:
                            tally.made += 1
                            progress.update(tally.made + tally.skipped)
                        if stop:
                            raise KeyboardInterrupt
            tally.network_s = time.monotonic() - since
    return tally


def read_job(job, *, wants_preview):
    """The image, and its preview or None; messages name the shorter form of the path."""
    image = read_image(min(job.path, os.path.relpath(job.path), key=len))
    return image, outputs.make_preview(image) if wants_preview else None


def readable(reading, skip, stop):
    """((job, preview), uint8 RGB) of the images that could be read, until asked to stop."""
    for job, result in reading:
        if stop:
            raise KeyboardInterrupt
        try:
            image, preview = result.result()
        except DavError as error:
            skip(error)
        else:
            yield (job, preview), image


def load(options, progress, tally):
    """The model; from here on, time spent compiling is told apart from the rest."""
    quieten()
    import jax

    import dav
    from dav.runtime.compiled import keep_programs

    if options.no_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        try:
            keep_programs(options.cache_dir)
        except DavError as error:
            progress.note(f"{error}; --cache_dir=DIR chooses another")
    model = dav.load(
        options.weights,
        size_px=options.size_px,
        dtype=options.dtype,
        batch_size=options.batch_size,
        aspect_buckets=options.aspect_buckets,
    )

    def leave_out(event, seconds, **_):
        if event == COMPILATION:
            tally.compile_s += seconds
            progress.leave_out(seconds)

    jax.monitoring.register_event_duration_secs_listener(leave_out)
    return model


@contextlib.contextmanager
def memory_errors(model):
    """Inside, a device out of memory is said in one sentence."""
    try:
        yield
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DavError(
            f"the network does not fit into memory at --size_px={model.size_px}; choose a "
            "smaller one, or --batch_size=1"
        ) from error


def write_job(options, is_metric, record, prediction):
    """Writes one image's results, then its line in the record."""
    (job, preview), values = prediction
    for kind in options.save:
        try:
            content = outputs.encode(
                kind, values, preview, is_metric=is_metric, colormap=options.colormap
            )
        except DavError as error:
            raise DavError(f"{shown(job.path)}: {error}") from None
        write_whole(outputs.result_path(options.out, job.name, kind), content)
    record(job.name, job.path, job.stamp, options.save)
