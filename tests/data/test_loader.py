from dav.data import loader


class Interleaved:
    """The sharding of a mesh that takes two processes' devices in turn, as a torus of chips may."""

    def __init__(self, *devices):
        self.devices = devices

    def addressable_devices_indices_map(self, shape):
        share = shape[0] // 4
        return {d: (slice(d * share, (d + 1) * share),) for d in self.devices}


def test_a_process_reads_the_rows_of_its_devices_wherever_these_stand():
    assert loader.local_rows(Interleaved(0, 1), 8) == [0, 1, 2, 3]
    assert loader.local_rows(Interleaved(3, 1), 8) == [2, 3, 6, 7]
