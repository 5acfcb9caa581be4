"""Where a run's figures and pictures go beside its own files: TensorBoard, Weights & Biases.

Both take the same three calls: write(step, kind, **figures), picture(step, image), close(failed).
A figure that is None has no value at that step and is left out.
"""

import secrets

from dav.errors import ConfigError, DavError
from dav.files import write_whole


class TensorBoard:
    """Event files in WORKDIR/tensorboard, written without TensorFlow."""

    def __init__(self, workdir, *, from_step=0):
        """Events of later steps than `from_step`, left by a run that was killed, are purged: a
        resumed run shows every step once. Raises ConfigError without the extra."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "config.tensorboard=True needs pip install -e '.[tensorboard]'"
            ) from None
        # The suffix keeps two starts within one second from writing to one file.
        self._writer = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=from_step + 1, filename_suffix=f".{from_step}"
        )

    def write(self, step, kind, **figures):
        """One scalar a figure, under kind/name. They are on disk when this returns, so that
        nothing before a checkpoint is missing after a kill."""
        for name, value in _known(figures).items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def picture(self, step, image):
        """Adds uint8 RGB [H, W, 3]."""
        self._writer.add_image("picture", image, step, dataformats="HWC")

    def close(self, failed=False):
        self._writer.close()


class WeightsAndBiases:
    """One run of a project of Weights & Biases, the same however often the job is resumed.

    Its id is kept in WORKDIR/wandb_id. Where and whether anything is sent is wandb's own business:
    WANDB_MODE=offline keeps it below WORKDIR/wandb, for `wandb sync`.
    """

    def __init__(self, workdir, project, *, name, settings):
        """Raises ConfigError without the extra, DavError if wandb refuses to start."""
        try:
            import wandb
        except ImportError:
            raise ConfigError(f"config.wandb={project!r} needs pip install -e '.[wandb]'") from None
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=project,
                id=_run_id(workdir / "wandb_id"),
                resume="allow",
                name=name,
                dir=str(workdir),
                config=settings,
            )
        except Exception as error:
            raise DavError(
                f"Weights & Biases did not start ({error}); log in (wandb login), set "
                "WANDB_MODE=offline, or leave config.wandb empty"
            ) from error

    def write(self, step, kind, **figures):
        """One row under kind/name. Steps that were sent before a kill are not sent again: the
        service takes a step once, in order, and they would be the same."""
        self._log(step, {f"{kind}/{name}": value for name, value in _known(figures).items()})

    def picture(self, step, image):
        """Adds uint8 RGB [H, W, 3]."""
        self._log(step, {"picture": self._wandb.Image(image)})

    def close(self, failed=False):
        self._run.finish(exit_code=int(failed))

    def _log(self, step, row):
        if step >= self._run.step:
            self._run.log(row, step=step)


def _known(figures):
    return {name: value for name, value in figures.items() if value is not None}


def _run_id(path):
    """The id in the file, which is made before it is used for the first time."""
    if not path.exists():
        write_whole(path, secrets.token_hex(8))
    return path.read_text().strip()
