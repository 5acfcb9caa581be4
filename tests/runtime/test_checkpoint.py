"""Checkpoints of a small state: which are kept, which count as finished, and damage to any file."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from dav.errors import DavError
from dav.files import read_json
from dav.runtime import checkpoint, seal
from dav.runtime.checkpoint import Checkpoints, latest_step, restore_params
from dav.step import TrainState


def state_at(step):
    """A state whose numbers tell its step."""
    value = np.random.default_rng(step).standard_normal((40, 30)).astype(np.float32)
    params = {"encoder": {"kernel": value}, "decoder": {"bias": value[0]}}
    ema = jax.tree.map(lambda x: x / 2, params)
    zero = np.zeros((), np.int32)
    return jax.device_put(TrainState(np.int32(step), params, {"mu": value * 2}, ema, zero, zero))


def shapes_of(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


SHAPES = shapes_of(state_at(0))


def save(folder, *steps, **keep):
    with Checkpoints(folder, **keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step))


def assert_restored(folder, step):
    """Opening `folder` gives the state of that step, bit for bit."""
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == step
        found = checkpoints.restore(step, SHAPES)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state_at(step)), strict=True):
        np.testing.assert_array_equal(one, other)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 4 and 6; never written to."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 4, 6)
    return folder


def test_every_part_of_a_state_comes_back(saved):
    assert_restored(saved, 6)
    params = restore_params(saved, SHAPES.params)
    np.testing.assert_array_equal(params["decoder"]["bias"], state_at(6).params["decoder"]["bias"])
    average = restore_params(saved, SHAPES.params, average=True)
    np.testing.assert_array_equal(average["encoder"]["kernel"] * 2, params["encoder"]["kernel"])


def test_the_newest_are_kept_and_every_so_many_steps_one_for_good(tmp_path):
    save(tmp_path, *range(2, 16, 2), keep=2, keep_every=4)
    assert names(tmp_path) == ["12", "14", "4", "8"]
    assert_restored(tmp_path, 14)


def test_none_is_deleted_before_the_one_that_replaces_it_is_finished(tmp_path, monkeypatch):
    real, finished = seal.seal, []

    def spy(folder):
        finished.append([step for step in (1, 2, 3, 4) if seal.is_sealed(tmp_path / str(step))])
        real(folder)

    monkeypatch.setattr(seal, "seal", spy)
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert finished == [[], [1], [1, 2], [2, 3]]
    assert names(tmp_path) == ["3", "4"]


def test_what_a_kill_left_undeleted_goes_with_the_next_save(saved, tmp_path):
    """Killed after the seal, before or while the surplus was deleted."""
    for step in (2, 3, 4, 6):
        shutil.copytree(saved / ("4" if step < 6 else "6"), tmp_path / str(step))
    shutil.copytree(saved / "4" / "state", tmp_path / "1.deleted")
    assert latest_step(tmp_path) == 6
    save(tmp_path, 7, keep=2, keep_every=3)
    assert names(tmp_path) == ["3", "6", "7"]


def test_time_spent_is_told(saved):
    with Checkpoints(saved) as checkpoints:
        checked_s = checkpoints.restored_s
        checkpoints.restore(6, SHAPES)
        assert checkpoints.restored_s > checked_s > 0


def damages(folder):
    """(file, what is done to it, its damaged content) for every file of a checkpoint."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole, name = path.read_bytes(), path.relative_to(folder).as_posix()
        middle = len(whole) // 2
        if name == seal.NAME:  # elsewhere it might be white space
            middle = whole.index(b'"', middle)
        flipped = bytearray(whole)
        flipped[middle] ^= 1 << (len(name) % 8)
        yield name, "flipped", bytes(flipped)
        yield name, "truncated", whole[:middle]
        yield name, "emptied", b""


def test_damage_to_any_file_is_named_and_the_checkpoint_before_is_used(saved, tmp_path, capfd):
    cases = list(damages(saved / "6"))
    assert len({name for name, *_ in cases}) >= 9
    for number, (name, kind, content) in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        (folder / "6" / name).write_bytes(content)
        assert checkpoint._find_whole(folder) == 4, (name, kind)
        said = capfd.readouterr().out
        assert f"{folder}/6 is damaged ({name}" in said and "moved to 6.damaged" in said
        assert names(folder) == ["4", "6.damaged"]
        assert (folder / "6.damaged" / name).read_bytes() == content
        shutil.rmtree(folder)


def test_after_damage_the_step_is_saved_anew(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    data = max((tmp_path / "run" / "6").rglob("*"), key=lambda path: path.stat().st_size)
    for _ in range(2):
        data.write_bytes(data.read_bytes()[:-1])
        assert_restored(tmp_path / "run", 4)
        save(tmp_path / "run", 6)
        assert_restored(tmp_path / "run", 6)
        data = max((tmp_path / "run" / "6").rglob("*"), key=lambda path: path.stat().st_size)
    assert names(tmp_path / "run") == ["4", "6", "6.damaged", "6.damaged-2"]


def test_a_lost_file_is_damage_too(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "6" / "state" / "manifest.ocdbt").unlink()
    assert seal.find_damage(tmp_path / "run" / "6")[0].startswith("state/manifest.ocdbt has 0 of ")
    assert_restored(tmp_path / "run", 4)


def test_weights_are_not_taken_from_a_damaged_checkpoint(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    table = tmp_path / "run" / "6" / seal.NAME
    table.write_bytes(table.read_bytes()[:-9])
    for _ in range(2):  # whoever only reads moves nothing
        with pytest.raises(DavError, match=f"6 is damaged .{seal.NAME}.*; move it to 6.damaged, "):
            restore_params(tmp_path / "run", SHAPES.params)
    (tmp_path / "run" / "6").rename(tmp_path / "run" / "6.damaged")
    params = restore_params(tmp_path / "run", SHAPES.params)
    np.testing.assert_array_equal(params["decoder"]["bias"], state_at(4).params["decoder"]["bias"])


@pytest.mark.parametrize("moment", ["find_damage", "_read", "_size", "_checksum"])
@pytest.mark.parametrize("keep", [2, 3])
def test_weights_of_a_run_that_goes_on_are_its_newest(saved, tmp_path, monkeypatch, moment, keep):
    """While a reader looks at 6, training saves 7 and 8 and deletes 6, or begins to."""
    real, run, at_work = getattr(seal, moment), tmp_path / "run", []
    shutil.copytree(saved, run)

    def look(path, *more):
        found = real(path, *more) if moment == "find_damage" else None
        if not at_work:
            at_work.append(True)
            save(run, 7, 8, keep=keep)
            if keep == 3:
                shutil.rmtree(run / "6" / "state")
        return real(path, *more) if found is None else found

    monkeypatch.setattr(seal, moment, look)
    params = restore_params(run, SHAPES.params)
    np.testing.assert_array_equal(params["decoder"]["bias"], state_at(8).params["decoder"]["bias"])
    assert names(run) == ["6", "7", "8"][-keep:]


def test_damage_where_nothing_can_be_moved_is_told(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "6" / "state" / "_METADATA").write_bytes(b"")

    def fail(path, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(tmp_path), "rename", fail)
    with pytest.raises(DavError, match="damaged .* cannot be moved away .Read-only file"):
        Checkpoints(tmp_path / "run")


def test_a_run_that_fails_keeps_what_it_saved(tmp_path):
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_at(1))
        raise ZeroDivisionError
    assert_restored(tmp_path, 1)


def test_when_all_are_damaged_nothing_begins_anew_by_itself(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    for step in (4, 6):
        (tmp_path / "run" / str(step) / "_CHECKPOINT_METADATA").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DavError, match="only 4.damaged, 6.damaged; put a copy of one there"):
            Checkpoints(tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / f"{step}.damaged")
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest is None


def test_a_save_that_was_cut_off_does_not_count(saved, tmp_path, capfd):
    """Killed before the seal, or while the files were still being written."""
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "6" / seal.NAME).unlink()
    shutil.copytree(saved / "6", tmp_path / "run" / "7.orbax-checkpoint-tmp-3")
    assert latest_step(tmp_path / "run") == 4
    for _ in range(2):
        save(tmp_path / "run", 6)
        assert_restored(tmp_path / "run", 6)
        (tmp_path / "run" / "6" / seal.NAME).unlink()
    assert_restored(tmp_path / "run", 4)
    assert names(tmp_path / "run") == ["4", "6.unfinished"]
    assert "6 was not finished: moved to 6.unfinished" in capfd.readouterr().out


def test_of_what_was_cut_off_only_the_newest_stays(saved, tmp_path):
    shutil.copytree(saved / "4", tmp_path / "4")
    for step in (6, 7, 8):
        save(tmp_path, step)
        (tmp_path / str(step) / seal.NAME).unlink()
        assert_restored(tmp_path, 4)
        assert names(tmp_path) == ["4", f"{step}.unfinished"]
    assert_restored(tmp_path, 4)
    assert names(tmp_path) == ["4", "8.unfinished"]


def test_another_structure_is_told_from_damage(saved):
    other = dataclasses.replace(SHAPES, opt_state={"nu": SHAPES.opt_state["mu"]})
    with (
        pytest.raises(DavError, match="agrees with its checksums, but cannot be read"),
        Checkpoints(saved) as checkpoints,
    ):
        checkpoints.restore(6, other)
    assert names(saved) == ["4", "6"]


def test_a_failed_save_is_told(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seal, "seal", fail)
    with pytest.raises(OSError, match="No space"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_at(1))
    assert latest_step(tmp_path) is None


@pytest.mark.parametrize("shares", [1, 3])
def test_blocks_are_shared_out_and_none_is_missed(tmp_path, monkeypatch, shares):
    monkeypatch.setattr(seal, "BLOCK_BYTES", 100)
    monkeypatch.setattr(seal, "PIECE_BYTES", 64)
    content = np.random.default_rng(0).bytes(1050)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "large").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    seal.seal(tmp_path)
    assert len(read_json(tmp_path / seal.NAME)["deep/large"]["sha256"]) == 11

    def found():
        return [seal.find_damage(tmp_path, share, shares) for share in range(shares)]

    assert found() == [[]] * shares
    for place in range(0, 1050, 50):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "deep" / "large").write_bytes(damaged)
        assert sorted(found()) == [[]] * (shares - 1) + [["deep/large differs from its checksum"]]


def test_a_file_that_cannot_be_read_is_not_called_damaged(saved, monkeypatch):
    def fail(path, start):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(seal, "_checksum", fail)
    with pytest.raises(DavError, match=r"cannot read .*Input/output error"):
        seal.find_damage(saved / "6")
