"""Plans: machines by name, traffic of programs by hand, rooflines, the command.

The compilers of TPUs and GPUs are asked in the slow tests, where they are
installed; elsewhere this machine's stands in for them.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxnas import spaces, supernets
from jaxnas.config import (
  Config,
  Data,
  Density,
  Mesh,
  Ranking,
  Sampler,
  Supernet,
)
from jaxnas.experiment import build, cost
from jaxnas.nn import maps, target
from jaxnas.plan import __main__ as command
from jaxnas.plan import (
  compiling,
  kinds,
  peaks,
  program,
  roofline,
  stand_ins,
  table,
  thunks,
  topologies,
)
from jaxnas.plan import estimate as estimating
from jaxnas.plan.compiling import Compiled, DoesNotFit
from jaxnas.plan.program import Traffic
from support import small_run

# Machines.


@pytest.mark.parametrize(
  ('name', 'devices'),
  [
    ('v5e:1x1', 1),
    ('v5e:2x4', 8),
    ('v6e:16x16', 256),
    ('v4:2x2x1', 4),
    ('v5p:2x4x4', 32),
    ('v4:4x4x8', 128),
    ('v5p:16x16x24', 6144),
    ('h100:3', 3),
    ('a100:16', 16),
  ],
)
def test_machines_have_as_many_devices_as_they_say(name, devices):
  machine = topologies.parse(name)
  assert machine.devices == devices
  assert machine.name == name and machine.chip is peaks.CHIPS[machine.kind]


@pytest.mark.parametrize(
  ('name', 'says'),
  [
    ('v5', "topology 'v5' is none of v4, v5e"),
    ('H100:8', 'Did you mean h100?'),
    ('v5e', 'comes as v5e:1x1, 2x2'),
    ('v5e:', 'comes as v5e:1x1, 2x2'),
    ('v5e:4', 'comes as v5e:1x1, 2x2'),
    ('v5e:3x3', 'comes as v5e:1x1, 2x2'),
    ('v6e:4x2', 'comes as v6e:1x1, 2x2'),
    ('v6e:2x2x1', 'comes as v6e:1x1, 2x2'),
    ('v4:4x4', 'comes as v4:2x2x1'),
    ('v4:8x4x4', 'comes as v4:2x2x1'),
    ('v4:4x4x6', 'comes as v4:2x2x1'),
    ('v4:16x16x24', 'at most 4096 chips'),
    ('v5p:0x4x4', 'comes as v5p:2x2x1'),
    ('h100:0', 'comes as h100:1 to h100:8'),
    ('h100:12', 'in whole hosts of 8, up to h100:1024'),
    ('h100:2048', 'up to h100:1024'),
    ('h100:2x2', 'comes as h100:1'),
    ('a100:-8', 'comes as a100:1'),
    ('a100:²', 'comes as a100:1'),
  ],
)
def test_other_machines_are_one_line(name, says):
  with pytest.raises(ValueError, match=re.escape(says)) as error:
    topologies.parse(name)
  assert '\n' not in str(error.value)


def test_names_are_written_one_way():
  assert topologies.parse('v5e:04x4').name == 'v5e:4x4'


@pytest.mark.parametrize(
  ('name', 'links'),
  [
    # A neighbour on either side, or one where an axis has only two chips.
    ('v5e:2x2', 2),
    ('v5e:2x4', 3),
    ('v5e:4x4', 4),
    ('v4:2x2x1', 2),
    ('v5p:4x4x4', 6),
  ],
)
def test_a_chip_sends_over_all_its_links(name, links):
  machine = topologies.parse(name)
  assert machine.bytes_per_s == links * machine.chip.link_bytes_per_s


def test_gpus_of_several_hosts_share_the_hosts_adapters():
  assert topologies.parse('h100:8').bytes_per_s == 450e9
  assert topologies.parse('h100:16').bytes_per_s == 8 * 50e9
  assert topologies.parse('a100:64').bytes_per_s == 8 * 25e9


def test_a_described_gpu_has_the_figures_of_its_peaks():
  described = topologies.gpu('a100')
  assert 'core_count: 108' in described
  assert 'memory_bandwidth: 2039000000000' in described
  assert re.search(r'cuda_compute_capability \{ major: 8 ', described)
  assert described.count('{') == described.count('}')


# What a program moves.

# Two branches, a loop of three, a fusion that reads a row, and an all-reduce.
PROGRAM = """\
HloModule step, is_scheduled=true

%row (p.0: f32[100,8], p.1: s32[]) -> f32[1,8] {
  %p.0 = f32[100,8]{1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %cut = f32[1,8]{1,0} dynamic-slice(%p.0, %p.1, %zero), more={1,8}
}

%left (l: (f32[8])) -> f32[8] {
  %l = (f32[8]{0}) parameter(0)
  %l.0 = f32[8]{0} get-tuple-element(%l), index=0
  ROOT %negate = f32[8]{0} negate(%l.0)
}

%right (r: (f32[8])) -> f32[8] {
  %r = (f32[8]{0}) parameter(0)
  ROOT %r.0 = f32[8]{0} get-tuple-element(%r), index=0
}

%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], /*index=1*/f32[8]{0}) parameter(0)
  %b.1 = f32[8]{0} get-tuple-element(%b), index=1
  %exp = f32[8]{0} exponential(%b.1)
  ROOT %b.out = (s32[], f32[8]{0}) tuple(%b, %exp)
}

%condition (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  %c.0 = s32[] get-tuple-element(%c), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%c.0, %three), direction=LT
}

%sum (s.0: f32[], s.1: f32[]) -> f32[] {
  %s.0 = f32[] parameter(0)
  %s.1 = f32[] parameter(1)
  ROOT %add = f32[] add(%s.0, %s.1)
}

ENTRY %main (rows: f32[100,8], i: s32[]) -> f32[8] {
  %rows = f32[100,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %fusion = f32[1,8]{1,0} fusion(%rows, %i), kind=kLoop, calls=%row
  %flat = f32[8]{0} bitcast(%fusion)
  %one = (f32[8]{0}) tuple(%flat)
  %switch = f32[8]{0} conditional(%i, %one, %one), \
branch_computations={%left, %right}
  %start = (s32[], f32[8]{0}) tuple(%i, %switch)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
  %looped = f32[8]{0} get-tuple-element(%loop), index=1
  ROOT %total = f32[8]{0} all-reduce(%looped), \
replica_groups={{0,1,2,3}}, to_apply=%sum
}
"""


def test_a_program_moves_what_its_lines_add_up_to():
  moved = program.Program(PROGRAM, 4).traffic()
  # A row read for its index and written; one branch of two reads and writes;
  # three times round the loop; the all-reduce reads and writes.
  row = 8 * 4
  assert moved.memory == (row + 4 + row) + 2 * row / 2 + 3 * 2 * row + 2 * row
  assert moved.count == 1 and moved.collectives == row
  # Round a ring of four: three quarters of it, twice.
  assert moved.sent == 2 * 3 / 4 * row


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    program.Program('HloModule nothing')


def one_line(line, devices=8):
  """Traffic of a program of one operation on f32[1024]."""
  return program.Program(
    'ENTRY %main (x: f32[1024]) -> f32[1024] {\n'
    '  %x = f32[1024]{0} parameter(0)\n'
    f'  ROOT %y = {line}\n}}\n',
    devices,
  ).traffic()


@pytest.mark.parametrize(
  ('line', 'sent'),
  [
    ('f32[1024]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}', 4096),
    # Without groups all devices are one.
    ('f32[1024]{0} all-reduce(%x), replica_groups={}', 2 * 7 / 8 * 4096),
    ('f32[1024]{0} all-reduce-start(%x), replica_groups=[2,4]<=[8]', 6144),
    (
      "f32[1024]{0} all-reduce-start(%x), replica_groups=mesh['a'=4,'b'=2] "
      "{'b'}",
      4096,
    ),
    (
      '(f32[1024]{0}, f32[4096]{0}) all-gather-start(%x), '
      'replica_groups=[2,4]<=[8]',
      3 * 4096,
    ),
    ('f32[256]{0} reduce-scatter(%x), replica_groups=[2,4]<=[8]', 3072),
    ('f32[1024]{0} all-to-all(%x), replica_groups=[2,4]<=[8]', 3072),
    ('f32[1024]{0} collective-permute(%x), source_target_pairs={{0,1}}', 4096),
    ('f32[1024]{0} all-reduce-done(%x)', 0),
    ('f32[1024]{0} negate(%x)', 0),
  ],
)
def test_collectives_send_what_a_ring_would(line, sent):
  moved = one_line(line)
  assert moved.sent == sent
  assert moved.collectives == (4096 if sent else 0)


@pytest.mark.parametrize(
  ('line', 'memory'),
  [
    ('f32[1024]{0} negate(%x)', 8192),
    ('bf16[1024]{0} convert(%x)', 4096 + 2048),
    ('pred[1024]{0} is-finite(%x)', 4096 + 1024),
    ('f32[1024]{0} bitcast(%x)', 0),
    ('f32[16]{0} slice(%x), slice={[0:16]}', 2 * 64),
    ('(f32[1024]{0}, f32[1024]{0}, u32[]) copy-start(%x)', 8192 + 4),
    ('f32[1024]{0} copy-done(%x)', 0),
    # In place of one operand, so much as the other has.
    ('f32[1024]{0} dynamic-update-slice(%x, %x, %x)', 8192),
  ],
)
def test_operations_read_and_write_memory(line, memory):
  assert one_line(line).memory == memory


@pytest.mark.parametrize(
  ('type', 'memory'),
  [
    # The most minor axis, here the first, in tiles of 128, the next of 8.
    ('f32[3,5]{0,1:T(8,128)}', 8 * 128 * 4),
    ('f32[3,5]{1,0:T(8,128)}', 8 * 128 * 4),
    ('bf16[2,9,128]{2,1,0:T(8,128)(2,1)}', 2 * 16 * 128 * 2),
    ('f32[1000]{0:T(1024)}', 1024 * 4),
    # On the chip.
    ('f32[8,128]{1,0:T(8,128)S(1)}', 0.0),
  ],
)
def test_arrays_of_tpus_are_padded_or_on_the_chip(type, memory):
  text = f'ENTRY %main () -> f32[1] {{\n  ROOT %y = {type} iota()\n}}\n'
  assert program.Program(text).traffic().memory == memory


def test_a_compiled_program_is_read():
  """The program multiplies a matrix of 64 x 64 by itself 10 times."""

  def loop(x):
    return jax.lax.fori_loop(0, 10, lambda _, x: x @ x, x)

  compiled = jax.jit(loop).lower(jax.ShapeDtypeStruct((64, 64), 'f4')).compile()
  moved = program.Program(compiled.as_text()).traffic()
  size = 64 * 64 * 4
  # A compiler may copy what a loop carries, but not all of it twice a round.
  assert 10 * 3 * size <= moved.memory < 10 * 5 * size
  assert moved.count == 0


# What branches and kinds of work move.


def test_branches_count_by_how_often_they_are_taken():
  named = PROGRAM.replace(
    'branch_computations={%left, %right}',
    'branch_computations={%left, %right}, '
    'metadata={op_name="jit(step)/position_0/position_3/cond"}',
  )
  row = 8 * 4
  without = program.Program(PROGRAM, 4).traffic().memory - 2 * row / 2

  def moved(taken):
    return program.Program(named, 4, taken).traffic().memory - without

  assert moved({3: (0.25, 0.75)}) == 2 * row * 0.25
  # Shares of another position, or of another number of branches, say nothing.
  assert moved({0: (0.25, 0.75)}) == moved({3: (1.0,)}) == 2 * row / 2


def test_all_that_moves_is_what_the_program_moves():
  read = program.Program(PROGRAM, 4)
  moved = [*read.moved()]
  assert sum(m.times * m.memory for m in moved) == read.traffic().memory
  times = {m.instruction.name: m.times for m in moved}
  assert times['negate'] == 0.5 and times['exp'] == 3.0
  assert read.loops() == [3] and read.switches() == 1.0
  (fusion,) = (m for m in moved if m.instruction.name == 'fusion')
  assert [inner.op for inner in fusion.inner][-1] == 'dynamic-slice'
  assert sum(kinds.by_kind(read).values()) == read.traffic().memory


@pytest.mark.parametrize(
  ('op', 'path', 'more', 'wanted'),
  [
    ('custom-call', 'jvp(N)/conv', 'custom_call_target="__cudnn$convForward"',
     'convolutions, forward'),
    ('custom-call', 'transpose(jvp(N))/dot_general',
     'custom_call_target="__cublas$gemm"', 'products, backward'),
    ('custom-call', 'jvp(N)/depthwise_norm/pallas_call',
     'custom_call_target="__gpu$xla.gpu.triton"', 'convolutions, forward'),
    ('convolution', 'jvp(N)/expand/dot_general', '', 'products, forward'),
    ('convolution', 'jvp(N)/conv_general_dilated', '',
     'convolutions, forward'),
    ('reduce', 'transpose(jvp(N))/norm/reduce', '',
     'sums of normalisation, backward'),
    ('add', 'jvp(N)/norm/add', '', 'normalisation, activation, forward'),
    ('pad', 'jvp(N)/position_0/pad', '', 'kept for the backward pass, forward'),
    ('copy', 'jvp(N)/position_0/pad', '', 'copies, other layouts, forward'),
    ('gather', 'jit(step)/gather', '', 'images'),
    ('add', 'jit(step)/add', '', 'optimizer, sampler, metrics'),
  ],
)  # fmt: skip
def test_kinds_of_work_are_told_apart(op, path, more, wanted):
  text = (
    'ENTRY %main (x: f32[8]) -> f32[8] {\n'
    '  %x = f32[8]{0} parameter(0)\n'
    f'  ROOT %y = f32[8]{{0}} {op}(%x), {more}, '
    f'metadata={{op_name="{path}"}}\n}}\n'
  )
  assert kinds.by_kind(program.Program(text)) == {wanted: 64.0}


@pytest.mark.parametrize('space', ['pooling', 'digits'])
def test_shares_of_branches_are_those_of_all_architectures(space):
  net = supernets.build(spaces.get(space))
  taken = compiling.taken(net)
  if space == 'digits':
    assert taken == {}
    return
  archs_AxE = net.space.enumerate()
  assert [len(taken[e]) for e in range(9)] == [
    len({*zip(archs_AxE[:, e], archs_AxE.cumsum(1)[:, e], strict=True)})
    for e in range(9)
  ]
  assert all(sum(shares) == pytest.approx(1) for shares in taken.values())
  # The first block comes before a pool in 8 of the 36.
  assert sorted(taken[0]) == pytest.approx([8 / 36, 28 / 36])


THUNKS = """\
000: kCustomKernel [source] fusion
001: kConditional [sink]
  branch_0:
    002: kConvolution [source] conv
  branch_1:
    003: kCopy [source] copy
    004: kCopy [source] copy
005: kWhile [source]
condition:
    006: kCustomKernel [source] compare
  body:
    007: kConditional [sink]
      branch_0:
        008: kConvolution [source] conv
    009: kDynamicSliceFusion [source]
        010: kCopy [source] copy
"""


def test_the_host_launches_thunks_and_waits_for_branches():
  # A kernel; one branch of one or two; in each round of five two more.
  assert thunks.count(THUNKS, [5]) == (1 + 1.5 + 5 * 2, 1 + 5)


def test_a_graph_is_one_launch_and_waits_for_nothing():
  inside = ''.join(f'    {line}\n' for line in THUNKS.splitlines())
  text = f'000: kCommandBuffer [source]\n{inside}011: kCopy [sink] copy\n'
  assert thunks.count(text, [5]) == (2, 0)


def test_dumps_are_read_where_there_are_some(tmp_path):
  assert thunks.read(tmp_path, []) is None
  (tmp_path / 'module_1.jit_step.thunk_sequence.txt').write_text(THUNKS)
  (tmp_path / 'module_0.jit_small.thunk_sequence.txt').write_text('')
  same = thunks.read(tmp_path, [5])
  assert same is not None and same[0] == same[1]
  after = tmp_path / 'module_1.jit_step.thunk_sequence_after_thunk_passes.txt'
  after.write_text('000: kCommandBuffer [source]\n')
  assert thunks.read(tmp_path, [5]) == (same[0], (1, 0))


# How fast it can be.


def test_a_roofline_is_a_ratio_for_each_resource():
  machine = topologies.parse('v5e:2x2')
  of = roofline.roofline(
    machine, flops=4 * 197e9, traffic=Traffic(memory=819e6, sent=3e8)
  )
  assert of == pytest.approx((1e-3, 1e-3, 3e-3))
  assert of.step_s == of.interconnect_s and of.bound == 'interconnect'
  alone = roofline.roofline(
    topologies.parse('v5e:1x1'), 197e9, Traffic(memory=1.0)
  )
  assert alone.bound == 'compute' and alone.interconnect_s == 0


def test_a_step_takes_six_flop_a_multiply_add():
  # Forward and twice that backward, two FLOP each.
  assert roofline.step_flops(macs=100.0, images=7, paths=3) == 6 * 100 * 21


def test_costs_are_the_mean_over_the_space():
  digits = spaces.get('digits')
  exact = digits.costs(digits.enumerate()).macs_A.mean()
  assert estimating.mean_macs(digits) == exact
  large = spaces.get('mobilenet')
  per_op = [
    large.costs(np.zeros((1, large.positions), np.int32)).macs_A[0],
    large.costs(np.full((1, large.positions), 1, np.int32)).macs_A[0],
  ]
  assert estimating.mean_macs(large) == estimating.mean_macs(large)
  assert min(per_op) < estimating.mean_macs(large)


# The largest batch.


def searching(memory_of, available=1000.0, multiple=4, most=10**6, state=100):
  """A search, and the batches that it compiles."""
  compiled = []

  def compile(size):
    compiled.append(size)
    memory = memory_of(size)
    if memory is None:
      raise DoesNotFit
    return Compiled(size, 1.0, memory, state, Traffic())

  return estimating.BatchSearch(compile, available, multiple, most), compiled


def test_the_largest_batch_is_on_the_line_and_compiled():
  found, compiled = searching(lambda size: 100 + 3 * size)
  assert found.fits(64)
  assert found.largest(64) == 300
  assert compiled == [64, 32, 300]


def test_a_batch_that_does_not_fit_is_halved_first():
  found, compiled = searching(lambda size: None if size > 250 else 3 * size)
  assert not found.fits(512)
  # The line says 332, the compiler less.
  assert found.largest(512) in range(128, 251)
  assert max(compiled[1:]) <= 332


def test_a_candidate_above_the_line_is_shrunk():
  # What the compiler needs grows faster than a line.
  found, compiled = searching(lambda size: size * size // 100)
  assert found.fits(200)
  best = found.largest(200)
  assert 200 < best <= 316 and best % 4 == 0
  assert len(compiled) <= 2 + estimating.TRIES


def test_no_batch_fits():
  found, _ = searching(lambda size: None)
  assert found.largest(64) is None
  found, _ = searching(lambda size: 2000)
  assert found.largest(64) is None


def test_the_smallest_batch_is_compared_with_a_larger_one():
  found, compiled = searching(lambda size: 10 * size)
  assert found.largest(4) == 100
  assert compiled == [4, 8, 100]


def test_a_batch_is_no_larger_than_the_images_are_many():
  found, compiled = searching(lambda size: size, most=130)
  assert found.largest(64) == 128
  assert compiled == [64, 32, 128]
  found, compiled = searching(lambda size: size, most=6)
  assert found.largest(4) == 4
  assert compiled == [4]


def test_memory_that_does_not_grow_names_no_candidate():
  found, compiled = searching(lambda size: 500)
  assert found.largest(64) == 64
  assert compiled == [64, 32]


# Images that stand in.


@pytest.mark.parametrize(
  ('name', 'count', 'classes', 'shape'),
  [
    ('cifar10', 50_000, 10, (32, 32, 3)),
    ('cifar100', 50_000, 100, (32, 32, 3)),
    ('imagenet16_120', 151_700, 120, (16, 16, 3)),
    ('imagenet', 1_281_167, 1000, (160, 160, 3)),
  ],
)
def test_stand_ins_are_as_many_and_as_large(name, count, classes, shape):
  images = stand_ins.images(Config(data=Data(name=name, size=160)))
  assert len(images.y_train) == count and images.image_shape == shape
  assert set(images.y_train) == set(images.y_test) == set(range(classes))


@pytest.mark.slow
def test_streamed_inputs_are_of_the_shapes_that_a_run_has(here):
  """The images are decoded, cropped and batched."""
  given = Config(
    space='mobilenet',
    data=Data(name='imagenet', size=32, batch_size=4),
    ranking=Ranking(images=4, archs=2),
  )
  images = stand_ins.images(given)
  built = build.experiment(given, images)
  with contextlib.closing(built.training.feed(0, 0)) as feed:
    real = next(feed)
  planned = compiling.inputs(built, images)
  assert jax.tree.map(jax.typeof, real) == jax.tree.map(jax.typeof, planned)


# The backend that programs are formulated for.


def test_programs_are_formulated_for_the_backend_named():
  assert target.backend() == jax.default_backend() == 'cpu'
  assert maps.trunk_layout() == 'CHWN'
  assert target.dtype('auto') == 'float32'
  with target.formulated_for('tpu'):
    assert maps.trunk_layout() == 'NHWC'
    assert target.dtype('auto') == 'bfloat16'
  assert target.backend() == 'cpu'


# Experiments on all of a machine's devices.


def test_what_paths_leave_shares_the_batch():
  alone = compiling.on(Config(), topologies.parse('h100:1'))
  assert alone.mesh == Mesh(1, 1)
  four = topologies.parse('v5e:2x2')
  assert compiling.on(Config(), four).mesh == Mesh(data=4, paths=1)
  beside = Config(
    mesh=Mesh(paths=2),
    sampler=Sampler(paths=2),
    supernet=Supernet(bn_groups=2),
  )
  assert compiling.on(beside, four).mesh == Mesh(data=2, paths=2)
  as_it_is = Config(mesh=Mesh(data=4))
  assert compiling.on(as_it_is, four).mesh == as_it_is.mesh


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'mesh': Mesh(paths=3)}, 'is not the 4 devices of v5e:2x2'),
    ({'mesh': Mesh(data=2)}, 'is not the 4 devices of v5e:2x2'),
    ({'mesh': Mesh(data=4, paths=2)}, 'is not the 4 devices of v5e:2x2'),
    ({'data': Data(batch_size=50)}, 'does not divide into mesh.data 4'),
  ],
)
def test_a_batch_or_mesh_that_does_not_divide_is_one_line(fields, says):
  given = dataclasses.replace(Config(), **fields)
  with pytest.raises(ValueError, match=re.escape(says)) as error:
    compiling.on(given, topologies.parse('v5e:2x2'))
  assert '\n' not in str(error.value)


def test_help_imports_no_jax():
  code = (
    'import sys\n'
    'from jaxnas.plan import __main__ as command\n'
    'try:\n'
    "  command.main(['--help'])\n"
    'except SystemExit as ended:\n'
    '  assert ended.code == 0\n'
    "assert 'jax' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert '--topology' in done.stdout


# The whole, with this machine's compiler in place of another's.

SMALL = Config(
  space='small',
  warmup_epochs=1,
  epochs=3,
  data=Data(batch_size=20),
  density=Density(batch_size=20),
  ranking=Ranking(images=30, batch_size=10),
)


@pytest.fixture
def here(monkeypatch):
  """Machines are described by this one's device."""
  monkeypatch.setattr(topologies, 'devices', lambda _: jax.devices())
  monkeypatch.setattr(topologies, 'check_compiler', lambda _: None)


@pytest.fixture
def plan(here, small_space, tmp_path, capsys):
  """Plans the small space on one chip: (what it printed, what it wrote)."""
  file = tmp_path / 'small.py'
  file.write_text(small_run.CONFIG)
  out = tmp_path / 'plans' / 'small.json'
  flags = [
    '--config', str(file), '--topology', 'v5e:1x1', '--data.batch_size', '20',
    '--no_largest_batch', '--out', str(out),
  ]  # fmt: skip
  assert command.main(flags) == 0
  return capsys.readouterr().out, json.loads(out.read_text())


@pytest.mark.slow
def test_a_plan_adds_up(plan, small_space):
  printed, written = plan
  (row,) = written['plans']
  macs = small_space.costs(small_space.enumerate()).macs_A.mean()
  assert row['step_flops'] == pytest.approx(6 * macs * 20)
  assert row['compute_s'] == pytest.approx(row['step_flops'] / 197e12)
  assert row['memory_s'] == pytest.approx(row['memory_traffic_bytes'] / 819e9)
  assert row['interconnect_s'] == row['collectives'] == 0
  assert row['step_s'] == max(row['compute_s'], row['memory_s'])
  assert row['fits'] and 0 < row['memory_bytes'] < 1e8
  # 500 images, 20 a step, two epochs.
  assert row['steps'] == 50
  assert row['training_hours'] == pytest.approx(50 * row['step_s'] / 3600)
  assert row['hours'] > row['training_hours']
  assert row['images_per_s'] == pytest.approx(20 / row['step_s'])
  assert written['peaks']['v5e']['source'] in printed.replace('\n', ' ')
  assert written['caveat'] in printed and 'small.py, planned' in printed
  assert written['config']['data']['batch_size'] == 20


@pytest.mark.slow
def test_a_plan_counts_ranking_and_density_at_the_pace_of_training(
  here, small_space
):
  built = compiling.experiment(SMALL, topologies.parse('h100:1'))
  assert str(built.net.dtype) == 'bfloat16'
  row = estimating.estimate(built, topologies.parse('h100:1'), largest=False)
  epochs = cost.of_run(built)['epochs']
  assert row['hours'] / row['training_hours'] == pytest.approx(
    sum(epochs.values()) / 4
  )


def test_a_batch_in_proportion_is_compiled_once():
  found, compiled = searching(lambda size: 100 + 3 * size)
  assert found.in_proportion(64) == 300
  # From one that is too large as well, and of what does not grow no more.
  assert found.in_proportion(512) == 300
  assert compiled == [64, 512]
  found, _ = searching(lambda size: 150 + 3 * size)
  # 283 would fit.
  assert found.in_proportion(64) == 236


def test_no_batch_fits_in_proportion():
  found, _ = searching(lambda size: 100 + 300 * size)
  assert found.in_proportion(64) is None
  found, _ = searching(lambda size: None)
  assert found.in_proportion(64) is None


@pytest.mark.parametrize(
  ('effort', 'space', 'quick'),
  [
    ('auto', 'nas_bench_macro', False),
    ('auto', 'nas_bench_201', False),
    ('auto', 'pooling', False),
    ('auto', 'mobilenet', True),
    ('full', 'mobilenet', False),
    ('quick', 'digits', True),
  ],
)
def test_large_spaces_are_compiled_quickly_unless_told(effort, space, quick):
  assert command.is_quick(effort, spaces.get(space).counts) is quick


@pytest.mark.slow
def test_a_quick_plan_says_so(here, small_space):
  machine = topologies.parse('v5e:1x1')
  experiment = compiling.experiment(SMALL, machine)
  row = estimating.estimate(experiment, machine, quick=True)
  assert row['largest_batch_size'] == experiment.training.images
  assert row['quick'] and row['fits'] and row['memory_traffic_bytes'] > 0
  assert re.search(r'compiled +quickly', printed([row]))


def printed(rows):
  out = io.StringIO()
  Console(width=80, file=out).print(table.table('a plan', rows))
  return out.getvalue()


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_said_to(here, small_space, monkeypatch):
  def refuse(*_, **options):
    raise DoesNotFit

  monkeypatch.setattr(compiling, 'compile_step', refuse)
  machine = topologies.parse('v5e:1x1')
  row = estimating.estimate(compiling.experiment(SMALL, machine), machine)
  assert row['fits'] is False and row['largest_batch_size'] is None
  assert 'hours' not in row
  lines = printed([row]).splitlines()
  assert any(re.fullmatch(r' *fits +NO *', line) for line in lines)
  assert any(re.fullmatch(r' *hours, at least +- *', line) for line in lines)


def test_tables_have_a_column_for_each_machine():
  rows = [
    {'topology': 'v5e:4x4', 'hours': 1.234, 'memory_bytes': 3 * 2**30},
    {'topology': 'h100:8', 'hours': 57.12, 'fits': True},
  ]
  text = printed(rows)
  assert re.search(r'v5e:4x4 +h100:8', text)
  assert re.search(r'hours, at least +1\.23 +57\.1', text)
  assert re.search(r'memory a device, GiB +3\.00 +-', text)


# Bad input.


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    ([], 'name machines: --topology'),
    (['--topology', 'v5e:5x5'], 'v5e comes as'),
    (['--topology', 'v5e:1x1', 'tpu'], "topology 'tpu' is none of"),
    (
      ['--topology', 'v5e:1x1', '--data.batch_size', '501'],
      'data.batch_size 501 is above the 500 training images',
    ),
  ],
)
def test_bad_input_is_one_line_before_any_compilation(
  flags, says, here, monkeypatch, capsys
):
  monkeypatch.setattr(
    compiling, 'compile_step', lambda *_: pytest.fail('compiled')
  )
  with pytest.raises(SystemExit) as ended:
    command.main(['--config', 'quickstart.py', *flags])
  assert ended.value.code == 2
  error = capsys.readouterr().err
  assert says in error and error.count('\n') == 1


def test_a_compiler_that_is_missing_is_one_line(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  for name in ('v5e:1x1', 'h100:1'):
    with pytest.raises(ValueError, match=r"pip install 'jaxnas\[plan\]'"):
      topologies.check_compiler(topologies.parse(name))


# The real compilers.


@pytest.mark.long
@pytest.mark.parametrize('name', ['v5e:2x2', 'h100:2', 'a100:1'])
def test_real_compilers_plan_digits(name, tmp_path):
  """In a process of its own: which compilers JAX finds is settled once."""
  machine = topologies.parse(name)
  try:
    topologies.check_compiler(machine)
  except ValueError as missing:
    pytest.skip(str(missing))
  out = tmp_path / 'plan.json'
  subprocess.run(
    [sys.executable, '-m', 'jaxnas.plan', '--config', 'quickstart.py',
     '--topology', name, '--data.batch_size', '64', '--no_largest_batch',
     '--out', out],
    check=True,
    cwd=Path(__file__).parents[1],
  )  # fmt: skip
  (row,) = json.loads(out.read_text())['plans']
  assert row['fits'] and row['devices'] == machine.devices
  assert all(
    row[key] > 0 and math.isfinite(row[key])
    for key in ('compute_s', 'memory_s', 'images_per_s', 'hours')
  )
  assert (row['sent_bytes'] > 0) == (machine.devices > 1)
