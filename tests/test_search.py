"""The real command, in process, on a run of a space of 27 architectures."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

from jaxnas import density, search, searchers, supernets
from jaxnas.config import run_folder, types
from jaxnas.config.registry import SEARCHERS
from jaxnas.experiment import build, datasets, densities, ranking, scoring
from jaxnas.nn import target
from jaxnas.runtime import errors, files
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption
from jaxnas.runtime.rng import child_seed
from jaxnas.searchers import findings
from jaxnas.training.checkpoint import Checkpoints
from support import small_run
from support.small_run import SPACE, TABLE, ARCHS_AxE

pytestmark = pytest.mark.usefixtures('small_space')

COSTS = SPACE.costs(ARCHS_AxE)
MACS = int(np.median(COSTS.macs_A))
FLAGS = {
  'random': ['--population', '4', '--generations', '3'],
  'exhaustive': ['--population', '4'],
  'evolution': ['--population', '4', '--generations', '3', '--parents', '2'],
  'shifting': ['--population', '4', '--generations', '3', '--parents', '2'],
  'tree': ['--population', '4', '--generations', '3'],
}


@pytest.fixture(autouse=True)
def steep(monkeypatch):
  """Weights shift by so much that accuracies do."""
  monkeypatch.setattr(scoring, 'SHIFT_LR', 0.05)


def call(run, workdir, *more):
  assert search.main(
    ['--run', str(run), '--workdir', str(workdir), *more]
  ) == 0  # fmt: skip


def flags(name):
  return ['--searcher', name, '--max_macs', str(MACS), *FLAGS[name]]


@pytest.fixture(scope='module')
def whole(small, tmp_path_factory):
  """name -> the folder of an uninterrupted search."""
  done: dict[str, Path] = {}

  def of(name):
    if name not in done:
      folder = tmp_path_factory.mktemp(name)
      call(small, folder, *flags(name))
      done[name] = folder
    return done[name]

  return of


def rows(folder):
  return [*map(json.loads, (folder / 'search.jsonl').read_text().splitlines())]


def best(folder):
  """Returns the best arch's record, without the command, which holds paths."""
  found = json.loads((folder / 'best.json').read_text())
  del found['command']
  return found


@pytest.mark.parametrize('name', [*SEARCHERS])
def test_every_searcher_ends_and_its_files_agree(small, whole, name):
  folder = whole(name)
  what = json.loads((folder / 'search.json').read_text())
  assert what['searcher'] == name and what['max_macs'] == str(MACS)
  assert what['ranking']['images'] == 30 and what['run'] == str(small)
  state = searchers.load_state(folder / 'state.npz')
  listed = rows(folder)
  archs_VxE = np.array([SPACE.parse(row['arch']) for row in listed])
  np.testing.assert_array_equal(archs_VxE, state.archs_VxE)
  for key, values_V in (
    ('accuracy', state.accuracy_V),
    ('generation', state.generation_V),
    ('params', SPACE.costs(archs_VxE).params_A),
    ('macs', SPACE.costs(archs_VxE).macs_A),
  ):
    assert [row[key] for row in listed] == values_V.tolist()
  assert max(row['macs'] for row in listed) <= MACS
  count = {'exhaustive': (COSTS.macs_A <= MACS).sum(), 'tree': len(listed)}
  assert len(listed) == count.get(name, 12)
  last = {row['arch']: row for row in listed}
  found = json.loads((folder / 'best.json').read_text())
  if name != 'tree':
    first = max(last.values(), key=lambda row: row['accuracy'])
    assert found['accuracy'] == first['accuracy']
  assert {key: found[key] for key in listed[0]} == last[found['arch']]
  arch_E = SPACE.parse(found['arch'])
  assert found['true_accuracy'] == TABLE.accuracy(arch_E[None])[0]
  assert (found['run'], found['step']) == (str(small), 40)
  assert imread(folder / 'search.png').std() > 0.05
  predicted_A = files.read_npz(small / 'predictions.npz')['accuracy_A']
  expected_V = predicted_A[SPACE.index(archs_VxE)]
  assert (state.accuracy_V == expected_V).all() == (name != 'shifting')


def test_exhaustive_finds_what_the_run_ranks_first(small, tmp_path, capsys):
  call(small, tmp_path, '--searcher', 'exhaustive', '--top', '3')
  predicted_A = files.read_npz(small / 'predictions.npz')['accuracy_A']
  state = searchers.load_state(tmp_path / 'state.npz')
  np.testing.assert_array_equal(state.archs_VxE, ARCHS_AxE)
  np.testing.assert_array_equal(state.accuracy_V, predicted_A)
  chosen = SPACE.format(ARCHS_AxE[predicted_A.argmax()])
  assert best(tmp_path)['arch'] == chosen
  summary = json.loads((small / 'correlation.json').read_text())
  assert summary['best_arch'] == chosen
  out = capsys.readouterr().out
  assert 'the best of 27 architectures' in out
  order_A = np.argsort(-predicted_A, kind='stable')
  shown = out.split('alone')[1].split()
  for arch_E in ARCHS_AxE[order_A[:3]]:
    assert SPACE.format(arch_E) in shown
  assert SPACE.format(ARCHS_AxE[order_A[3]]) not in shown
  assert f'{TABLE.accuracy_A[predicted_A.argmax()]:.2%}' in shown


def test_the_front_is_what_nothing_is_better_than(whole):
  found = searchers.load_state(whole('exhaustive') / 'state.npz')
  front = {*findings.front(SPACE, found).tolist()}
  costs = SPACE.costs(found.archs_VxE)
  better = np.stack([-found.accuracy_V, costs.params_A, costs.macs_A], axis=1)
  for v, row in enumerate(better):
    dominated = ((better <= row).all(1) & (better < row).any(1)).any()
    assert (v in front) == (not dominated)
  assert 0 < len(front) < len(better)


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('0.02M', 20000), ('20k', 20000), ('20K', 20000), ('20000', 20000),
    ('1e5', 100000), ('2G', 2 * 10**9), (None, None), ('1.5k', 1500),
  ],
)  # fmt: skip
def test_limits_have_units(text, number):
  assert types.count('--max_macs', text) == number


LEAST, MOST = COSTS.macs_A.min(), COSTS.macs_A.max()
BAD = [
  (['--max_macs', '1k'], f'multiply-adds: they have {LEAST:,} to {MOST:,}'),
  (['--max_params', '10'], f'they have {COSTS.params_A.min():,} to'),
  (['--max_macs', 'abc'], "--max_macs is 'abc'; it must be a number"),
  (['--max_macs', 'nan'], "--max_macs is 'nan'"),
  (['--max_params', 'inf'], "--max_params is 'inf'"),
  (['--max_params', 'M'], "--max_params is 'M'"),
  (['--searcher', 'exhaustive', '--generations', '3'], '--generations is of'),
  (['--searcher', 'random', '--mutation', '0.2'], '--mutation is of other'),
  (['--searcher', 'tree', '--select', 'diverse'], '--select is of other'),
  (['--searcher', 'tree', '--parents', '3'], '--parents is of other'),
  (['--distance', 'gradient'], '--distance is of --select diverse'),
  (['--select', 'pareto', '--distance', 'gradient'], '--distance is of --se'),
  (['--mutation', '1.5'], 'mutation is 1.5'),
  (['--population', '0'], 'population is 0'),
  (['--ranking.images', '501'], 'there are 500'),
  (['--ranking.calibration_batches', '3'], 'calibration_batches is of'),
  (['--ranking.bn', 'recalibrate', '--ranking.calibration_batches', '21'],
   'there are 500 training images'),
  (['--table', 'missing.json'], 'does not exist'),
]  # fmt: skip


@pytest.mark.parametrize(
  ('more', 'says'), BAD, ids=[' '.join(b[0]) for b in BAD]
)
def test_bad_input_ends_before_any_work(small, tmp_path, capsys, more, says):
  workdir = tmp_path / 'not there'
  with pytest.raises(SystemExit) as ended:
    call(small, workdir, *more)
  refused(ended, capsys, says)
  assert not workdir.exists()


def refused(ended, capsys, says):
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err
  assert err.startswith('error: ') and err.count('\n') == 1


def test_a_search_is_neither_overwritten_nor_resumed_as_another(
  small, whole, capsys
):
  folder = whole('evolution')
  before = {file.name: file.read_bytes() for file in folder.iterdir()}
  for more, says in (
    ([], 'holds a search already'),
    (['--resume', '--seed', '1'], 'with seed 0, not 1'),
    (['--resume', '--population', '5'], 'with population 4, not 5'),
    (['--resume', '--max_macs', '1M'], f'with max_macs {MACS}, not 1M'),
    (['--resume', '--ranking.images', '20'], 'with ranking'),
  ):
    with pytest.raises(SystemExit) as ended:
      call(small, folder, *flags('evolution'), *more)
    refused(ended, capsys, says)
  assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_finished_search_is_shown_again(small, whole, monkeypatch, capsys):
  folder = whole('evolution')
  before = best(folder), (folder / 'state.npz').read_bytes()
  monkeypatch.setattr(ranking, 'accuracies', None)
  call(small, folder, *flags('evolution'), '--resume', '--top', '1')
  assert before == (best(folder), (folder / 'state.npz').read_bytes())
  assert before[0]['arch'] in capsys.readouterr().out


# Cut short.


def same_search(one, other):
  """All that was scored, bit for bit, and the weights that shifted."""
  states = [files.read_npz(folder / 'state.npz') for folder in (one, other)]
  assert states[0].keys() == states[1].keys()
  for key in states[0]:
    assert states[0][key].tobytes() == states[1][key].tobytes()
  assert rows(one) == rows(other)
  assert best(one) == best(other)
  if (one / 'shifted').exists():
    jax.tree.map(
      np.testing.assert_array_equal, shifted_in(one), shifted_in(other)
    )


def shifted_in(folder):
  with Checkpoints(folder / 'shifted') as checkpoints:
    steps = checkpoints.steps()
    assert steps[-1] == 20 * len(rows(folder))
    return checkpoints._manager.restore(steps[-1]).state


@pytest.mark.parametrize(
  ('name', 'polls', 'generations'),
  [
    ('evolution', 0, None),
    # A generation polls once, and before each of four architectures on each
    # of three batches.
    ('evolution', 20, 1),
    ('evolution', 26, 2),
    # Walks meet some of them again.
    ('tree', 20, 1),
    pytest.param('shifting', 3, None, marks=pytest.mark.slow),
    # In the middle of the third generation: one, and four candidates.
    pytest.param('shifting', 12, 2, marks=pytest.mark.slow),
  ],
)
def test_a_search_cut_short_goes_on_to_the_same_end(
  small, whole, tmp_path, monkeypatch, capsys, name, polls, generations
):
  polled = []

  def check(self):
    if len(polled) == polls:
      raise Stopped
    polled.append(1)

  with monkeypatch.context() as patch:
    patch.setattr(Preemption, 'check', check)
    with pytest.raises(SystemExit) as ended:
      call(small, tmp_path, *flags(name))
  assert ended.value.code == errors.STOPPED
  err = capsys.readouterr().err
  assert f'--workdir {tmp_path} --resume' in err
  assert not (tmp_path / 'best.json').exists()
  if generations is None:
    assert not (tmp_path / 'state.npz').exists()
  else:
    state = searchers.load_state(tmp_path / 'state.npz')
    assert state.generation == generations
  # The flags are kept with what they began.
  search.main(['--workdir', str(tmp_path), '--resume'])
  same_search(whole(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('generation', [1, 3])
def test_killed_between_the_weights_and_the_state_it_goes_on_alike(
  small, whole, tmp_path, monkeypatch, generation
):
  save_state = searchers.save_state

  def killed(file, state, *more):
    if state.generation == generation:
      raise Stopped
    save_state(file, state, *more)

  with monkeypatch.context() as patch:
    patch.setattr(searchers, 'save_state', killed)
    with pytest.raises(SystemExit):
      call(small, tmp_path, *flags('shifting'))
  with Checkpoints(tmp_path / 'shifted') as checkpoints:
    # One generation ahead of the state.
    assert checkpoints.steps()[-1] == generation * 4 * 20
  call(small, tmp_path, *flags('shifting'), '--resume')
  same_search(whole('shifting'), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['evolution', 'shifting'])
def test_killed_and_resumed_is_the_same_search(small, whole, tmp_path, name):
  """kill -9 of a child process in the middle of the third generation."""
  child = subprocess.run(
    [sys.executable, '-c', KILLED, '--run', str(small), '--workdir',
     str(tmp_path), *flags(name)],
    capture_output=True, timeout=300,
  )  # fmt: skip
  assert child.returncode == -signal.SIGKILL, child.stderr.decode()
  assert searchers.load_state(tmp_path / 'state.npz').generation == 2
  call(small, tmp_path, *flags(name), '--resume')
  same_search(whole(name), tmp_path)


KILLED = """
import os, signal, sys
from support import small_run
from jaxnas import search
from jaxnas.experiment import ranking, scoring
accuracies, scored = ranking.accuracies, []
def killed(experiment, state, archs_AxE, **options):
  scored.extend(archs_AxE)
  if len(scored) > 10:
    os.kill(os.getpid(), signal.SIGKILL)
  return accuracies(experiment, state, archs_AxE, **options)
ranking.accuracies = killed
scoring.SHIFT_LR = 0.05
with small_run.registered():
  search.main(sys.argv[1:])
"""


# Shifting.


def test_shifting_is_as_stated(monkeypatch):
  monkeypatch.undo()
  assert (
    scoring.SHIFT_STEPS, scoring.SHIFT_BATCH, scoring.SHIFT_LR,
    scoring.SHIFT_MOMENTUM, scoring.SHIFT_DECAY, scoring.SHIFT_SMOOTHING,
  ) == (20, 150, 1e-4, 0.9, 4e-5, 0.1)  # fmt: skip


def batches_of(experiment, seed):
  """Yields a search's batches, images and labels, without end."""
  given = dataclasses.replace(
    experiment.config,
    data=dataclasses.replace(experiment.config.data, batch_size=150),
  )
  loaded = datasets.load(given.data)
  train_T, _ = datasets.divide(loaded, given.data, given.seed)
  training = datasets.training(
    loaded, train_T, given.data, target.dtype(given.precision)
  )
  assert training.steps_per_epoch == 3
  for step, inputs in enumerate(training.feed(child_seed(seed, 'shifting'), 0)):
    first = step % 3 * 150
    indices_B = inputs.order_N[first : first + 150]
    yield training.batch(inputs, jnp.int32(step), indices_B)


def by_hand(arch):
  """Twenty steps of PyTorch's SGD on the network of one architecture."""
  net = supernets.build(SPACE)

  @jax.jit
  @jax.grad
  def gradient(params, x, y_B):
    logits_BxK = net.apply({'params': params}, x, arch, train=True)
    target_BxK = 0.9 * jax.nn.one_hot(y_B, 10) + 0.1 / 10
    return optax.softmax_cross_entropy(logits_BxK, target_BxK).mean()

  def steps(params, moments, batches):
    used = net.used(params, jnp.array(arch))
    for _ in range(20):
      x, y_B = next(batches)
      decayed = jax.tree.map(
        lambda g, w: g + 4e-5 * w * (w.ndim > 1),
        gradient(params, x, y_B),
        params,
      )
      moments = jax.tree.map(
        lambda u, m, g: jnp.where(u, 0.9 * m + g, m), used, moments, decayed
      )
      params = jax.tree.map(
        lambda u, w, m: jnp.where(u, w - 0.05 * m, w), used, params, moments
      )
    return params, moments

  return steps


@pytest.mark.slow
def test_weights_shift_along_each_candidate_and_stay(
  small, tmp_path, monkeypatch
):
  experiment, state = small_run.loaded(small)
  seen, accuracies = [], ranking.accuracies

  def watched(experiment, state, archs_AxE, **options):
    # The next step takes the arrays themselves.
    seen.append((jax.tree.map(np.asarray, state), archs_AxE))
    return accuracies(experiment, state, archs_AxE, **options)

  monkeypatch.setattr(ranking, 'accuracies', watched)
  archs_NxE = np.array([[1, 0, 2], [1, 0, 2]], np.int32)
  options = {'seed': 0, 'poll': lambda: None}
  with scoring.shifting(experiment, state, tmp_path, 0, **options) as scorer:
    first = scorer.score(archs_NxE[:1])
    scorer.save()
    second = scorer.score(archs_NxE[1:])
  (one, first_1xE), (two, second_1xE) = seen
  np.testing.assert_array_equal([*first_1xE, *second_1xE], archs_NxE)

  # Ops that were not used did not move at all, used ones did.
  before = state.params
  for now, at in ((one, before), (two, one.params)):
    for path, leaf in jax.tree_util.tree_leaves_with_path(now.params):
      names = [key.key for key in path]
      old = at
      for name in names:
        old = old[name]
      used = not names[0].startswith('position_') or (
        names[1] == f'op_{archs_NxE[0, int(names[0][-1])]}'
      )
      assert bool((leaf != old).any()) == used, names
  statistics = jax.tree.leaves(jax.tree.map(
    lambda a, b: bool((a != b).any()), two.statistics, state.statistics
  ))  # fmt: skip
  assert any(statistics) and not all(statistics)

  # The optimizer goes on from one to the other.
  batches = batches_of(experiment, 0)
  nothing = jax.tree.map(jnp.zeros_like, before)
  twenty_steps = by_hand((1, 0, 2))
  params, moments = twenty_steps(before, nothing, batches)
  close(one.params, params, before)
  params, _ = twenty_steps(params, moments, batches)
  close(two.params, params, one.params)

  # Scores are those of the moved weights.
  expected = [
    accuracies(experiment, now, arch_1xE, label=None)
    for now, arch_1xE in seen[:2]
  ]
  np.testing.assert_array_equal([first, second], expected)
  unmoved = accuracies(experiment, state, archs_NxE, label=None)
  assert (np.concatenate([first, second]) != unmoved).any()

  # From the checkpoint of the first on.
  with scoring.shifting(experiment, state, tmp_path, 1, **options) as scorer:
    np.testing.assert_array_equal(scorer.score(archs_NxE[1:]), second)
  jax.tree.map(np.testing.assert_array_equal, seen[-1][0].params, two.params)


def close(found, expected, start):
  """Allows rounding, which 20 steps multiply: a tenth of the way."""
  jax.tree.map(
    lambda a, b, c: np.testing.assert_array_less(
      np.linalg.norm(a - b), 0.1 * np.linalg.norm(b - c) + 1e-6
    ),
    found,
    expected,
    start,
  )


def mixed(small):
  """An untrained mixture, odd architectures in its second member."""
  given = run_folder.read_config(small)
  given = dataclasses.replace(
    given, sampler=dataclasses.replace(given.sampler, name='mixture')
  )
  experiment = build.experiment(given)
  state = experiment.init_state()
  odd_A = np.arange(27) % 2
  w_AxM = jnp.asarray(np.stack([1 - odd_A, odd_A], axis=1), jnp.float32)
  return experiment, dataclasses.replace(
    state, sampler=state.sampler._replace(w_AxM=w_AxM)
  )


@pytest.mark.parametrize(
  'real', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_mixture_shifts_the_member_that_it_routes_to(
  small, tmp_path, monkeypatch, real
):
  experiment, state = mixed(small)
  trained, seen = [], []
  make_step = scoring.step.make_step

  def watched(*args, **options):
    inner = make_step(*args, **options)

    def step(state, inputs):
      trained.append(np.asarray(state.sampler)[0].tolist())
      if real:
        return inner(state, inputs)
      return dataclasses.replace(state, step=state.step + 1), None

    return step

  def accuracies(experiment, state, archs_AxE, **options):
    seen.append(jax.tree.map(np.asarray, state.params))
    return np.zeros(len(archs_AxE))

  monkeypatch.setattr(scoring.step, 'make_step', watched)
  monkeypatch.setattr(ranking, 'accuracies', accuracies)
  with scoring.shifting(
    experiment, state, tmp_path, 0, seed=0, poll=lambda: None
  ) as scorer:
    scorer.score(ARCHS_AxE[[5, 8]])
  assert trained == [
    *[[*ARCHS_AxE[5], 1]] * 20,
    *[[*ARCHS_AxE[8], 0]] * 20,
  ]
  if real:
    for old, new in zip(
      jax.tree.leaves(state.params), jax.tree.leaves(seen[0]), strict=True
    ):
      np.testing.assert_array_equal(new[0], old[0])
    head = [params['head']['conv']['kernel'] for params in seen]
    assert (head[0][1] != state.params['head']['conv']['kernel'][1]).any()
    np.testing.assert_array_equal(head[1][1], head[0][1])
    assert (head[1][0] != head[0][0]).any()


# Distances.


@pytest.mark.slow
def test_the_distance_is_that_of_a_density(small):
  experiment, state = small_run.loaded(small)
  between = scoring.distance(experiment, state, 'gradient', 3)
  archs_NxE = ARCHS_AxE[[3, 17, 26, 9]]
  d_NxN = between(archs_NxE)
  snapshot = densities.snapshot(experiment, state, archs_NxE)
  net, params, _, (x,), (y_B,) = snapshot
  assert len(x) == 20
  compared = density.gradient(net, params, archs_NxE)
  expected_NxN = density.matrix(
    compared.distance, density.gather(snapshot, compared)
  )
  np.testing.assert_array_equal(d_NxN, expected_NxN)

  @jax.jit
  @jax.grad
  def gradient(head, arch_E):
    logits_BxK = net.apply(
      {'params': params | {'head': head}}, x, arch_E, train=True
    )
    return optax.softmax_cross_entropy_with_integer_labels(
      logits_BxK, y_B
    ).mean()

  gradients = [gradient(params['head'], arch_E) for arch_E in archs_NxE]

  def cosine(a, b, name):
    a, b = np.ravel(a[name]['kernel']), np.ravel(b[name]['kernel'])
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  by_hand_NxN = [
    [1 - np.mean([cosine(a, b, name) for name in ('conv', 'linear')])
     for b in gradients]
    for a in gradients
  ]  # fmt: skip
  np.testing.assert_allclose(d_NxN, by_hand_NxN, atol=1e-4)
  assert d_NxN.max() > 1e-2


@pytest.mark.slow
def test_diverse_parents_by_gradients(small, tmp_path, monkeypatch):
  pools = []
  distance = scoring.distance

  def watched(experiment, state, measure, archs):
    assert measure == 'gradient'
    between = distance(experiment, state, measure, archs)

    def watched_between(archs_NxE):
      pools.append(archs_NxE)
      return between(archs_NxE)

    return watched_between

  monkeypatch.setattr(scoring, 'distance', watched)
  call(
    small, tmp_path, '--select', 'diverse', '--distance', 'gradient',
    *FLAGS['evolution'],
  )  # fmt: skip
  listed = rows(tmp_path)
  # The four best of all so far, before the second and the third generation.
  assert len(pools) == 2
  for pool_NxE, count in zip(pools, (4, 8), strict=True):
    order = sorted(listed[:count], key=lambda row: -row['accuracy'])[:4]
    assert [SPACE.format(a_E) for a_E in pool_NxE] == [
      row['arch'] for row in order
    ]


def test_a_distance_that_the_net_cannot_have_is_refused_at_once(
  small, tmp_path, capsys
):
  given = run_folder.read_config(small)
  given = dataclasses.replace(
    given,
    density=dataclasses.replace(
      given.density, measure='representational', layers='nix'
    ),
  )
  run = tmp_path / 'run'
  run_folder.open_run(run, given, resume=False)
  (run / 'checkpoints').symlink_to(small / 'checkpoints')
  with pytest.raises(SystemExit) as ended:
    call(
      run, run / 'search', '--select', 'similar', '--distance',
      'representational',
    )  # fmt: skip
  refused(ended, capsys, "density.layers 'nix'")
  assert not (run / 'search').exists()
