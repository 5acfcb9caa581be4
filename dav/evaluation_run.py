"""Prepared data sets × models → results: what the evaluation's job and command have in common.

Finished sets are kept in DIR/sets, with the pictures of their page. A set is evaluated anew only if
its records, the images chosen of it, the weights or the protocol are others.
"""

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax

from dav import evaluation_data
from dav.errors import ConfigError, DavError
from dav.evaluation import engine, store
from dav.evaluation.engine import Model
from dav.evaluation.results import SetResult
from dav.files import write_whole
from dav.inference import make_depth_model
from dav.runtime import processes
from dav.runtime.gathering import gather
from dav.runtime.telemetry import Progress
from dav.weights.load import digest_of, load_weights, seen_size_px


@dataclass(frozen=True)
class Loaded:
    """A model with what identifies its weights."""

    model: Model
    sha256: str  # of parameters and architecture; "none" without
    size_px: int | None = None  # the short side that it sees; None: it never looks


def load(name, spec, options):
    """The model of a weights spec, ready to be asked."""
    weights = load_weights(spec)
    size_px = seen_size_px(weights) if options.size_px is None else options.size_px
    # One on each device of this process; those that are simulated on a CPU share its cores.
    devices = jax.local_devices()[: 1 if jax.default_backend() == "cpu" else None]
    models = [
        make_depth_model(
            jax.device_put(weights.params, device),
            weights.architecture,
            size_px=size_px,
            dtype=options.dtype,
            batch_size=options.batch_size,
        )
        for device in devices
    ]
    is_metric = models[0].is_metric
    how = options.align or ("none" if is_metric else "lstsq_disparity")
    if how == "none" and not is_metric:
        raise ConfigError(
            f"{spec} predicts disparity up to scale and shift, not metres; --align=none is for "
            "metric weights"
        )
    ask = functools.partial(ask_all, models)
    return Loaded(Model(name, ask, how, is_metric), digest_of(weights), size_px)


def ask_all(models, items):
    """(key, image) dealt to several DepthModels of the same weights, which work at the same time;
    yields (key, map)."""
    if len(models) == 1:
        yield from models[0].predict_each(items)
        return
    dealt = [[] for _ in models]
    for index, item in enumerate(items):
        dealt[index % len(models)].append(item)
    with ThreadPoolExecutor(len(models)) as pool:
        for maps in pool.map(lambda m, i: list(m.predict_each(i)), models, dealt):
            yield from maps


def run(root_of, names, loaded, options, out, stop=False):
    """The SetResults of the data sets `names`, in order; root_of(name) is where one stands.

    In every process the same; process 0 keeps them below `out`. Interrupted once `stop` is true.
    """
    try:
        return [find_result(root_of(name), name, loaded, options, out, stop) for name in names]
    except Exception as error:
        if processes.has_lost_another(error):  # which may have heeded the same request before
            heed(stop)
        raise


def find_result(root, name, loaded, options, out, stop):
    """The SetResult of one data set: the stored one, or a new one, then stored."""
    heed(stop)
    chosen = evaluation_data.choose(root, name, loaded, options)
    path = Path(out) / "sets" / f"{name.replace('/', '_')}-{chosen.split}.msgpack"
    result = stored(path, chosen.key)
    if result is None:
        result = evaluate_set(chosen, loaded, stop)
        if jax.process_index() == 0:
            write_whole(path, store.pack(result, chosen.key))
    return result


def stored(path, key):
    """The result that stands in a file, if process 0 finds it there and made from the same."""
    result = None
    if jax.process_index() == 0 and path.exists():
        try:
            result = store.unpack(path.read_bytes(), key)
        except DavError as error:
            print(f"{path}: {error}; evaluating again", flush=True)
    return gather(result)[0]


def heed(stop):
    """Interrupts if somebody has asked to stop."""
    if stop:
        raise KeyboardInterrupt


def evaluate_set(chosen, loaded, stop=False):
    """Every model's look at one data set, by all processes together."""
    models = [one.model for one in loaded]
    count = len(chosen.indices)
    with Progress(f"evaluation on {chosen.name}", 0, plain_every=1e9) as progress:
        part = engine.look(
            functools.partial(evaluation_data.read, chosen),
            count,
            models,
            chosen.rules,
            share=(jax.process_index(), jax.process_count()),
            tell=teller(progress, stop),
        )
    part = engine.merge(gather(part), models)
    skipped = tuple(part.skipped.values())
    if not part.scores:
        raise DavError(
            f"data set {chosen.name!r} has no image to evaluate on: all {count} are left out, the "
            f"first, {skipped[0][0]}: {skipped[0][1]}"
        )
    images = hashlib.sha256("\n".join(part.ids.values()).encode()).hexdigest()
    extremes = {
        name: {model: tuple(k for *_, k in kept) for model, kept in getattr(part, name).items()}
        for name in ("best", "worst")
    }
    return SetResult(
        data=chosen.name,
        split=chosen.split,
        protocol=chosen.protocol | {"images_sha256": images},
        images=len(part.scores),
        skipped=skipped,
        figures=engine.mean_figures(part, models),
        samples=tuple(part.samples.values()),
        **extremes,
    )


def teller(progress, stop):
    """Shows the progress of process 0, and heeds a request to stop between two maps."""

    def tell(done, total):
        heed(stop)
        progress.total = total
        if jax.process_index() == 0:
            progress.update(done, unit="maps")

    return tell
