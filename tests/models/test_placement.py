"""A batch stays where it is: on a mesh weights and gradients are sent, activations never."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from dav.models.placement import join_batches, part_batches, split_batch
from dav.runtime.traffic import Collective

FSDP = 2


def test_without_a_mesh_nothing_happens():
    x = jnp.ones((4, 3))
    assert split_batch(x) is x
    assert "sharding" not in str(jax.make_jaxpr(split_batch)(x))


def test_without_a_mesh_batches_are_joined_one_behind_the_other():
    batches = [jnp.arange(6.0).reshape(2, 3), jnp.arange(9.0).reshape(3, 3)]
    joined = join_batches(batches)
    assert (joined == jnp.concatenate(batches)).all()
    for part, batch in zip(part_batches(joined, (2, 3)), batches, strict=True):
        assert (part == batch).all()


def joined_on_four_devices(environment, *sizes):
    """What tests/models/joined_batches.py tells."""
    done = subprocess.run(
        [sys.executable, "tests/models/joined_batches.py", "4", *map(str, sizes)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_device_keeps_its_share_of_each_batch_that_is_joined(environment):
    told = joined_on_four_devices(environment, 4, 8)
    assert told == {"same": [True, True], "split": True, "first": [0, 100, 101], "sent": []}


def test_batches_that_do_not_divide_are_joined_all_the_same(environment):
    told = joined_on_four_devices(environment, 3, 8)
    assert told["same"] == [True, True]


@pytest.fixture(scope="module")
def told(environment):
    """By number of devices, what tests/models/sent_by_gradients.py tells."""
    done = subprocess.run(
        [sys.executable, "tests/models/sent_by_gradients.py", str(FSDP), "8", "16"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        line["devices"]: line | {"sent": [Collective(*one) for one in line["sent"]]}
        for line in lines
    }


def sent_bytes(line, kind, group):
    return sum(one.sent_bytes for one in line["sent"] if (one.kind, one.group) == (kind, group))


@pytest.mark.parametrize("devices", [8, 16])
def test_weights_are_gathered_and_gradients_added_up_and_nothing_else_is_sent(told, devices):
    line, data = told[devices], devices // FSDP
    gathered = sent_bytes(line, "all-gather", FSDP) / (line["split"] * (FSDP - 1) / FSDP)
    assert 1 <= gathered <= 2  # for the forward pass, and at most again for the backward pass
    scattered = sent_bytes(line, "all-reduce", FSDP) / (line["split"] * 2 * (FSDP - 1) / FSDP)
    assert 0.85 < scattered <= 1  # a unit of the decoder is in no use
    parts = sent_bytes(line, "all-reduce", data) / (line["split"] / FSDP * 2 * (data - 1) / data)
    assert 0.85 < parts <= 1
    whole = sent_bytes(line, "all-reduce", devices) / (line["whole"] * 2 * (devices - 1) / devices)
    assert 0.5 < whole <= 1.2
    groups = {(one.kind, one.group) for one in line["sent"]}
    assert groups <= {("all-gather", FSDP)} | {
        ("all-reduce", group) for group in (FSDP, data, devices)
    }


def test_what_a_device_sends_does_not_grow_with_their_number(told):
    few, many = (sum(one.sent_bytes for one in told[devices]["sent"]) for devices in (8, 16))
    added = told[8]["split"] / FSDP * 2 * (7 / 8 - 3 / 4)  # rings of 8 instead of 4
    added += told[8]["whole"] * 2 * (15 / 16 - 7 / 8)
    assert 0 < many - few <= 1.05 * added
