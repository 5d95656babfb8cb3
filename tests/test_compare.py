"""Comparisons of samplers: what labels mean, what is kept, what is shown."""

import dataclasses
import gc
import json

import jax
import numpy as np
import pytest

from jaxnas import compare, config, spaces, sweep, truth
from jaxnas.config import Debias, Sampler, run_folder
from jaxnas.experiment import build, comparison, cost, datasets
from jaxnas.experiment import run as training
from jaxnas.report import figures
from jaxnas.report.console import comparison as console
from jaxnas.runtime import errors, files, jsonl, table
from jaxnas.runtime.errors import Stopped
from jaxnas.training.checkpoint import Checkpoints
from support.runs import final_state, flags_in, result_of

TINY = config.Config(
  warmup_epochs=1,
  epochs=1,
  data=config.Data(batch_size=100),
  debias=Debias(temperature=0.1),
  density=config.Density(batch_size=50),
)


def configured(label, *, budget='paths', debias=TINY.debias, **sampler):
  base = dataclasses.replace(TINY, debias=debias, sampler=Sampler(**sampler))
  return comparison.configure(base, label, budget)


@pytest.mark.parametrize(
  ('label', 'given', 'expected'),
  [
    ('uniform', {'name': 'fair'}, {}),
    ('uniform', {'members': 3, 'paths': 2}, {'paths': 2}),
    ('importance', {}, {}),
    ('importance:data', {}, {'variant': 'data'}),
    ('importance', {'name': 'importance', 'variant': 'path'}, {}),
    ('tree', {'name': 'tree', 'variant': 'iterative', 'rebuilds': 2}, {}),
    (
      'tree:hierarchical',
      {'name': 'tree', 'variant': 'iterative', 'rebuilds': 2},
      {'variant': 'hierarchical', 'rebuilds': 2},
    ),
    ('boltzmann', {'members': 3}, {}),
    ('uniform', {'name': 'mixture', 'members': 5}, {}),
    ('mixture', {'name': 'mixture', 'members': 5}, {'members': 5}),
    ('fair', {'paths': 2}, {}),
    ('tree', {'paths': 2}, {'paths': 2}),
  ],
)
@pytest.mark.parametrize('budget', ['paths', 'steps'])
def test_a_label_takes_the_options_that_its_sampler_has(
  label, given, expected, budget
):
  """Others have their defaults, whatever the config says."""
  name, _, _ = label.partition(':')
  sampler = Sampler(**{'name': name, 'budget': budget, **expected})
  for behind, debias in (('', Debias()), ('+debias', TINY.debias)):
    assert configured(label + behind, budget=budget, **given) == (
      dataclasses.replace(TINY, sampler=sampler, debias=debias)
    )


def test_debiasing_is_that_of_the_config_or_none():
  debias = Debias(effective_fraction=0.5, candidates=64)
  assert configured('fair+debias', debias=debias).debias == debias
  # Warm-ups are the same only among as many candidates.
  assert configured('fair', debias=debias).debias == Debias(candidates=64)
  exact = Debias(effective_fraction=0.5)
  assert configured('uniform+debias', debias=debias).debias == exact
  assert configured('uniform', debias=debias).debias == Debias()


@pytest.mark.parametrize(
  ('label', 'reads'),
  [
    ('uniform', False),
    ('fair', False),
    ('importance', False),
    ('novelty', False),
    ('boltzmann', True),
    ('tree', True),
    ('tree:hierarchical+debias', True),
    ('mixture', True),
  ],
)
def test_rewards_are_measured_now_and_then_where_they_are_read(label, reads):
  given = configured(label, reward_every=3)
  assert given.sampler.reward_every == 3
  found = comparison.checked(given, label, datasets.load(TINY.data))
  sampler = given.sampler
  if not reads:
    sampler = dataclasses.replace(sampler, reward_every=1)
  assert found == dataclasses.replace(given, sampler=sampler)


def flags_of(folder, samplers='uniform,uniform+debias', *, seeds=2):
  """A comparison of short runs on digits, and its folder."""
  flags, run = flags_in(folder)
  flags += ['--epochs', '1', '--seeds', str(seeds)]
  return [*flags, *(['--samplers', samplers] if samplers else [])], run


def of_large_images(folder, space, samplers):
  """Returns flags and run folder for spaces of 32x32 images, here of noise."""
  rng = np.random.default_rng(0)
  arrays = {
    f'{kind}_{part}': values
    for part in ('train', 'test')
    for kind, values in (
      ('x', rng.integers(0, 256, (40, 32, 32, 3), np.uint8)),
      ('y', np.arange(40) % 10),
    )
  }
  np.savez(folder / 'noise.npz', **arrays)
  flags, run = flags_of(folder, samplers)
  return [
    *flags, '--space', space, '--data.name', 'arrays',
    '--data.dir', str(folder / 'noise.npz'), '--data.batch_size', '10',
    '--debias.temperature', 'None', '--ranking.images', '20',
  ], run  # fmt: skip


@pytest.fixture
def never(monkeypatch):
  """Nothing may be trained."""

  def fail(*args, **kwargs):
    raise AssertionError('trained')

  monkeypatch.setattr(training, 'train', fail)


def refused(flags, run, capsys):
  """Returns the one line of a refusal; nothing has been written then."""
  with pytest.raises(SystemExit) as ended:
    compare.main(flags)
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert not run.exists()
  return err


@pytest.mark.parametrize(
  ('samplers', 'says'),
  [
    ('uniform,unifrom', "'unifrom' is none of"),
    ('unifrom', 'Did you mean uniform?'),
    ('tre:iterative', 'Did you mean tree?'),
    ('uniform,', "'' is none of"),
    ('uniform+x', "'uniform+x' ends in '+x'"),
    ('uniform+debias+debias', "'+debias+debias'"),
    ('uniform+', "'uniform+' ends in '+'"),
    ('uniform,fair:both', "'fair:both': fair has no variants"),
    ('uniform:iterative+debias', 'uniform has no variants'),
    ('uniform,tree:both', "tree:both: sampler tree has no variant 'both'"),
    (
      'importance:iterative',
      "importance:iterative: sampler importance has no variant 'iterative'",
    ),
    ('tree,uniform,tree', "has 'tree' twice"),
    (None, '--samplers uniform,uniform+debias'),
  ],
)
def test_labels_that_say_nothing_are_refused(
  tmp_path, capsys, never, samplers, says
):
  assert says in refused(*flags_of(tmp_path, samplers), capsys)


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--seeds', '0'], '--seeds is 0'),
    (['--debias.temperature', 'None'], 'uniform+debias needs debias.'),
    (['--table', 'missing.json'], 'missing.json'),
    (['--ranking.images', '501'], 'there are 500'),
  ],
)
def test_what_cannot_be_compared_is_refused(
  tmp_path, capsys, never, flags, says
):
  given, run = flags_of(tmp_path)
  assert says in refused([*given, *flags], run, capsys)


@pytest.mark.parametrize(
  ('space', 'label', 'says'),
  [
    ('pooling', 'fair', 'fair: sampler fair'),
    ('nas_bench_201', 'tree:hierarchical', 'nas_bench_201 has 15,625'),
  ],
)
def test_what_a_sampler_cannot_serve_is_refused(
  tmp_path, capsys, never, space, label, says
):
  flags, run = of_large_images(tmp_path, space, label)
  err = refused(flags, run, capsys)
  assert says in err and f'{label}: ' in err


def test_a_resumed_folder_has_to_say_what_it_compares(tmp_path, capsys, never):
  _, run = flags_of(tmp_path)
  run_folder.open_run(run, TINY, resume=False)
  with pytest.raises(SystemExit) as ended:
    compare.main(['--workdir', str(run), '--resume'])
  assert ended.value.code == 2
  assert 'say what to compare' in capsys.readouterr().err
  assert {file.name for file in run.iterdir()} == {'config.json'}


class Trained:
  """In place of `train.train`: remembers its calls, and may fail."""

  def __init__(self):
    self.calls = []
    self.errors = {}
    """By call of the next comparison, what it raises."""

  @property
  def runs(self):
    """Label and seed of each."""
    return [f'{run.parent.name} {run.name}' for run, *_ in self.calls]

  def __call__(
    self,
    experiment,
    run,
    table=None,
    *,
    warmup_from=None,
    preemption=None,
    group=None,
  ):
    assert group in run.parents
    self.calls.append((run, experiment.config, warmup_from))
    # As far as the warm-up everything goes well.
    (run / 'checkpoints' / str(experiment.warmup_steps)).mkdir(parents=True)
    if error := self.errors.get(self.runs[-1]):
      raise error
    out = result(experiment.config.seed, cost.of_run(experiment))
    assert preemption is not None
    if table is None:
      out = {k: v for k, v in out.items() if k in BARE}
    facts = {'config': config.digest(experiment.config)}
    files.write_result(run / 'correlation.json', out, facts)
    return out


BARE = (
  'n', 'best_arch', 'best_arch_accuracy', 'compute', 'split', 'images', 'bn',
)  # fmt: skip


def result(seed, spent=None, **changed):
  """Returns what a run's correlation.json may hold."""
  return {
    'n': 81,
    'best_arch': '0120',
    'split': 'validation',
    'images': 20,
    'bn': 'batch',
    'kendall': 0.5 + seed / 10,
    'spearman': 0.7,
    'top_kendall': None,
    'best_arch_accuracy': 0.8,
    'best_arch_true_accuracy': 0.9123,
    'baselines': {
      'macs': {'kendall': 0.6861, 'spearman': 0.8},
      'layers': {'kendall': 0.4, 'spearman': None},
    },
    'compute': spent
    or {
      'path_gradients': 1234567,
      'epochs': {'training': 9.0, 'ranking': 3.0, 'rewards': 1, 'density': 0.5},
    },
    **changed,
  }


@pytest.fixture
def trained(monkeypatch):
  stand_in = Trained()
  monkeypatch.setattr(training, 'train', stand_in)
  # Which would have this process compile again what little there is.
  monkeypatch.setattr(jax, 'clear_caches', lambda: None)
  monkeypatch.setattr(gc, 'collect', lambda: 0)
  return stand_in


def read(file):
  return json.loads(file.read_text())


EVERYTHING = [
  'uniform seed_0', 'tree-iterative+debias seed_0',
  'uniform seed_1', 'tree-iterative+debias seed_1',
]  # fmt: skip


def test_a_folder_a_label_and_a_run_a_seed(tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform,tree:iterative+debias')
  assert compare.main(flags) == 0
  assert trained.runs == EVERYTHING
  for label in ('uniform', 'tree:iterative+debias'):
    for seed in (0, 1):
      folder = run / label.replace(':', '-') / f'seed_{seed}'
      expected = comparison.configure(
        run_folder.read_config(run), label, 'paths'
      )
      assert run_folder.read_config(folder) == dataclasses.replace(
        expected, seed=seed
      )
  assert [given for _, given, _ in trained.calls] == [
    run_folder.read_config(run) for run, *_ in trained.calls
  ]
  assert read(run / 'compare.json') == {
    'samplers': ['uniform', 'tree:iterative+debias'],
    'seeds': 2,
    'budget': 'paths',
  }
  results = read(run / 'results.json')
  assert list(results) == ['uniform', 'tree:iterative+debias']
  assert results['tree:iterative+debias'] == [
    {'seed': seed, **result_of(folder / f'seed_{seed}' / 'correlation.json')}
    for folder in [run / 'tree-iterative+debias']
    for seed in (0, 1)
  ]
  assert (run / 'compare.png').read_bytes().startswith(b'\x89PNG')
  assert read(run / 'table.json')['data'] == 'digits'
  out = capsys.readouterr().out
  assert '0.550 ± 0.071' in out and 'tree:iterative+debias' in out


def test_seeds_follow_that_of_the_config(tmp_path, trained):
  flags, run = flags_of(tmp_path, 'uniform', seeds=3)
  compare.main([*flags, '--seed', '7', '--budget', 'steps'])
  assert trained.runs == [f'uniform seed_{seed}' for seed in (7, 8, 9)]
  assert [given.seed for _, given, _ in trained.calls] == [7, 8, 9]
  assert trained.calls[0][1].sampler.budget == 'steps'
  assert [of_run['seed'] for of_run in read(run / 'results.json')['uniform']]


def test_a_baseline_of_the_config_is_a_label_here(tmp_path, trained):
  flags, _ = flags_of(tmp_path, 'uniform+debias', seeds=1)
  compare.main([*flags, '--debias.baseline'])
  ((_, given, _),) = trained.calls
  assert given.debias == Debias(temperature=0.1)


def test_resuming_repeats_nothing(tmp_path, trained, capsys, monkeypatch):
  flags, run = flags_of(tmp_path, 'uniform,tree:iterative+debias')
  compare.main(flags)
  before, shown = read(run / 'results.json'), capsys.readouterr().out
  monkeypatch.setattr(training, 'train', None)
  assert compare.main(['--workdir', str(run), '--resume']) == 0
  assert read(run / 'results.json') == before
  images = f'{run}: 500 train, 500 validation, 797 test images of 8x8x1 in 10 '
  images += 'classes\n'
  assert shown.startswith(images)
  table, _, again = capsys.readouterr().out.removeprefix(images).partition('\n')
  assert table == (
    f'table {run / "table.json"}: 81 of 81 architectures, in fractions'
  )
  assert again == shown.rpartition('seed 1\n')[2]


def test_resuming_adds_labels_and_seeds(tmp_path, trained):
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  compare.main(flags)
  flags, _ = flags_of(tmp_path, 'uniform,novelty', seeds=2)
  compare.main([*flags, '--resume'])
  assert trained.runs == [
    'uniform seed_0', 'novelty seed_0', 'uniform seed_1', 'novelty seed_1'
  ]  # fmt: skip
  assert read(run / 'compare.json')['seeds'] == 2


def test_resuming_adds_seeds_alone(tmp_path, trained):
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  compare.main([*flags, '--budget', 'steps'])
  compare.main(['--workdir', str(run), '--resume', '--seeds', '2'])
  assert trained.runs == ['uniform seed_0', 'uniform seed_1']
  assert {given.sampler.budget for _, given, _ in trained.calls} == {'steps'}
  assert len(read(run / 'results.json')['uniform']) == 2


def test_results_of_another_budget_are_not_passed_off(
  tmp_path, trained, capsys
):
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  compare.main(flags)
  with pytest.raises(SystemExit) as ended:
    compare.main([*flags, '--resume', '--budget', 'steps'])
  assert ended.value.code == 2
  assert 'compares under --budget paths, not steps' in capsys.readouterr().err
  assert read(run / 'compare.json')['budget'] == 'paths'


def test_another_experiment_is_not_resumed(tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  compare.main(flags)
  for more, says in (
    ([], 'holds a run already'),
    (['--resume', '--epochs', '3'], 'with epochs 1, not 3'),
  ):
    with pytest.raises(SystemExit) as ended:
      compare.main([*flags, *more])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
  assert trained.runs == ['uniform seed_0']
  assert read(run / 'compare.json')['samplers'] == ['uniform']


def test_a_run_that_fails_loses_no_other(tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform,tree:iterative+debias')
  trained.errors = {EVERYTHING[1]: FloatingPointError('not finite\nat all')}
  assert compare.main(flags) == 1
  assert trained.runs == EVERYTHING
  err = capsys.readouterr().err.splitlines()
  assert err == [
    'error: FloatingPointError: not finite',
    'error: tree:iterative+debias, seed 0: FloatingPointError: not finite',
    f'try it again with --workdir {run} --resume',
  ]
  failed = run / 'tree-iterative+debias' / 'seed_0'
  assert 'Traceback' in (failed / 'error.txt').read_text()
  assert 'at all' in (failed / 'error.txt').read_text()
  results = read(run / 'results.json')
  assert results['tree:iterative+debias'][0] == {
    'seed': 0,
    'error': 'FloatingPointError: not finite',
  }
  for of_run in (*results['uniform'], results['tree:iterative+debias'][1]):
    assert of_run['kendall'] == 0.5 + of_run['seed'] / 10
  # Then that one alone.
  trained.calls.clear()
  trained.errors.clear()
  (failed / 'checkpoints' / '5').rmdir()
  assert compare.main(['--workdir', str(run), '--resume']) == 0
  assert trained.runs == EVERYTHING[1:2]
  assert not (failed / 'error.txt').exists()
  assert 'error' not in (run / 'results.json').read_text()
  assert capsys.readouterr().err == ''


def test_a_run_that_cannot_be_built_loses_no_other(
  tmp_path, trained, capsys, monkeypatch
):
  experiment = build.experiment

  def unlucky(given, loaded=None):
    if given.seed == 1:
      raise ValueError('no such seed')
    return experiment(given, loaded)

  monkeypatch.setattr(build, 'experiment', unlucky)
  flags, run = flags_of(tmp_path, 'uniform')
  assert compare.main(flags) == 1
  assert 'no such seed' in (run / 'uniform/seed_1/error.txt').read_text()
  assert len(read(run / 'results.json')['uniform']) == 2
  assert 'uniform, seed 1: ValueError: no such' in capsys.readouterr().err


@pytest.mark.parametrize('content', ['', '{"n": 81}'])
def test_a_damaged_result_loses_no_other(content, tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform,tree:iterative+debias')
  trained.errors = {EVERYTHING[-1]: RuntimeError()}
  assert compare.main(flags) == 1
  capsys.readouterr()
  trained.calls.clear()
  trained.errors.clear()
  (run / 'tree-iterative+debias/seed_1/checkpoints/5').rmdir()
  damaged = run / 'uniform/seed_0/correlation.json'
  damaged.write_text(content)
  assert compare.main(['--workdir', str(run), '--resume']) == 1
  # The one that was left is trained, and the others are shown.
  assert trained.runs == EVERYTHING[-1:]
  results = read(run / 'results.json')
  assert ['error' in x for x in results['uniform']] == [True, False]
  first, last = capsys.readouterr().err.splitlines()
  assert first.startswith(f'error: uniform, seed 0: {damaged} ')
  assert first.endswith('is taken away, --resume finishes the run anew.')
  assert last == f'try it again with --workdir {run} --resume'
  # As the line says.
  damaged.unlink()
  (run / 'uniform/seed_0/checkpoints/5').rmdir()
  assert compare.main(['--workdir', str(run), '--resume']) == 0
  assert 'error' not in (run / 'results.json').read_text()


def test_where_all_fail_there_is_nothing_to_show(tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform')
  trained.errors = {f'uniform seed_{seed}': RuntimeError() for seed in range(2)}
  assert compare.main(flags) == 1
  out, err = capsys.readouterr()
  assert 'ranking of' not in out
  assert 'try them again' in err
  assert not (run / 'compare.png').exists()


def test_a_signal_ends_all(tmp_path, trained, capsys):
  flags, run = flags_of(tmp_path, 'uniform,tree:iterative+debias')
  trained.errors = {EVERYTHING[1]: Stopped()}
  with pytest.raises(SystemExit) as ended:
    compare.main(flags)
  assert ended.value.code == errors.STOPPED == 143
  assert trained.runs == EVERYTHING[:2]
  assert f'--workdir {run} --resume' in capsys.readouterr().err
  assert not (run / 'tree-iterative+debias/seed_0/error.txt').exists()
  trained.calls.clear()
  trained.errors.clear()
  (run / 'tree-iterative+debias/seed_0/checkpoints/5').rmdir()
  assert compare.main(['--workdir', str(run), '--resume']) == 0
  assert trained.runs == EVERYTHING[1:]


def warmups(trained):
  """Lists the other run whose warm-up each run took over, None without one."""
  return [
    f'{given.parent.name} {given.name}' if given and given != run else None
    for run, _, given in trained.calls
  ]


def test_the_debiased_start_from_the_warm_up_of_the_same_sampler(
  tmp_path, trained
):
  flags, _ = flags_of(tmp_path, 'uniform,uniform+debias,tree,tree+debias')
  compare.main(flags)
  one_seed = lambda seed: [  # noqa: E731
    None, f'uniform seed_{seed}', None, f'tree seed_{seed}'
  ]  # fmt: skip
  assert warmups(trained) == one_seed(0) + one_seed(1)


def test_without_such_a_warm_up_they_have_their_own(tmp_path, trained):
  flags, _ = flags_of(tmp_path, 'uniform+debias,uniform', seeds=1)
  compare.main(flags)
  assert warmups(trained) == [None, None]


OF = {compare: ['--samplers', 'uniform'], sweep: ['--set', 'seed=0,1']}


@pytest.fixture(params=OF)
def begun(request, tmp_path):
  """A command that trains labelled runs, its flags, and their folder."""
  flags, run = flags_in(tmp_path)
  flags += ['--epochs', '1', '--debias.effective_fraction', 'None']
  return request.param, [*flags, *OF[request.param]], run


def table_in(folder, *, lacks=0, adds=0.0):
  """Writes the table of digits to a file, short of some, or changed a bit."""
  whole = truth.load(spaces.get('digits'))
  seeds_AxS = whole.seeds_AxS.copy()
  seeds_AxS[0] += adds
  part = dataclasses.replace(
    whole, archs_AxE=whole.archs_AxE[lacks:], seeds_AxS=seeds_AxS[lacks:]
  )
  truth.dump(part, folder / 'own.json', data='digits')
  return ['--table', str(folder / 'own.json')]


def test_a_folder_is_held_to_one_table(begun, tmp_path, trained, capsys):
  command, flags, run = begun
  assert command.main(flags) == 0
  # Its folder may have moved, and what it holds is the same.
  again = ['--workdir', str(run), '--resume']
  assert command.main([*again, *table_in(tmp_path)]) == 0
  before = read(run / 'table.json')
  with pytest.raises(SystemExit) as ended:
    command.main([*again, *table_in(tmp_path, adds=0.01)])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert 'is held to another table' in err and '--table' in err
  assert read(run / 'table.json') == before


def test_a_table_is_no_news_to_runs_that_are_done(
  begun, tmp_path, trained, capsys, monkeypatch
):
  command, flags, run = begun
  with monkeypatch.context() as patched:
    patched.setattr(truth, 'find', lambda *_: None)
    assert command.main(flags) == 0
  with pytest.raises(SystemExit) as ended:
    command.main(['--workdir', str(run), '--resume', *table_in(tmp_path)])
  assert ended.value.code == 2
  assert 'was held to no table' in capsys.readouterr().err
  assert not (run / 'table.json').exists()


def test_a_table_holds_what_is_ranked(begun, tmp_path, trained, capsys):
  command, flags, run = begun
  with pytest.raises(SystemExit) as ended:
    command.main([*flags, *table_in(tmp_path, lacks=1)])
  assert ended.value.code == 2 and not trained.calls and not run.exists()
  assert '0000' in capsys.readouterr().err


def test_without_truth_there_is_no_picture(
  tmp_path, trained, capsys, monkeypatch
):
  monkeypatch.setattr(truth, 'find', lambda *_: None)
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  assert compare.main(flags) == 0
  assert not (run / 'table.json').exists()
  assert not (run / 'compare.png').exists()
  assert '80.00' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('values', 'factor', 'says'),
  [
    ([0.5, 0.7], 1, '0.600 ± 0.141'),
    ([0.5], 1, '0.500'),
    ([0.9123, 0.9133, None], 100, '91.28 ± 0.07'),
    ([-0.25, 0.25, 0.25, -0.25], 1, '0.000 ± 0.289'),
    ([None, None], 1, '-'),
    ([], 100, '-'),
  ],
)
def test_means_and_sample_standard_deviations(values, factor, says):
  assert console.spread(values, factor) == says


def test_what_is_spent_besides_training_and_ranking():
  spent = {
    'epochs': {
      'training': 30.0,
      'rewards': 1.5,
      'density': 0.25,
      'rebuilding': 2,
      'ranking': 8.0,
    }
  }
  assert console.besides(spent) == 3.75


def shown(results, capsys):
  """Lines of the table, none of them too long, every label unbroken."""
  console.show(results)
  lines = capsys.readouterr().out.splitlines()
  assert all(len(line) <= table.WIDTH == 110 for line in lines)
  assert '…' not in ''.join(lines)
  rows = {}
  for line in lines:
    first, *cells = line.replace(' ± ', '±').split() or ['']
    if first in results:
      rows[first] = cells
  assert list(rows) == list(results)
  return rows, ' '.join(' '.join(lines).split())


LABELS = ('uniform', 'tree:hierarchical+debias', 'importance:both+debias')


def test_a_table_of_the_longest_label_and_the_widest_numbers(capsys):
  wide = [
    result(seed, kendall=-0.6, spearman=-0.1 * seed, top_kendall=-0.5 + seed)
    for seed in range(3)
  ]
  rows, text = shown({label: wide for label in LABELS}, capsys)
  assert rows['uniform'] == [
    '-0.600±0.000', '-0.100±0.100', '0.500±1.000', '91.23±0.00',
    '1,234,567', '1.50',
  ]  # fmt: skip
  assert 'ranking of 81 architectures, 3 seeds' in text
  assert 'macs alone 0.686 0.800' in text
  assert 'layers alone 0.400 -' in text
  assert 'Fewer seeds' not in text


def test_a_table_with_runs_that_failed(capsys):
  failed = {'seed': 0, 'error': 'OSError: disk full'}
  results = {
    'uniform': [failed, failed],
    'tree:hierarchical+debias': [failed, result(1)],
    'fair': [result(0), result(1)],
  }
  rows, text = shown(results, capsys)
  assert rows['uniform'] == ['-'] * 6
  assert rows['tree:hierarchical+debias'][:2] == ['0.600', '0.700']
  assert rows['fair'][0] == '0.550±0.071'
  assert text.endswith(
    'Fewer seeds finished: uniform 0/2, tree:hierarchical+debias 1/2.'
  )
  assert '2 seeds' in text


def test_a_table_of_one_seed(capsys):
  rows, text = shown({'uniform': [result(0)]}, capsys)
  assert rows['uniform'] == [
    '0.500', '0.700', '-', '91.23', '1,234,567', '1.50'
  ]  # fmt: skip
  assert 'architectures, 1 seed ' in text
  assert 'architecture trained alone.' in text


def test_a_table_without_truth(capsys):
  bare = {name: result(0)[name] for name in BARE}
  rows, text = shown({label: [bare, bare] for label in LABELS}, capsys)
  assert set(map(tuple, rows.values())) == {('80.00±0.00', '1,234,567', '1.50')}
  assert 'architecture in the supernet.' in text
  assert 'alone' not in text and 'tau' not in text


def test_a_picture_where_a_label_has_no_number(tmp_path):
  figures.comparison(
    {'uniform': [result(0), result(1)], 'fair': [{'error': 'x'}]},
    tmp_path / 'some.png',
  )
  assert (tmp_path / 'some.png').read_bytes().startswith(b'\x89PNG')
  figures.comparison({'fair': [{'error': 'x'}]}, tmp_path / 'none.png')
  assert not (tmp_path / 'none.png').exists()


@pytest.fixture(scope='module')
def real(tmp_path_factory):
  """Four runs of two epochs."""
  flags, run = flags_of(tmp_path_factory.mktemp('real'))
  assert compare.main(flags) == 0
  return run


LEFT = ('correlation.json', 'predictions.npz', 'samples.npz', 'metrics.jsonl')


@pytest.mark.slow
def test_real_runs_share_their_warm_up(real):
  for seed in (0, 1):
    plain = real / 'uniform' / f'seed_{seed}'
    debiased = real / 'uniform+debias' / f'seed_{seed}'
    assert files.read_npz(plain / 'samples.npz')['samples_A'].sum() == 10
    # The plain run's steps are not repeated, and can be taken over from both.
    for run, trained in ((plain, [2, 4, 6, 8, 10]), (debiased, [6, 8, 10])):
      rows = jsonl.read_rows(run / 'metrics.jsonl', {'step': int})
      assert [x['step'] for x in rows if 'loss' in x] == trained
      with Checkpoints(run / 'checkpoints', read_only=True) as checkpoints:
        assert checkpoints.steps() == [5, 10]
    alpha_A = np.asarray(final_state(debiased).sampler.alpha_A)
    assert np.ptp(alpha_A) > 0
    assert not np.asarray(final_state(plain).sampler.alpha_A).any()


@pytest.mark.slow
@pytest.mark.parametrize('label', ['uniform', 'uniform+debias'])
def test_a_real_run_is_the_one_of_train_alone(real, tmp_path, label):
  compared = real / label / 'seed_1'
  alone = run_folder.read_config(compared)
  run_folder.open_run(tmp_path, alone, resume=False)
  training.train(build.experiment(alone), tmp_path)
  jax.tree.map(
    np.testing.assert_array_equal, final_state(compared), final_state(tmp_path)
  )
  for name in ('predictions.npz', 'samples.npz'):
    for key, value in files.read_npz(compared / name).items():
      np.testing.assert_array_equal(value, files.read_npz(tmp_path / name)[key])


@pytest.mark.slow
def test_a_real_comparison_leaves_all_of_it_and_is_not_repeated(
  real, capsys, monkeypatch
):
  results = read(real / 'results.json')
  assert list(results) == ['uniform', 'uniform+debias']
  for label, of_seeds in results.items():
    for seed, of_run in enumerate(of_seeds):
      folder = real / label / f'seed_{seed}'
      assert of_run == {'seed': seed, **result_of(folder / 'correlation.json')}
      experiment = build.experiment(run_folder.read_config(folder))
      assert of_run['compute'] == cost.of_run(experiment)
      assert of_run['n'] == 81 and -1 <= of_run['kendall'] <= 1
  assert (real / 'compare.png').stat().st_size > 5000
  files = [run / name for run in real.glob('*/seed_*') for name in LEFT]
  assert len(files) == 16
  before = [file.stat().st_mtime_ns for file in files]
  monkeypatch.setattr(training, 'train', None)
  assert compare.main(['--workdir', str(real), '--resume']) == 0
  assert [file.stat().st_mtime_ns for file in files] == before
  assert 'Kendall tau' in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_run_that_fails_goes_on_from_its_checkpoint(
  tmp_path, monkeypatch
):
  """And ends as the ones that did not fail."""
  flags, run = flags_of(tmp_path, 'uniform', seeds=1)
  with monkeypatch.context() as patch:
    patch.setattr('jaxnas.supernets.evaluation.right', None)
    assert compare.main(flags) == 1
  kept = run / 'uniform' / 'seed_0'
  assert 'TypeError' in (kept / 'error.txt').read_text()
  rows = (kept / 'metrics.jsonl').read_text()
  assert compare.main(['--workdir', str(run), '--resume']) == 0
  assert (kept / 'metrics.jsonl').read_text() == rows
  assert (kept / 'correlation.json').exists()
