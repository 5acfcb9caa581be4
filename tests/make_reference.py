"""Writes tests/models/reference/: what transformers computes for networks of random weights.

    python tests/make_reference.py

Needs the extra `parity`. Of every stage 512 values at fixed places are kept, and the standard
deviation of all. Weights and images are drawn by NumPy from seeds, so the test that reads the
files needs neither transformers nor torch.
"""

import tempfile
from pathlib import Path

import numpy as np
import stages

FOLDER = Path(__file__).parent / "models" / "reference"
CASES = [("vits", "518x518"), ("vits", "518x686"), ("vits", "252x336"), ("registers", "252x336")]
CASES += [("vitb", "252x336")]
VALUES = 512


def sample(values):
    """The kept values of one stage, float32 [VALUES]."""
    places = np.random.default_rng(0).integers(values.size, size=VALUES)
    return values.reshape(-1)[places]


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, size in CASES:
        architecture = stages.ARCHITECTURES[name]
        params = stages.random_params(architecture)
        with tempfile.TemporaryDirectory() as folder:
            model = stages.make_transformers_model(params, architecture, Path(folder))
            found = stages.transformers_stages(model, stages.random_image(stages.SIZES_PX[size]))
        kept = {stage: sample(values) for stage, values in found.items()}
        kept |= {f"{stage}_deviation": values.std() for stage, values in found.items()}
        np.savez_compressed(FOLDER / f"{name}-{size}.npz", **kept)
        print(f"{name} {size}: {len(found)} stages")


if __name__ == "__main__":
    main()
