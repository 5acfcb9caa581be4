"""Orbax checkpoints of a TrainState: asynchronous, atomic, restored onto any mesh."""

import contextlib
import dataclasses
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from dav.errors import DavError

KEEP = 2


def latest_step(folder):
    """The newest finished checkpoint's step, or None. Reads names only."""
    with contextlib.suppress(FileNotFoundError):
        steps = [int(p.name) for p in Path(folder).iterdir() if p.name.isdigit()]
        return max(steps, default=None)


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving waits for the last save."""

    def __init__(self, folder):
        policy = ocp.training.preservation_policies.LatestN(KEEP)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._checkpointer = ocp.training.Checkpointer(
            Path(folder).absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policy,
            cleanup_tmp_directories=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._checkpointer.close()

    def save(self, step, state):
        """Starts to save; returns once the state may be overwritten."""
        self._checkpointer.save_async(step, _as_dict(state))

    def restore(self, step, abstract):
        """The state saved at `step`, shaped and placed as `abstract` (ShapeDtypeStructs)."""
        with _damage_named(self._checkpointer.directory / str(step)):
            loaded = self._checkpointer.load(step, _as_dict(abstract))
        return dataclasses.replace(abstract, **loaded)


def restore_params(folder, abstract_params, *, average=False):
    """Only the parameters of the newest checkpoint in `folder`, or their running average, placed
    as `abstract_params`."""
    step = latest_step(folder)
    if step is None:
        raise DavError(f"there is no checkpoint in {folder}")
    context = ocp.Context()
    context.pytree_options.loading.partial_load = True
    with (
        context,
        ocp.training.Checkpointer(Path(folder).absolute()) as checkpointer,
        _damage_named(Path(folder) / str(step)),
    ):
        name = "ema" if average else "params"
        return checkpointer.load(step, {name: abstract_params})[name]


@contextlib.contextmanager
def _damage_named(path):
    try:
        yield
    except Exception as error:
        raise DavError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}); delete this folder "
            "and run the same command again: it continues from the one before"
        ) from error


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
