"""Host batches → global arrays on the mesh."""

import jax


def to_device(batch, sharding):
    """Joins every process's local arrays into global ones, split over the leading axis."""
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, local), batch
    )
