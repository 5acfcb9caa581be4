"""Where compiled programs are kept between processes."""

import os
import warnings
from pathlib import Path

from dav.errors import DavError


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
        folder = os.path.expanduser(folder)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
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
