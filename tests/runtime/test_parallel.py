import jax
import pytest

from dav.errors import ConfigError
from dav.runtime import parallel


def test_the_widest_divisible_dimension_is_split():
    assert parallel.weight_spec((384, 1536), 4, 2**18) == jax.P(None, "fsdp")
    assert parallel.weight_spec((1536, 385), 4, 2**18) == jax.P("fsdp", None)
    assert parallel.weight_spec((1023, 1023), 4, 2**18) == jax.P()


def test_small_arrays_and_a_mesh_without_fsdp_stay_whole():
    assert parallel.weight_spec((8, 8), 4, 2**18) == jax.P()
    assert parallel.weight_spec((8, 8), 4, min_elements=1) != jax.P()
    assert parallel.weight_spec((4096, 4096), 1, 1) == jax.P()


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"mesh.data=3 × config.mesh.fsdp=2 does not use the"):
        parallel.make_mesh(3, 2)
    with pytest.raises(ConfigError, match=r"^config.mesh.fsdp=3 does not divide the 2 devices"):
        parallel.make_mesh(-1, 3, devices=jax.devices() * 2)
