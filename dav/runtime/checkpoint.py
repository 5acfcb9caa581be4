"""Orbax checkpoints of a TrainState: asynchronous, atomic, checked, restored onto any mesh.

Orbax notices damage in its own tables, not in the numbers, so every checkpoint is sealed with
checksums once it is written, and counts as finished only then. CHECKPOINTS/STEP is a finished one,
STEP.unfinished one whose writing was cut off, STEP.damaged one that no longer agrees with its seal,
STEP.deleted one that is being deleted.
"""

import contextlib
import dataclasses
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import jax
from orbax.checkpoint import v1 as ocp

from dav.errors import DavError
from dav.runtime import seal
from dav.runtime.gathering import all_or_none, from_first, gather


def latest_step(folder):
    """The newest finished checkpoint's step, or None. Reads names only."""
    return max(_finished(folder), default=None)


class Checkpoints:
    """The checkpoints of one run, of all its processes. Use as a context manager: leaving waits for
    the last save.

    Opening checks the newest one, and sets it aside if it is damaged, until one is whole. Raises
    DavError if none of several is left.

    latest: the step of the newest whole checkpoint, or None.
    restored_s: how long checking and restoring has taken.
    """

    def __init__(self, folder, *, keep=2, keep_every=0):
        """Keeps the newest `keep`, and those of every `keep_every`-th step; the others are deleted
        once a newer one is finished."""
        self._folder = Path(folder).absolute()
        self._keep, self._keep_every = keep, keep_every
        begin = time.monotonic()
        from_first(lambda: _prepare(self._folder))
        self.latest = _find_whole(self._folder)
        self.restored_s = time.monotonic() - begin
        # Orbax would delete the oldest before the newest is sealed.
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.PreserveAll(),
            cleanup_tmp_directories=True,
        )
        self._saving = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        if kind is None:
            self._finish()
        elif jax.process_count() > 1:
            return  # another process may be gone: waiting for it would take minutes
        else:
            with contextlib.suppress(Exception):  # what ended the run is told, not what followed
                self._finish()
        self._checkpointer.close()

    def save(self, step, state):
        """Starts to save; returns once the state may be overwritten."""
        self._finish()
        written = self._checkpointer.save_async(step, _as_dict(state))
        self._saving = _in_background(lambda: self._complete(step, written))

    def _complete(self, step, written):
        written.result()
        if jax.process_index() == 0:
            seal.seal(self._folder / str(step))
            _delete_surplus(self._folder, self._keep, self._keep_every)

    def _finish(self):
        """Waits for the save under way, if there is one, in all processes."""
        saving, self._saving = self._saving, None
        if saving:
            all_or_none(saving.result)

    def restore(self, step, abstract):
        """The state saved at `step`, shaped and placed as `abstract` (ShapeDtypeStructs)."""
        begin = time.monotonic()
        with _unreadable_named(self._folder / str(step)):
            loaded = self._checkpointer.load(step, _as_dict(abstract))
        self.restored_s += time.monotonic() - begin
        return dataclasses.replace(abstract, **loaded)


def restore_params(folder, abstract_params, *, average=False):
    """Only the parameters of the newest checkpoint in `folder`, or their running average, placed
    as `abstract_params`. Raises DavError if it is damaged. Training may be going on there: a
    checkpoint that it replaces meanwhile is not missed, and nothing is moved."""
    folder = Path(folder).absolute()
    while (step := latest_step(folder)) is not None:
        try:
            return _load(folder, step, "ema" if average else "params", abstract_params)
        except DavError:
            if latest_step(folder) == step:
                raise
    raise DavError(f"there is no checkpoint in {folder}")


def _load(folder, step, name, abstract):
    path = folder / str(step)
    damage = seal.find_damage(path)
    if damage:
        raise DavError(
            f"{_tell(path, damage)}; move it to {step}.damaged, and run the same command again: it "
            "goes on from the one before"
        )
    context = ocp.Context()
    context.pytree_options.loading.partial_load = True
    with context, _unreadable_named(path):
        return ocp.load(path, {name: abstract})[name]


def _steps(folder):
    with contextlib.suppress(FileNotFoundError):
        return sorted(int(path.name) for path in Path(folder).iterdir() if path.name.isdigit())
    return []


def _finished(folder):
    return [step for step in _steps(folder) if seal.is_sealed(Path(folder) / str(step))]


def _delete_surplus(folder, keep, keep_every):
    """Deletes finished checkpoints, and what a kill left of it. Renamed first, since half of one
    would pass for a damaged one."""
    for step in _finished(folder)[:-keep]:
        if not keep_every or step % keep_every:
            (folder / str(step)).rename(folder / f"{step}.deleted")
    _remove(folder, "*.deleted")


def _remove(folder, pattern):
    for path in folder.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)


def _prepare(folder):
    """Makes the folder, and takes what was not finished out of the way of the next save."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in sorted(set(_steps(folder)) - set(_finished(folder))):
        _remove(folder, "*.unfinished")
        aside = folder / f"{step}.unfinished"
        (folder / str(step)).rename(aside)
        print(f"the checkpoint {folder / str(step)} was not finished: moved to {aside.name}")


def _find_whole(folder):
    """The step of the newest checkpoint that agrees with its seal, None if there never was one;
    newer ones are set aside. All processes share the reading."""
    share, shares = jax.process_index(), jax.process_count()
    while (step := from_first(lambda: latest_step(folder))) is not None:
        path = folder / str(step)
        found = gather(all_or_none(lambda path=path: seal.find_damage(path, share, shares)))
        damage = list(dict.fromkeys(line for lines in found for line in lines))
        if not damage:
            return step
        from_first(lambda step=step, damage=damage: print(_set_aside(folder, step, damage)))
    from_first(lambda: _refuse_damaged(folder))
    return None


def _set_aside(folder, step, damage):
    """Moves a damaged checkpoint out of the way; says so, and what is wrong with it."""
    path, number = folder / str(step), 1
    while (aside := folder / f"{step}.damaged{'' if number == 1 else f'-{number}'}").exists():
        number += 1
    said = _tell(path, damage)
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was quicker
        pass
    except OSError as error:
        raise DavError(
            f"{said} and cannot be moved away ({error.strerror}); do so, and start again"
        ) from error
    return f"{said}: moved to {aside.name}"


def _tell(path, damage):
    more = f" and {len(damage) - 1} more" if len(damage) > 1 else ""
    return f"the checkpoint {path} is damaged ({damage[0]}{more})"


def _refuse_damaged(folder):
    """Raises DavError if all that there was is damaged: training must not silently begin anew."""
    damaged = sorted(path.name for path in folder.glob("*.damaged*"))
    if damaged:
        raise DavError(
            f"no whole checkpoint is left in {folder}, only {', '.join(damaged)}; put a copy of "
            "one there under its number, or delete these, to train from the beginning"
        )


@contextlib.contextmanager
def _unreadable_named(path):
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of the devices, or of another process
        raise
    except Exception as error:
        raise DavError(
            f"the checkpoint {path} agrees with its checksums, but cannot be read "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}); was it "
            "written by another version, or with another config?"
        ) from error


def _in_background(work):
    """Runs work() in a thread that keeps no process alive; returns its Future."""
    future = Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _as_dict(state):
    """The fields that hold anything, by name."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if jax.tree.leaves(value)}


def abstract_like(shapes, shardings):
    """Shapes with placement, as restore wants them."""
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        shardings,
    )
