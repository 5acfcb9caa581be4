"""Host batches → global arrays on the mesh."""

import jax


def local_rows(sharding, images):
    """Which images of a global batch of so many live on this process's devices, in order.

    Neighbours in a batch are mixed with each other, so the global order must be the same however
    many processes share it, and in whatever order the mesh holds their devices.
    """
    held = sharding.addressable_devices_indices_map((images,)).values()
    return sorted({row for (rows,) in held for row in range(images)[rows]})


def to_device(batch, sharding):
    """Joins every process's local arrays into global ones, split over the leading axis."""
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, local), batch
    )
