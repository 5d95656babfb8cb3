"""Numbers of steps that real compilers make for machines that are not here.

They need the extra plan. Each is compiled in a process of its own, since which
compilers JAX finds is settled once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnas.nn import gpu
from jaxnas.plan import topologies

# A config, its batch, a machine, flags, and the most GB that a step may move;
# by XLA alone, or with kernels of ours.
STEPS = [
  ('macro.py', 512, 'h100:1', [], 10.5, '0'),
  ('macro.py', 512, 'h100:1', [], 6.8, '1'),
  # Several steps in one program move what single ones do, 10.21, within 1%.
  (
    'macro.py',
    512,
    'h100:1',
    ['--mesh.steps_per_dispatch', '8', '--logging.every_steps', '8'],
    10.31,
    '0',
  ),
  ('pooling.py', 512, 'h100:1', [], 4.0, '0'),
  ('nas_bench_201.py', 64, 'h100:1', [], 2.0, '0'),
  ('macro.py', 512, 'v5e:1x1', ['--effort', 'quick'], 8.6, '0'),
]


# Machines whose devices have a part of the batch each, normalised alone.
MANY = [('h100:64', [], 0.5e9), ('v5e:16x16', ['--effort', 'quick'], 0.43e9)]


def plan(out, config, batch, name, flags, by_ours='0'):
  """Returns what the command writes of a step."""
  try:
    topologies.check_compiler(topologies.parse(name))
  except ValueError as missing:
    pytest.skip(str(missing))
  subprocess.run(
    [sys.executable, '-m', 'jaxnas.plan', '--config', config,
     '--topology', name, '--data.batch_size', str(batch),
     '--no_largest_batch', '--out', out, *flags],
    check=True,
    cwd=Path(__file__).parents[1],
    env={**os.environ, gpu.SWITCH: by_ours},
  )  # fmt: skip
  (row,) = json.loads(out.read_text())['plans']
  return row


@pytest.fixture(
  scope='module', params=STEPS, ids=lambda each: '-'.join(each[::2][:2])
)
def planned(request, tmp_path_factory):
  """Returns what the command writes of a step, and the most it may move."""
  config, batch, name, flags, most_gb, by_ours = request.param
  out = tmp_path_factory.mktemp('plan') / 'plan.json'
  row = plan(out, config, batch, name, flags, by_ours)
  return row, most_gb


@pytest.mark.slow
def test_a_step_moves_no_more_than_it_did(planned):
  row, most_gb = planned
  assert row['memory_traffic_bytes'] <= 1e9 * most_gb
  by_kind = row['traffic_by_kind']
  assert sum(by_kind.values()) == pytest.approx(row['memory_traffic_bytes'])
  # The data set, 154 MB of CIFAR-10, is neither copied nor read as a whole.
  assert by_kind['images'] < 50e6


# NAS-Bench-Macro up to its first position, whose maps are its largest.
ONE_POSITION = """
from jaxnas import spaces
from jaxnas.config import Config, Data
from jaxnas.spaces import chain, macro

def get_config():
  spaces.add(
    chain.chain(
      'one_position', image_shape=(32, 32, 3), classes=10, any_images=True,
      stem=32, stages=(chain.Stage(1, 64),), blocks=macro.BLOCKS, head=1280,
    )
  )
  return Config(
    space='one_position', data=Data(name='cifar10', crop_padding=4, flip=True)
  )
"""


@pytest.mark.slow
def test_a_tpu_moves_the_maps_of_a_position_and_no_data_set(tmp_path):
  config = tmp_path / 'one_position.py'
  config.write_text(ONE_POSITION)
  row = plan(
    tmp_path / 'plan.json', config, 512, 'v5e:1x1', ['--effort', 'quick']
  )
  assert row['memory_traffic_bytes'] <= 4.3e9
  assert row['traffic_by_kind']['images'] < 50e6


@pytest.mark.slow
def test_no_branch_waits_for_the_host(planned):
  row, _ = planned
  if row['topology'].startswith('v5e'):
    assert 'host_waits' not in row
    return
  assert row['host_waits'] == 0 < row['host_waits_without_graphs']
  assert row['host_launches'] < row['host_launches_without_graphs']


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'flags', 'most'), MANY)
def test_many_devices_exchange_gradients_and_share_images(
  name, flags, most, tmp_path
):
  groups = str(topologies.parse(name).devices)
  row = plan(
    tmp_path / 'plan.json', 'macro.py', 512, name,
    ['--supernet.bn_groups', groups, *flags],
  )  # fmt: skip
  assert row['collectives'] == 1
  assert row['memory_traffic_bytes'] <= most
