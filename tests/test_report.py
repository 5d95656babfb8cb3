"""The page about runs, and the files of its figures."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxnas import spaces, train
from jaxnas.config import Config, Debias
from jaxnas.report import (
  charts,
  compared,
  folders,
  listed,
  marks,
  page,
  palette,
  ranked,
  sections,
  svg,
)
from jaxnas.report.__main__ import main
from jaxnas.runtime import files, ledger
from jaxnas.truth import correlation
from support import runs, small_run
from support.elements import Elements

HOSTILE = '<script>alert("x")</script>&\'$x_1$'


# Its runs and pages take a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def debiased(tmp_path_factory):
  """A run with everything that a page shows, and its undebiased twin."""
  with small_run.registered():
    return small_run.train_in(
      tmp_path_factory.mktemp('debiased'),
      '--debias.temperature', '0.1', '--debias.baseline',
      '--density.log_epochs', '1',
    )  # fmt: skip


@pytest.fixture
def copy(debiased, tmp_path, small_space):
  """To be written to."""
  return shutil.copytree(debiased, tmp_path / 'run')


@pytest.fixture(scope='module')
def written(debiased, tmp_path_factory):
  """(text of the page, folder of its figures)."""
  out = tmp_path_factory.mktemp('page') / 'report.html'
  with small_run.registered():
    assert main([str(debiased), '--out', str(out)]) == 0
  return out.read_text('utf-8'), out.with_suffix('')


def test_a_figure_is_counted_once_for_its_two_files(copy, capsys):
  with small_run.registered():
    assert main([str(copy)]) == 0
  drawn = len([*(copy / 'report').glob('*.svg')])
  assert drawn and f': {drawn} figures, also as PNG' in capsys.readouterr().out


def test_a_page_loads_nothing_and_runs_only_its_own_script(written):
  text, _ = written
  elements = Elements(text)
  for _, attributes in elements.tags:
    assert not {*attributes} & {'src', 'onload', 'onclick'}
    assert attributes.get('href', '#').startswith(('#', 'data:image/png;'))
  assert not re.search(r'https?:|url\(|@import', text)
  (policy,) = (a['content'] for _, a in elements.tags if a.get('http-equiv'))
  assert policy.startswith("default-src 'none'; img-src data:;")
  assert "script-src 'sha256-" in policy
  assert [tag for tag, _ in elements.tags].count('script') == 1


def test_a_page_has_every_section_and_every_figure(written, debiased):
  text, folder = written
  elements = Elements(text)
  for title in (
    'Configuration', 'Training', 'Ranking', 'Density', 'Sampling',
    'Gradient distances', 'Time and compute', 'How to reproduce',
  ):  # fmt: skip
    assert f'>{title}</h2>' in text
  assert 'cannot be shown' not in text
  names = {file.stem for file in folder.iterdir()}
  assert names == {
    'training-loss', 'training-accuracy', 'training-gradient-norm',
    'training-images-per-s', 'kendall', 'ranks-debiased', 'ranks-undebiased',
    'density', 'density-accuracy', 'density-agreement', 'sampling', 'compute',
    'distances-training-debiased', 'distances-validation-debiased',
    'layers-debiased', 'layers-undebiased', 'distances-training-undebiased',
    'distances-validation-undebiased',
    'time',
    'pairs-debiased', 'pairs-undebiased', 'updates-debiased',
    'intervention-debiased',
  }  # fmt: skip
  for name in names:
    assert (folder / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    assert '<svg' in (folder / f'{name}.svg').read_text('utf-8')
  svgs = [a for tag, a in elements.tags if tag == 'svg']
  assert len(svgs) == len(names)
  assert '>Chosen by debiased: ' in text and 'class="network"' in text


def test_a_page_names_the_folder_of_each_run(written, debiased):
  where = re.findall(r'<span>(\S+) <code>(.*?)</code></span>', written[0])
  assert where == [
    ('debiased', debiased.name),
    ('undebiased', f'{debiased.name}/undebiased'),
  ]


def test_numbers_of_the_page_are_those_of_the_run(written, debiased):
  elements = Elements(written[0])
  found = json.loads((debiased / 'correlation.json').read_text())
  low, high = found['kendall_interval']
  assert f'{found["kendall"]:.3f} [{low:.2f}, {high:.2f}]' in elements.text
  assert f'Chosen: {found["best_arch"]} by debiased,' in elements.text
  row = '<th scope="row">debias.temperature</th><td>0.1</td><td>None</td>'
  assert row in written[0]
  # Hovering says of each architecture what it is.
  said = [a['data-t'] for _, a in elements.tags if 'data-t' in a]
  predicted = files.read_npz(debiased / 'predictions.npz')
  costs = small_run.SPACE.costs(small_run.ARCHS_AxE)
  for a in (0, 26):
    lines = [
      small_run.SPACE.format(small_run.ARCHS_AxE[a]),
      f'supernet {predicted["accuracy_A"][a]:.2%}',
      f'alone {small_run.TABLE.accuracy_A[a]:.2%}',
      f'{costs.params_A[a]:,} parameters',
      f'{costs.macs_A[a]:,} multiply-adds',
    ]
    assert '\n'.join(lines) in said


def test_intervals_along_training_hold_the_taus(debiased, small_space):
  (chart,) = sections.trained.correlation(folders.read([debiased]))
  for line in chart.marks:
    assert len(line.x_N) and (line.low_N < line.high_N).all()
    assert (line.low_N <= line.y_N).all() and (line.y_N <= line.high_N).all()


def test_samples_are_held_to_their_probabilities(debiased, small_space):
  run, twin = folders.read([debiased])
  total = run.samples['samples_A'].sum()
  np.testing.assert_allclose(ranked.expected(twin), total / 27)
  expected_A = ranked.expected(run)
  assert expected_A.sum() == pytest.approx(total)
  # Half of the run is the warm-up; then by eq. 8.
  p_A = np.exp(-run.density['alpha_A'] / 0.1)
  np.testing.assert_allclose(
    expected_A, total * (1 / 54 + p_A / p_A.sum() / 2), rtol=1e-5
  )


def test_densities_are_correlated_with_what_is_ranked(debiased, small_space):
  run, _ = folders.read([debiased])
  _, chart, agreement = compared.densities([run])
  rho = correlation.spearman(
    run.density['alpha_A'], run.predictions['accuracy_A']
  )
  assert (
    f'debiased, after the warm-up: {rho:.2f} with the supernet' in chart.note
  )
  assert 'temperature 0.1' in chart.note
  assert agreement.marks[0].y_N[-1] == pytest.approx(1)


def test_a_page_is_silent_about_what_a_run_does_not_have(copy, capsys):
  for name in (
    'metrics.jsonl', 'correlation.json', 'predictions.npz', 'table.json',
    'density.npz', 'density_log.npz', 'samples.npz', 'environment.json',
    'ledger.json', 'updates.npz',
  ):  # fmt: skip
    (copy / name).unlink()
  shutil.rmtree(copy / 'undebiased')
  assert main([str(copy)]) == 0
  assert capsys.readouterr().out == (
    f'{copy / "report.html"}: no figure, since the page found nothing to draw\n'
  )
  text = Elements((copy / 'report.html').read_text('utf-8')).text
  assert 'Nothing is ranked yet.' in text and 'Chosen by' not in text
  assert 'is not there' not in text and 'Left out' not in text
  for title in ('Training', 'Density', 'Sampling', 'Time and compute'):
    assert title not in text


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('correlation.json', '{"n": "many"}'),
    ('correlation.json', '[]'),
    ('environment.json', '{'),
    ('metrics.jsonl', '{"step": 1, "epoch": "x", "loss": {}}\n'),
    ('predictions.npz', 'no npz'),
    ('density_log.npz', ''),
    ('samples.npz', 'PK'),
    ('ledger.json', '{"seconds": []}'),
    ('table.json', '{"space": "digits", "accuracy": {}}'),
  ],
)
def test_a_broken_file_costs_no_more_than_what_it_holds(
  copy, name, content, monkeypatch, capsys
):
  (copy / name).write_text(content)
  monkeypatch.setattr(svg, 'save', lambda figure, folder: ([], ''))
  page.write([copy], copy / 'report.html')
  text = Elements((copy / 'report.html').read_text('utf-8')).text
  assert 'cannot be' in text or 'has rows that are damaged' in text
  assert 'undebiased' in text
  (line,) = capsys.readouterr().out.splitlines()
  says = f'warning: the page is without {name} of debiased, which '
  assert line.startswith(says)


def test_everything_that_comes_from_files_is_escaped(copy, monkeypatch):
  environment = json.loads((copy / 'environment.json').read_text())
  environment |= {'command': HOSTILE, 'platform': HOSTILE}
  environment['versions'] = {HOSTILE: HOSTILE}
  files.write_json(copy / 'environment.json', environment)
  found = runs.result_of(copy / 'correlation.json')
  found |= {'best_arch': HOSTILE, 'split': HOSTILE, 'bn': HOSTILE}
  found['baselines'] = {HOSTILE: {'kendall': 0.9, 'spearman': 0.9}}
  found['compute']['epochs'] = {HOSTILE: 3.0}
  runs.write_result(copy, 'correlation.json', found)
  book = {'processes': 1, 'seconds': {HOSTILE: 3.0}, 'at': {}}
  runs.write_result(copy, 'ledger.json', book)
  log = files.read_npz(copy / 'density_log.npz')
  log['tensors_T'] = np.array([HOSTILE] * len(log['tensors_T']))
  files.write_npz(copy / 'density_log.npz', log)
  hostile = copy.rename(copy.with_name('<b>&"run'))
  # The files of figures, too, are drawn.
  drawn = page.write([hostile], copy.with_name('page.html'), title=HOSTILE)
  text = copy.with_name('page.html').read_text('utf-8')
  elements = Elements(text)
  assert [tag for tag, _ in elements.tags].count('script') == 1
  assert not [tag for tag, _ in elements.tags if tag == 'b']
  assert HOSTILE in elements.text
  for key in ('data-t', 'data-cells'):
    assert any('<script>alert' in a.get(key, '') for _, a in elements.tags)
  assert all(file.parent == copy.with_name('page') for file in drawn)
  assert all('<script>alert' not in f.read_text('utf-8')
             for f in drawn if f.suffix == '.svg')  # fmt: skip


def test_seconds_of_a_ledger_are_shown(copy, monkeypatch):
  seconds = {'train': 3.0, 'density': 1.5, 'x': 0}
  book = {'processes': 1, 'seconds': seconds, 'at': {}}
  runs.write_result(copy, 'ledger.json', book)
  run, _ = folders.read([copy])
  time, _ = sections.trained.cost([run])
  assert time.parts == {'debiased': {'train': 3.0, 'density': 1.5, 'x': 0.0}}
  assert charts.kinds(time) == ['train', 'density']


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    ([], 'no run: give folders'),
    (['missing'], 'missing holds no run'),
  ],
)
def test_bad_input_ends_before_any_work(
  tmp_path, monkeypatch, capsys, flags, says
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as ended:
    main([*flags, '--out', 'out.html'])
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert says in err and err.count('\n') == 1
  assert not [*tmp_path.iterdir()]


def test_too_many_runs_are_refused(debiased, tmp_path, small_space):
  subset = [shutil.copytree(debiased, tmp_path / str(n)) for n in range(5)]
  with pytest.raises(ValueError, match='10 runs; a page shows at most 8'):
    folders.read(subset)


def test_labels_leave_out_what_runs_share(debiased, tmp_path, small_space):
  for name in ('a/seed_0', 'b/seed_0'):
    (tmp_path / name).mkdir(parents=True)
    shutil.copy(debiased / 'config.json', tmp_path / name)
  read = folders.read([tmp_path / 'a/seed_0', tmp_path / 'b/seed_0'])
  assert [run.label for run in read] == ['a/seed_0', 'b/seed_0']
  (alone,) = folders.read([tmp_path / 'a/seed_0'])
  assert alone.label == 'debiased'


def test_runs_are_called_by_what_they_are():
  plain = Config(space='digits')
  debiased = Config(space='digits', debias=Debias(effective_fraction=0.5))
  other = dataclasses.replace(debiased, seed=1)
  for configs, labels in (
    ([plain], ['undebiased']),
    ([debiased, plain], ['debiased', 'undebiased']),
    ([debiased, other], ['seed 0', 'seed 1']),
    (
      [debiased, plain, other],
      ['debiased, seed 0', 'undebiased, seed 0', 'debiased, seed 1'],
    ),
    ([plain, plain], None),
  ):
    assert folders.labels_of(configs) == labels


def test_a_twin_begins_where_the_warm_up_ends(debiased, small_space):
  runs = folders.read([debiased])
  for chart in sections.trained.curves(runs):
    ours, twin = chart.marks
    (at,) = np.flatnonzero(ours.x_N == twin.x_N[0])
    assert ours.x_N[at] <= runs[0].config.warmup_epochs
    assert ours.y_N[at] == twin.y_N[0]


def test_what_is_alike_stands_side_by_side():
  """Three clusters in any order come out as three blocks."""
  rng = np.random.default_rng(0)
  centres = np.array([0.0, 10.0, 30.0])
  cluster_M = rng.permutation(np.repeat(np.arange(3), 5))
  point_M = centres[cluster_M] + rng.normal(size=15)
  distance_MxM = np.abs(point_M[:, None] - point_M)
  order_M = compared.alike(distance_MxM)
  assert sorted(order_M) == list(range(15))
  assert (np.diff(cluster_M[order_M]) != 0).sum() == 2


def test_the_same_line_twice_is_seen_twice():
  x_N, y_N = np.arange(3.0), np.array([1.0, 2.0, 4.0])
  marks_of = [
    charts.Line(label=str(n), colour=n, x_N=x_N, y_N=y)
    for n, y in enumerate((y_N, y_N.copy(), y_N + 1))
  ]
  chart = charts.Chart(
    name='x', title='x', xlabel='x', ylabel='y', marks=marks_of
  )
  assert [marks.hides(chart, n) for n in range(3)] == [False, True, False]


def test_the_command_of_a_page_trains_the_same(copy, small_space):
  """It does so whatever was typed: a resumption, or a cell of a notebook."""
  (code,) = listed.commands(folders.read([copy]))
  assert code.title == 'Train again: debiased, undebiased'
  python, *module, name, config, _, table, _, again = shlex.split(code.text)
  assert [python, *module, name] == [
    'python', '-m', 'jaxnas.train', '--config',
  ]  # fmt: skip
  out = copy.with_name(again)
  assert (
    train.main(['--config', config, '--table', table, '--workdir', str(out)])
    == 0
  )
  runs.same_run(copy, out)
  runs.same_run(copy / 'undebiased', out / 'undebiased')


def test_a_command_quotes_what_a_shell_would_part(copy, small_space):
  spaced = copy.rename(copy.with_name('a run; of mine'))
  (code,) = listed.commands(folders.read([spaced]))
  words = shlex.split(code.text)
  assert words[words.index('--config') + 1] == str(spaced / 'config.json')
  assert words[-1] == 'a run; of mine-again'


def test_one_colour_is_one_thing():
  for colours in (palette.LIGHT, palette.DARK):
    names = {name for name in colours if name not in ('paper', 'accent')}
    assert len({colours[name] for name in names}) == len(names)
  assert palette.LIGHT.keys() == palette.DARK.keys()
  runs_have = {*palette.SERIES}
  kinds = [part.replace('_', ' ') for part in ledger.PARTS]
  purposes = ['training', 'rewards', 'density', 'rebuilding', 'ranking']
  named = {kind: palette.name_of(kind) for kind in [*kinds, *purposes]}
  assert 'soft' not in named.values() and not runs_have & {*named.values()}
  assert named['train'] == named['training']
  assert named['rank'] == named['ranking']


@pytest.mark.parametrize(
  ('space', 'arch', 'first', 'ops'),
  [
    ('digits', '2021', '1', 4),
    ('pooling', '4,7', '1', 9),
    ('nas_bench_macro', '22212220', '1', 8),
    ('nas_bench_201', None, '0 to 1', 6),
    ('mobilenet', None, '1', 21),
  ],
)
def test_the_network_chosen_is_drawn_in_every_space(space, arch, first, ops):
  described = spaces.get(space)
  arch = arch or described.format(np.zeros(described.positions, int))
  (drawn,) = listed.drawn(described, {arch: ['debiased', 'undebiased']})
  assert drawn.title == f'Chosen by debiased and undebiased: {arch}'
  assert drawn.boxes[0][0] == first and len(drawn.boxes) == ops
  arch_E = described.parse(arch)
  assert [op for _, op, _ in drawn.boxes] == [
    described.ops[e][op] for e, op in enumerate(arch_E)
  ]
  assert not any(differs for *_, differs in drawn.boxes)


def test_every_architecture_is_in_a_table_that_sorts(debiased, small_space):
  runs = folders.read([debiased])
  (table,) = listed.architectures(runs)
  assert table.sortable and len(table.rows) == 27
  assert table.note.startswith('All 27 architectures, as ')
  assert [*table.head][2:6] == [
    'alone', 'density', 'probability', 'times trained',
  ]  # fmt: skip
  scores = [float(row[1].rstrip('%')) for row in table.rows]
  assert scores == sorted(scores, reverse=True)
  assert sum(float(row[4]) for row in table.rows) == pytest.approx(1, abs=1e-3)
  assert sum(int(row[5]) for row in table.rows) == (
    runs[0].samples['samples_A'].sum()
  )


def test_layers_go_from_the_images_to_the_classes():
  names = [
    'linear/kernel', 'block_10/conv1/kernel', 'block_2/conv2/kernel',
    'block_2/conv1/kernel', 'stem/kernel', 'cells_1/conv/kernel',
    'reduce_1/conv2/kernel', 'cells_0/position_5/op_3/conv/kernel',
  ]  # fmt: skip
  assert sorted(names, key=compared.depth) == [
    'stem/kernel', 'cells_0/position_5/op_3/conv/kernel',
    'reduce_1/conv2/kernel', 'cells_1/conv/kernel', 'block_2/conv1/kernel',
    'block_2/conv2/kernel', 'block_10/conv1/kernel', 'linear/kernel',
  ]  # fmt: skip
  ops = ['project', 'expand', 'depthwise']
  assert sorted((f'position_0/op_1/{op}/kernel' for op in ops),
                key=compared.depth) == [
    f'position_0/op_1/{op}/kernel' for op in ('expand', 'depthwise', 'project')
  ]  # fmt: skip


def test_help_needs_no_jax():
  code = (
    'import sys\nfrom jaxnas.report.__main__ import main\n'
    'try: main(["--help"])\nexcept SystemExit: pass\n'
    'assert not {"jax", "matplotlib"} & {*sys.modules}'
  )
  subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
