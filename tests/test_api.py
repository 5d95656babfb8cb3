"""The package as a notebook calls it."""

import ast
import dataclasses
import importlib
import json
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxnas
from jaxnas import export, measure, rank, retrain, search
from jaxnas.config import run_folder
from jaxnas.runtime import errors, files, lock
from support import small_run
from support.runs import result_of

FRESH = """
import sys, time
start = time.perf_counter()
import jaxnas
print(time.perf_counter() - start)
assert not {'jax', 'numpy', 'tyro'} & {*sys.modules}
assert {'Config', 'open_run', '__version__'} <= {*dir(jaxnas)}
assert jaxnas.Config().seed == 0
assert 'jax' not in sys.modules
"""


def test_it_is_imported_at_once_and_without_jax():
  ended = subprocess.run(
    [sys.executable, '-c', FRESH],
    capture_output=True,
    text=True,
    check=True,
  )
  assert float(ended.stdout) < 0.2


def modules():
  """All modules that can be imported here: PyTorch is an extra."""
  for module in pkgutil.walk_packages(jaxnas.__path__, 'jaxnas.'):
    if 'torch' not in module.name and not module.name.endswith('__main__'):
      yield module.name


def test_no_module_hides_a_name():
  before = {name: getattr(jaxnas, name) for name in jaxnas.__all__}
  for name in modules():
    if name != 'jaxnas.bench.rivals':  # a script
      importlib.import_module(name)
  for name, value in before.items():
    assert getattr(jaxnas, name) is value
    assert not isinstance(value, types.ModuleType)
  assert not {name.rpartition('.')[2] for name in modules()} & {*before}
  assert {*before} <= {*dir(jaxnas)}
  assert not {'Any', 'importlib', 'loading'} & {*dir(jaxnas)}
  with pytest.raises(AttributeError, match="no attribute 'trian'"):
    jaxnas.trian  # noqa: B018


def test_a_switch_at_the_end_of_a_sentence_is_said_as_in_python():
  assert errors.in_python('or add --overwrite.') == 'or add overwrite=True.'


def test_type_checkers_see_the_same_names():
  stub = Path(jaxnas.__file__).with_suffix('.pyi').read_text()
  names = {
    alias.asname
    for node in ast.parse(stub).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
  assert names | {'__version__'} == {*jaxnas.__all__}


@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    ({'epoch': 3}, "field 'epoch' is none of"),
    ({'data': {'bach_size': 3}}, 'Did you mean data.batch_size'),
    ({'data': 3}, r'data is 3; it must be a Data\(...\)'),
    ({'data': {'batch_size': '3'}}, "data.batch_size is '3'; it must be an in"),
    ({'data': {'batch_size': 0}}, 'data.batch_size is 0; it must be at least'),
    ({'debias': {'temperature': 1, 'effective_fraction': 1}}, 'exclude each'),
  ],
)
def test_fields_that_a_config_does_not_take(fields, error):
  with pytest.raises(ValueError, match=error):
    jaxnas.load_config('quickstart.py', **fields)


def test_a_config_with_other_fields():
  given = jaxnas.load_config('quickstart.py')
  assert given.debias.effective_fraction
  found = jaxnas.load_config(
    'quickstart.py',
    seed=3,
    data={'dir': 'x'},
    debias={'temperature': 2},
    ranking=jaxnas.Ranking(images=7),
  )
  assert found == dataclasses.replace(
    given,
    seed=3,
    data=dataclasses.replace(given.data, dir=str(Path('x').absolute())),
    # One replaces the other, as it does on the command line.
    debias=dataclasses.replace(
      given.debias, temperature=2.0, effective_fraction=None
    ),
    ranking=jaxnas.Ranking(images=7),
  )


def test_a_config_is_checked_before_a_folder_is_made(tmp_path):
  given = jaxnas.Config(epochs=-1)
  for _ in range(2):
    with pytest.raises(ValueError, match='epochs is -1'):
      jaxnas.run_experiment(given, tmp_path / 'run')
  assert not [*tmp_path.iterdir()]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A debiased run on the small space, with its undebiased twin."""
  folder = tmp_path_factory.mktemp('api')
  small_run.flags_in(folder)
  with small_run.registered():
    given = jaxnas.load_config(
      folder / 'small.py',
      debias={'temperature': 0.1, 'baseline': True},
      ranking={'archs': 20, 'every_epochs': None, 'sample': 100},
    )
    yield jaxnas.run_experiment(
      given, str(folder / 'run'), table=str(folder / 'truth.json')
    )


def test_a_run_is_arrays(run):
  again = jaxnas.open_run(str(run.workdir))
  assert again.config == run.config
  for one in (run, again, run, run.undebiased):
    assert len(one.archs) == 20 == len({*one.archs})
    rows_A = run.space.index(np.stack([run.space.parse(a) for a in one.archs]))
    np.testing.assert_array_equal(
      one.accuracies,
      files.read_npz(one.workdir / 'predictions.npz')['accuracy_A'],
    )
    np.testing.assert_allclose(one.truth, small_run.TABLE.accuracy_A[rows_A])
    counts = files.read_npz(one.workdir / 'samples.npz')['samples_A']
    np.testing.assert_array_equal(one.samples, counts[rows_A])
    assert one.correlation == result_of(one.workdir / 'correlation.json')
    assert int(one.state.step) == 40
    leaves = jax.tree.leaves(one.state)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    costs = run.space.costs(small_run.ARCHS_AxE[rows_A])
    table = one.table()
    order_A = np.argsort(-one.accuracies, kind='stable')
    assert [*table['arch']] == [one.archs[a] for a in order_A]
    np.testing.assert_array_equal(table['macs'], costs.macs_A[order_A])
    assert ('density' in table) == (one is not run.undebiased)
  alpha_A = files.read_npz(run.workdir / 'density.npz')['alpha_A']
  np.testing.assert_array_equal(run.densities, alpha_A[rows_A])
  np.testing.assert_allclose(run.temperature, 0.1, rtol=1e-6)
  p_A = np.exp(-alpha_A / 0.1)
  np.testing.assert_allclose(
    run.probabilities, (p_A / p_A.sum())[rows_A], rtol=1e-4
  )
  other = run.undebiased
  assert (other.temperature, other.densities, other.undebiased) == (None,) * 3
  np.testing.assert_allclose(other.probabilities, 1 / 27, rtol=1e-5)


def test_a_frame_where_pandas_is_there(run, monkeypatch):
  pandas = types.SimpleNamespace(DataFrame=lambda columns: ['frame', columns])
  monkeypatch.setitem(sys.modules, 'pandas', pandas)
  kind, columns = run.table()
  assert kind == 'frame' and {len(values) for values in columns.values()} == {
    20
  }


# (method, its keywords, the command, its flags, what both write)
METHODS = {
  'rank': (
    {'split': 'test', 'images': 40},
    rank,
    ['--ranking.split', 'test', '--ranking.images', '40'],
    ('correlation.json', 'predictions.npz'),
  ),
  'search': (
    {'searcher': 'random', 'population': 5, 'generations': 1, 'images': 20,
     'max_macs': '1M'},
    search,
    ['--searcher', 'random', '--population', '5', '--generations', '1',
     '--ranking.images', '20', '--max_macs', '1M'],
    ('best.json', 'search.json', 'search.png'),
  ),
  'measure': (
    {'measure': ['functional'], 'archs': 6},
    measure,
    ['--measure', 'functional', '--archs', '6'],
    ('density-functional-inverse_mean_distance.npz', 'density.png'),
  ),
  'retrain': (
    {'arch': '012', 'epochs': 1, 'seeds': 1, 'data': {'batch_size': 50}},
    retrain,
    ['--arch', '012', '--retrain.epochs', '1', '--retrain.seeds', '1',
     '--data.batch_size', '50'],
    ('result.json', 'config.json', 'retrain.json'),
  ),
  'export': (
    {'arch': '012', 'batches': 2},
    export,
    ['--arch', '012', '--batches', '2'],
    ('network.json',),
  ),
}  # fmt: skip


def content(file):
  """Reads a file, without the command and the folder that made it."""
  if file.suffix == '.npz':
    return {
      name: value.tolist() for name, value in files.read_npz(file).items()
    }
  if file.suffix == '.png':
    return None
  found = json.loads(file.read_text())
  for name in ('command', 'seal', 'facts', 'made_of'):
    found.pop(name, None)
  return found


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_a_method_does_what_the_command_does(run, tmp_path, method):
  keywords, command, flags, written = METHODS[method]
  ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
  returned = getattr(run, method)(workdir=str(ours), **keywords)
  # The folder is free again.
  assert not [*lock.kept(ours / 'x')]
  argv = ['--run', str(run.workdir), '--workdir', str(theirs), *flags]
  assert command.main(argv) == 0
  for name in written:
    assert content(ours / name) == content(theirs / name)
  again = {'resume': True} if method in ('search', 'retrain') else {}
  if method == 'export':
    again = {'overwrite': True}
  twice = getattr(jaxnas.open_run(run.workdir), method)(
    workdir=ours, **keywords, **again
  )
  if method == 'measure':
    np.testing.assert_array_equal(
      returned['functional'].alpha_A, twice['functional'].alpha_A
    )
  else:
    assert {k: v for k, v in returned.items() if k != 'command'} == {
      k: v for k, v in twice.items() if k != 'command'
    }


REFUSED = {
  'rank': ({'images': 10**6}, 'ranking.images is 1000000; there are'),
  'search': ({'max_macs': '1'}, 'no architecture'),
  'measure': ({'archs': 1}, 'archs is 1; small has 27'),
  'retrain': ({'arch': '9'}, "'9' has 1 digits"),
  'export': ({'arch': '019'}, 'op 9 at position'),
}


@pytest.mark.parametrize('method', REFUSED)
@pytest.mark.parametrize('unknown', [False, True])
def test_a_method_raises_what_the_command_says(run, method, unknown):
  keywords, error = REFUSED[method]
  if unknown:
    keywords, error = {'wrkdir': 'x'}, 'Did you mean workdir?'
  for _ in range(2):
    with pytest.raises(ValueError, match=error):
      getattr(run, method)(**keywords)
  assert not [*lock.kept(run.workdir / 'x')]


def test_what_a_run_has_not(finished, tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no run'):
    jaxnas.open_run(tmp_path)
  (tmp_path / 'config.json').write_text((finished / 'config.json').read_text())
  begun = jaxnas.open_run(tmp_path)
  assert begun.undebiased is None
  with pytest.raises(FileNotFoundError):
    begun.accuracies  # noqa: B018
  (tmp_path / 'compare.json').write_text('{}')
  with pytest.raises(ValueError, match='was written by jaxnas'):
    jaxnas.open_run(tmp_path)


@pytest.mark.slow
def test_samplers_are_compared_as_the_command_does(small_space, tmp_path):
  small_run.flags_in(tmp_path)
  for more in ({}, {'resume': True}):
    results = jaxnas.compare_samplers(
      tmp_path / 'small.py',
      ['uniform'],
      tmp_path / 'both',
      seeds=1,
      table=tmp_path / 'truth.json',
      **more,
    )
    (result,) = results['uniform']
    assert result['seed'] == 0 and 'kendall' in result
    found = jaxnas.open_run(tmp_path / 'both/uniform/seed_0')
    assert found.correlation['kendall'] == result['kendall']
  with pytest.raises(ValueError, match='holds a run already'):
    jaxnas.compare_samplers(
      tmp_path / 'small.py', ['uniform'], tmp_path / 'both', seeds=1
    )


@dataclasses.dataclass(frozen=True)
class Options:
  first: int = 0


def one_only(space, *, options):
  return jaxnas.samplers.fixed(space.positions)


def test_a_sampler_of_ones_own():
  registry = importlib.import_module('jaxnas.config.registry')
  for make in (one_only, f'{__name__}:one_only', one_only):
    jaxnas.register_sampler('mine', make, Options)
    try:
      assert registry.SAMPLERS.get('mine') is one_only
      given = jaxnas.Sampler(name='mine', options={'first': 2})
      made = registry.SAMPLERS.options(given.name, given.options)
      assert made == {'options': Options(2)}
    finally:
      registry.SAMPLERS.remove('mine')
  with pytest.raises(ValueError, match='has no name of its own'):
    jaxnas.register_sampler('mine', lambda space: None)


def test_a_signal_is_an_error_that_says_how_to_go_on(run, monkeypatch):
  from jaxnas.experiment import predictions

  def stopped(*args, **kwargs):
    raise errors.Stopped

  monkeypatch.setattr(predictions, 'take_over', stopped)
  with pytest.raises(errors.Stopped, match='keeps what is done'):
    run.rank()
  assert not [*lock.kept(run.workdir / 'rank-validation-batch/x')]
  assert run_folder.read_config(run.workdir) == run.config
