"""Training on a mesh is training on one device, to rounding.

All devices are this machine's, in one child process.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import mesh_runs
import numpy as np
import pytest
from mesh_runs import CASES

from jaxnas import build, spaces
from jaxnas.config import Config, Data, Mesh, Sampler, Supernet
from jaxnas.training import mesh
from jaxnas.validation import validate

SCRIPT = Path(mesh_runs.__file__)


def found_by_eight(file, *cases):
  flags = [
    '--xla_force_host_platform_device_count=8',
    # Programs run for a blink: what counts is how long they take to compile.
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
  ]
  subprocess.run(
    [sys.executable, SCRIPT, file, *cases],
    check=True,
    cwd=SCRIPT.parents[1],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(SCRIPT.parents[1]),
      'XLA_FLAGS': ' '.join([os.environ.get('XLA_FLAGS', ''), *flags]),
    },
  )
  found = dict(np.load(file))
  assert found.pop('devices') == 8
  return found


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mesh')
  return found_by_eight(folder / 'found.npz', 'draws', 'groups')


@pytest.fixture(scope='module')
def more(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mesh')
  cases = [case for case in CASES if case != 'groups']
  return found_by_eight(folder / 'found.npz', *cases)


def of(found, case, data, paths):
  prefix = f'{mesh_runs.name_of(case, data, paths)} '
  return {
    key.removeprefix(prefix): value
    for key, value in found.items()
    if key.startswith(prefix)
  }


def check(found, case):
  _, (first, *others) = CASES[case]
  one = of(found, case, *first)
  assert not one.pop('collectives').size
  assert np.isfinite(one['metrics']).all()
  for shape in others:
    many = of(found, case, *shape)
    collectives = many.pop('collectives').tolist()
    assert one.keys() == many.keys()
    if case != 'synchronised':
      # That of gradients, and none of normalisation or of images.
      assert collectives == ['all-reduce 1'], shape
    for key, value in one.items():
      if np.issubdtype(value.dtype, np.integer):
        np.testing.assert_array_equal(many[key], value, err_msg=key)
      elif case in spaces.NAMES:
        # Rounding grows with depth; a wrong gradient is off by more.
        off = np.linalg.norm(many[key] - value)
        assert off <= 0.01 * np.linalg.norm(value), (shape, key)
      else:
        np.testing.assert_allclose(
          many[key], value, rtol=1e-4, atol=1e-5, err_msg=f'{shape} {key}'
        )


@pytest.mark.slow
def test_the_same_run_on_any_mesh(found):
  """Also that one all-reduce a step is all that devices exchange."""
  check(found, 'groups')


@pytest.mark.long
@pytest.mark.parametrize('case', [case for case in CASES if case != 'groups'])
def test_the_same_run_with_feedback_and_shared_statistics(more, case):
  check(more, case)


@pytest.mark.parametrize('on', spaces.NAMES)
@pytest.mark.slow
def test_any_number_of_devices_draws_the_same_architectures(found, on):
  archs_TxPxE = found[f'{on} 1']
  assert len({archs_PxE.tobytes() for archs_PxE in archs_TxPxE}) > 1
  for devices in (2, 4, 8):
    np.testing.assert_array_equal(found[f'{on} {devices}'], archs_TxPxE)


def test_one_device_needs_no_mesh():
  assert mesh.layout(1, 1, 4) is None
  with pytest.raises(ValueError, match=r'is 4 devices; there are 1\.'):
    mesh.layout(2, 2, 2)


@pytest.mark.parametrize(
  ('mesh', 'groups', 'says'),
  [
    (Mesh(data=3), 1, 'does not divide into mesh.data 3 equal parts'),
    (Mesh(), 5, 'does not divide into supernet.bn_groups 5 equal parts'),
    (Mesh(), 64, 'have 1 image each; statistics need 2'),
    (Mesh(data=2, paths=2), 1, 'needs at least as many supernet.bn_groups'),
    (Mesh(data=4), 6, 'one must be a multiple of the other'),
  ],
)
def test_what_does_not_divide_is_refused(mesh, groups, says):
  data = Data(batch_size=12 if groups == 6 else 64)
  with pytest.raises(ValueError, match=says):
    validate(Config(mesh=mesh, supernet=Supernet(bn_groups=groups), data=data))


def test_paths_that_a_mesh_cannot_share_are_refused():
  given = Config(mesh=Mesh(paths=2), sampler=Sampler(name='fair'))
  with pytest.raises(ValueError, match='does not divide the 3 architectures'):
    build.check_paths(given, 3)
  with pytest.raises(ValueError, match='architectures alone are trained'):
    build.stand_alone(dataclasses.replace(given), None)


def test_processes_share_a_batch_by_its_rows():
  devices = np.array(jax.devices()).reshape(1, 1, 1)
  layout = mesh.Layout(
    jax.sharding.Mesh(devices, ('paths', *mesh.IMAGES)), mesh.Groups()
  )
  assert layout.share(6) == range(6)
  rows = {'x': np.arange(12).reshape(6, 2)}
  np.testing.assert_array_equal(layout.batch(rows, 6)['x'], rows['x'])
