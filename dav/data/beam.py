"""Shards built by Apache Beam, on one machine or on a cluster.

A shard is one element, made by the same function as everywhere, so the result does not depend on
the runner. Raw and prepared folders must be reachable under the same paths from every worker.
"""

import threading
import traceback

from dav.data import shards
from dav.errors import ConfigError, DavError
from dav.files import write_whole

TELL_EVERY_S = 2.0


def run(work, tell, *, beam_options=()):
    """Builds the shards in one pipeline. `beam_options` are Beam's own, as on its command line;
    none: its runner for one machine."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ConfigError("--beam needs Apache Beam: pip install -e '.[beam]'") from None
    if not work:
        return
    for shard in work:
        _told(shard).unlink(missing_ok=True)
    with _watched(work, tell):
        try:
            with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
                _ = pipeline | beam.Create(work) | beam.Reshuffle() | beam.Map(build)
        except Exception as error:
            raise _explained(work, error) from error


def build(shard):
    """One element's work; what goes wrong is left beside the shard, since runners garble it."""
    try:
        shards.build(shard)
    except Exception as error:
        said = str(error) if isinstance(error, DavError) else traceback.format_exc()
        write_whole(_told(shard), said)
        raise
    _told(shard).unlink(missing_ok=True)


def _told(shard):
    return shard.part.with_suffix(".error")


def _explained(work, error):
    """A worker's own words, where it could leave them."""
    for shard in work:
        if _told(shard).exists():
            return DavError(_told(shard).read_text())
    return DavError(f"the Beam pipeline failed: {error}; what is finished is kept")


class _watched:
    """Tells of finished shards while the pipeline runs."""

    def __init__(self, work, tell):
        self._left, self._tell = work, tell
        self._items = self._images = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self._count()

    def _watch(self):
        while not self._stop.wait(TELL_EVERY_S):
            self._count()

    def _count(self):
        done = [shard for shard in self._left if shards.is_done(shard)]
        self._left = [shard for shard in self._left if shard not in done]
        self._items += sum(len(shard.items) for shard in done)
        self._images += sum(map(shards.image_count, done))
        self._tell(self._items, self._images)
