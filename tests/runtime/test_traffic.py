"""What a program sends, read from its text, and what a training step must send."""

import jax
import jax.numpy as jnp
import pytest

from dav.runtime import traffic
from dav.runtime.traffic import Collective, collectives

MESH = "replica_groups=mesh['data'=32,'fsdp'=8]"
LINES = {
    "%r = (f32[]{:T(128)}, f32[3,3,32,32]{3,2,1,0:T(8,128)S(1)}, /*index=2*/bf16[5]{0}) "
    "all-reduce(%a, %b, %c), channel_id=1, replica_groups=mesh['axis_0'=4] {'axis_0'}, "
    "to_apply=%add": Collective("all-reduce", 4 + 4 * 9 * 1024 + 10, 4),
    f"%g = f32[64,128]{{1,0}} all-gather(%a), {MESH} {{'fsdp'}}": Collective(
        "all-gather", 4 * 64 * 128, 8
    ),
    f"%g = (bf16[8,128]{{1,0}}, bf16[64,128]{{1,0}}) all-gather-start(%a), {MESH} {{'fsdp'}}, "
    "dimensions={0}": Collective("all-gather", 2 * 64 * 128, 8),
    f"%s = f32[8,128] reduce-scatter(%a), {MESH} {{'data', 'fsdp'}}": Collective(
        "reduce-scatter", 4 * 8 * 128 * 256, 256
    ),
    "%s = f32[4] all-reduce-start(%a), replica_groups=[8,32]<=[256]": Collective(
        "all-reduce", 16, 32
    ),
    "%s = f32[4] all-reduce-start(%a), replica_groups=[16,16]<=[16,16]T(1,0)": Collective(
        "all-reduce", 16, 16
    ),
    "%s = s8[4] all-to-all(%a), replica_groups={{0,1,2},{3,4,5}}": Collective("all-to-all", 4, 3),
    "%s = (pred[1,168,224]{1,2,0:T(8,128)(4,1)S(1)}, pred[1,168,224], u32[]{:S(2)}, u32[]) "
    "collective-permute-start(%x), source_target_pairs={{3,0}}": Collective(
        "collective-permute", 168 * 224, 6
    ),
    "%g = f32[64,8]{1,0} all-gather(%a), replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], "
    "device_ids=([2,4]T(1,0)) {'axis_0'}, dimensions={0}": Collective("all-gather", 4 * 64 * 8, 4),
    "%r = f32[8] all-reduce(%a), replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}": Collective(
        "all-reduce", 32, 4
    ),
    "ROOT %r = f8e4m3fn[16] all-reduce(%a), replica_groups={}": Collective("all-reduce", 16, 6),
}


@pytest.mark.parametrize("line", LINES)
def test_each_form_of_an_operation_is_read(line):
    assert collectives(f"  {line}\n", 6) == [LINES[line]]


def test_groups_that_cannot_be_read_are_not_taken_for_groups_of_one():
    line = "%g = f32[8] all-gather(%a), replica_groups=mesh['data'=8], dimensions={0}"
    with pytest.raises(ValueError, match="which axes"):
        collectives(line, 8)


def test_ends_of_operations_and_other_lines_do_not_count():
    text = """
ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0), metadata={op_name="all-reduce(x)"}
  %d = f32[4]{0} all-reduce-done(f32[4]{0} %s)
  %g = f32[4]{0} get-tuple-element(%all-gather-start.3), index=1
}"""
    assert collectives(text, 2) == []


def test_a_reduce_scatter_in_a_fusion_of_a_tpu_is_known_by_its_computation():
    text = """
%all-reduce-scatter.5 (p: f32[64]) -> f32[8] {
  %r = f32[64]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %d = f32[8]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={8}
}

%fused (p: f32[64]) -> f32[64] {
  ROOT %r = f32[64]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
}"""
    kinds = [(one.kind, one.bytes, one.sent_bytes) for one in collectives(text, 8)]
    assert kinds == [("reduce-scatter", 256, 224), ("all-reduce", 256, 448)]


def test_an_operation_that_a_tpu_does_in_pieces_between_others_counts_once():
    piece = (
        "  %g.{} = bf16[64,128]{{1,0}} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], "
        'dimensions={{1}}, frontend_attributes={{chain_id="{}"}}'
    )
    text = f"""
%fused_computation.1 (p: bf16[64,16]) -> bf16[64,128] {{
{piece.format(1, 40)}
}}

%async_collective_fusion.1 (p: bf16[64,16], q: f32[8]) -> f32[8] {{
{piece.format(2, 40)}
}}

%async_collective_fusion.2 (p: bf16[64,16], q: f32[8]) -> f32[8] {{
{piece.format(3, 41)}
}}"""
    assert collectives(text, 8) == 2 * [Collective("all-gather", 2 * 64 * 128, 8)]


def test_sums_by_kind():
    found = [Collective("all-reduce", 800, 8), Collective("all-reduce", 80, 2)]
    assert traffic.sent_by_kind(found) == {"all-reduce": (2, 1400 + 80)}


def test_a_program_for_one_device_sends_nothing():
    program = jax.jit(lambda x: jnp.sum(x @ x)).lower(jnp.ones((4, 4))).compile()
    assert collectives(program.as_text(), 1) == []


def test_what_a_step_must_send():
    assert traffic.expected_sent_bytes(0, 1000, data=4, fsdp=1) == 1500
    assert traffic.expected_sent_bytes(900, 100, data=1, fsdp=1) == 0
    # 800 bytes: two gathers and a scatter of 7/8, then 100 of them twice 3/4; the rest over 32.
    sent = traffic.expected_sent_bytes(800, 32, data=4, fsdp=8)
    assert sent == 3 * 700 + 150 + 2 * 31
