"""The page about runs, and the files of its figures."""

import html.parser
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_run

from jaxnas import correlation, report, runs
from jaxnas.report import charts, compared, folders, page, ranked, sections, svg
from jaxnas.report.__main__ import main

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


class Elements(html.parser.HTMLParser):
  """Tags with their attributes, and all text outside of scripts and style."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.texts, self.open = [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'br'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.texts.append(data)

  @property
  def text(self):
    return ' '.join(''.join(self.texts).split())


def test_a_page_loads_nothing_and_runs_only_its_own_script(written):
  text, _ = written
  elements = Elements(text)
  for _, attributes in elements.tags:
    assert not {*attributes} & {'src', 'onload', 'onclick', 'style'}
    assert attributes.get('href', '#').startswith('#')
  assert not re.search(r'https?:|url\(|@import', text)
  (policy,) = (a['content'] for _, a in elements.tags if a.get('http-equiv'))
  assert policy.startswith("default-src 'none';")
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
    'training-images-per-s', 'kendall', 'ranks-run', 'ranks-run-undebiased',
    'density', 'density-accuracy', 'density-agreement', 'sampling', 'compute',
    'distances-training-run', 'distances-validation-run', 'layers-run',
    'time',
    'distances-training-run-undebiased', 'distances-validation-run-undebiased',
    'layers-run-undebiased', 'pairs-run', 'pairs-run-undebiased',
  }  # fmt: skip
  for name in names:
    assert (folder / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    assert '<svg' in (folder / f'{name}.svg').read_text('utf-8')
  svgs = [a for tag, a in elements.tags if tag == 'svg']
  assert len(svgs) == len(names)
  command = json.loads((debiased / 'environment.json').read_text())['command']
  assert command in elements.text


def test_numbers_of_the_page_are_those_of_the_run(written, debiased):
  elements = Elements(written[0])
  found = json.loads((debiased / 'correlation.json').read_text())
  low, high = found['kendall_interval']
  assert f'{found["kendall"]:.3f} [{low:.2f}, {high:.2f}]' in elements.text
  assert f'Chosen: {found["best_arch"]} by run,' in elements.text
  row = '<th scope="row">debias.temperature</th><td>0.1</td><td>None</td>'
  assert row in written[0]
  # Hovering says of each architecture what it is.
  said = [a['data-t'] for _, a in elements.tags if 'data-t' in a]
  predicted = runs.read_npz(debiased / 'predictions.npz')
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
  np.testing.assert_allclose(expected_A, total * (1 / 54 + p_A / p_A.sum() / 2))


def test_densities_are_correlated_with_what_is_ranked(debiased, small_space):
  run, _ = folders.read([debiased])
  _, chart, agreement = compared.densities([run])
  rho = correlation.spearman(
    run.density['alpha_A'], run.predictions['accuracy_A']
  )
  assert f'run, after the warm-up: {rho:.2f} with the supernet' in chart.note
  assert agreement.marks[0].y_N[-1] == pytest.approx(1)


def test_what_a_run_lacks_is_left_out_with_a_word(copy):
  for name in (
    'metrics.jsonl', 'correlation.json', 'predictions.npz', 'table.json',
    'density.npz', 'density_log.npz', 'samples.npz', 'environment.json',
    'ledger.json',
  ):  # fmt: skip
    (copy / name).unlink()
  shutil.rmtree(copy / 'undebiased')
  assert report.write([copy], copy / 'report.html') == []
  text = Elements((copy / 'report.html').read_text('utf-8')).text
  assert 'Nothing is ranked yet.' in text
  for name in ('metrics.jsonl', 'density_log.npz', 'ledger.json'):
    assert f'run: {name} is not there.' in text


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
  copy, name, content, monkeypatch
):
  (copy / name).write_text(content)
  monkeypatch.setattr(report.files, 'save', lambda figure, folder: [])
  report.write([copy], copy / 'report.html')
  text = Elements((copy / 'report.html').read_text('utf-8')).text
  assert 'cannot be' in text
  assert 'run/undebiased' in text


def test_everything_that_comes_from_files_is_escaped(copy, monkeypatch):
  environment = json.loads((copy / 'environment.json').read_text())
  environment |= {'command': HOSTILE, 'platform': HOSTILE}
  environment['versions'] = {HOSTILE: HOSTILE}
  runs.write_json(copy / 'environment.json', environment)
  found = json.loads((copy / 'correlation.json').read_text())
  found |= {'best_arch': HOSTILE, 'split': HOSTILE, 'bn': HOSTILE}
  found['baselines'] = {HOSTILE: {'kendall': 0.9, 'spearman': 0.9}}
  found['compute']['epochs'] = {HOSTILE: 3.0}
  runs.write_json(copy / 'correlation.json', found)
  runs.write_json(copy / 'ledger.json', {'seconds': {HOSTILE: 3.0}})
  log = runs.read_npz(copy / 'density_log.npz')
  log['tensors_T'] = np.array([HOSTILE] * len(log['tensors_T']))
  runs.write_npz(copy / 'density_log.npz', log)
  hostile = copy.rename(copy.with_name('<b>&"run'))
  # The files of figures, too, are drawn.
  drawn = report.write([hostile], copy.with_name('page.html'), title=HOSTILE)
  text = copy.with_name('page.html').read_text('utf-8')
  elements = Elements(text)
  assert [tag for tag, _ in elements.tags].count('script') == 1
  assert not [tag for tag, _ in elements.tags if tag == 'b']
  assert HOSTILE in elements.text
  assert any(a.get('data-t', '').startswith(HOSTILE) for _, a in elements.tags)
  assert all(file.parent == copy.with_name('page') for file in drawn)
  assert all('<script>alert' not in f.read_text('utf-8')
             for f in drawn if f.suffix == '.svg')  # fmt: skip


def test_seconds_of_a_ledger_are_shown(copy, monkeypatch):
  seconds = {'train': 3.0, 'density': 1.5, 'x': 0}
  runs.write_json(
    copy / 'ledger.json', {'processes': 1, 'seconds': seconds, 'at': {}}
  )
  run, _ = folders.read([copy])
  time, _ = sections.trained.spent([run])
  assert time.parts == {'run': {'train': 3.0, 'density': 1.5, 'x': 0.0}}
  assert svg.kinds(time) == ['train', 'density']


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
  some = [shutil.copytree(debiased, tmp_path / str(n)) for n in range(5)]
  with pytest.raises(ValueError, match='10 runs; a page shows at most 8'):
    folders.read(some)


def test_labels_leave_out_what_runs_share(debiased, tmp_path, small_space):
  for name in ('a/seed_0', 'b/seed_0'):
    (tmp_path / name).mkdir(parents=True)
    shutil.copy(debiased / 'config.json', tmp_path / name)
  read = folders.read([tmp_path / 'a/seed_0', tmp_path / 'b/seed_0'])
  assert [run.label for run in read] == ['a/seed_0', 'b/seed_0']
  (alone,) = folders.read([tmp_path / 'a/seed_0'])
  assert alone.label == 'seed_0'


def chart(**fields):
  defaults = {'name': 'c', 'title': 't', 'xlabel': 'x', 'ylabel': 'y'}
  return charts.Chart(**(defaults | fields))


def test_ranks_have_the_best_at_the_top_right():
  x_N = np.array([1.0, 50.0])
  dots = charts.Dots(label='d', colour=0, x_N=x_N, y_N=x_N)
  text = svg.figure(chart(marks=[dots], ranks=True, diagonal=True))
  best, worst = (
    {key: float(a[key]) for key in ('cx', 'cy')}
    for tag, a in Elements(text).tags
    if tag == 'circle'
  )
  assert best['cx'] > worst['cx'] and best['cy'] < worst['cy']


def test_many_dots_are_thinned_but_for_the_ringed_ones():
  x_N = np.arange(6561.0)
  dots = charts.Dots(
    label='d', colour=0, x_N=x_N, y_N=x_N, ringed_M=np.arange(10)
  )
  text = svg.figure(chart(marks=[dots]))
  circles = [a for tag, a in Elements(text).tags if tag == 'circle']
  assert svg.MOST_DOTS <= len(circles) <= svg.MOST_DOTS + 10
  assert sum('ringed' in a['class'] for a in circles) == 10
  said = page.page('t', [], [sections.Section('s', [chart(marks=[dots])])])
  assert f'6,561 dots, of which {len(circles):,} are drawn.' in said


def test_undefined_cells_are_told_from_values():
  grid = charts.Grid(
    name='g', title='t', xlabel='epoch', rows=['a'], columns=['0', '1'],
    value_RxC=np.array([[np.nan, 0.25]]), unit='u',
  )  # fmt: skip
  cells = [a for _, a in Elements(svg.figure(grid)).tags if 'data-t' in a]
  assert [a['data-t'] for a in cells] == [
    'a\nepoch 0\nu undefined', 'a\nepoch 1\nu 0.25',
  ]  # fmt: skip
  assert cells[0]['class'] == 'unknown' and 'fill' not in cells[0]


def test_a_square_has_a_row_an_architecture_and_few_names():
  names = [f'arch {n}' for n in range(64)]
  grid = charts.Grid(
    name='g', title='t', xlabel='64 architectures', rows=names, columns=names,
    value_RxC=np.eye(64), unit='u',
  )  # fmt: skip
  elements = Elements(svg.figure(grid))
  cells = [a for _, a in elements.tags if 'data-t' in a]
  assert len(cells) == 64**2
  assert cells[1]['data-t'] == 'arch 0\narch 1\nu 0'
  # As wide as high, and names are told apart.
  high = max(float(a['y']) + float(a['height']) for a in cells)
  wide = max(float(a['x']) + float(a['width']) for a in cells)
  assert high == pytest.approx(
    wide - min(float(a['x']) for a in cells), rel=0.1
  )
  at = [float(a['y']) for _, a in elements.tags if a.get('class') == 'row end']
  assert len(at) > 10 and np.diff(at).min() >= 11


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
