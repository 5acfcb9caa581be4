"""Where compiled programs are kept between processes."""

import contextlib
import functools
import os
import warnings
from pathlib import Path

from dav.errors import DavError
from dav.files import local_path


def default_folder():
    """$XDG_CACHE_HOME/dav/compiled, or ~/.cache/dav/compiled."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "dav/compiled"


def keep_programs(folder=None):
    """Lets jax keep every compiled program in a folder and find it there the next time.

    In its name ~ is the home folder. Without one, $JAX_COMPILATION_CACHE_DIR is left to jax, else
    `default_folder()` is taken. Raises DavError if the folder cannot be used; nothing but time is
    lost then.
    """
    import jax

    if folder is None and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = default_folder()
    if folder is not None:
        folder = local_path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            usable = os.access(folder, os.W_OK | os.X_OK)
        except (OSError, RuntimeError):
            usable = False
        if not usable:
            raise DavError(
                f"cannot keep compiled programs in {folder}, so every start compiles anew"
            )
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # The defaults keep only what took a second, which on CPU is not the greater part.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    _delete_unreadable()


@functools.cache  # once in a process
def _delete_unreadable():
    """Lets jax delete a program that it cannot read, as one that a kill cut off: it writes none
    where a file stands, and would compile it anew at every start."""
    import jax
    from jax._src import compilation_cache  # the only way to learn which file it was

    read = getattr(compilation_cache, "get_executable_and_time", None)
    if read is None:
        return

    @functools.wraps(read)
    def read_or_delete(key, *others, **named):
        try:
            return read(key, *others, **named)
        except Exception:
            if jax.process_index() == 0:  # which alone writes
                with contextlib.suppress(OSError):
                    (Path(jax.config.jax_compilation_cache_dir) / f"{key}-cache").unlink()
            raise

    compilation_cache.get_executable_and_time = read_or_delete
