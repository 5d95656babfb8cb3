"""Texts quote what results hold, say what works, and link to what is there."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jaxnas import config, spaces, truth
from jaxnas.config import validation
from jaxnas.truth import correlation, top

ROOT = Path(__file__).parents[1]
POOLING = spaces.get('pooling')
# Pages for readers of the project, and of its rooms.
PAGES = [
  file
  for folder in ('.', 'docs', 'launch', 'results')
  for file in sorted((ROOT / folder).glob('*.md'))
] + sorted((ROOT / 'jaxnas').rglob('*.md'))


@pytest.fixture(scope='module')
def kendall():
  """Returns (warm-up, epochs, fraction) -> Kendall's taus of digits by seed."""
  out = {}
  for file in (ROOT / 'results').glob('digits-*.json'):
    kept = json.loads(file.read_text())
    given = kept['config']
    if (
      given.get('data.split_seed') is not None
      or given.get('ranking.average', 'last') != 'last'
    ):
      # Members of an ensemble and averages have a table of their own.
      continue
    fraction = given.get('debias.effective_fraction')
    total = given['warmup_epochs'] + given['epochs']
    found = out.setdefault((total, fraction), {})
    found[given['seed']] = kept['found']['kendall']
  return out


def rows(page, columns):
  """Returns the cells of rows that begin with a number of epochs."""
  text = (ROOT / page).read_text()
  cells = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in text.splitlines()
    if re.match(r'\| [\d,]+ \|', line)
  ]
  return [row for row in cells if len(row) == columns]


def test_taus_over_the_length_of_training_are_those_of_the_results(kendall):
  table = rows('results/README.md', 9)
  assert len(table) == 9
  for epochs, training, count, tau, difference, *_ in table:
    length = int(epochs.replace(',', ''))
    fraction = None if training == 'uniform' else float(training.split()[1])
    ours, uniform = kendall[length, fraction], kendall[length, None]
    assert int(count) == len(ours)
    assert tau.split()[0] == f'{np.mean([*ours.values()]):.3f}'
    if fraction is not None:
      gains = [ours[seed] - uniform[seed] for seed in ours]
      assert difference.split()[0] == f'{np.mean(gains):+.3f}'


def test_four_short_trainings_are_quoted_beside_a_long_one(kendall):
  """Members share a division of images, whose seed is that of the first."""
  scores = {}
  for file in (ROOT / 'results').glob('digits-*.json'):
    kept = json.loads(file.read_text())
    given = kept['config']
    short = (given['warmup_epochs'], given['epochs']) == (20, 80)
    if short and given.get('debias.effective_fraction') is None:
      seed = given.get('data.split_seed')
      seed = given['seed'] if seed is None else seed
      scores.setdefault(seed, []).append(kept['hits'])
  truth_A = truth.load(spaces.get('digits')).accuracy_A
  taus = {
    seed: correlation.kendall(np.mean(of_seed, axis=0), truth_A)
    for seed, of_seed in scores.items()
    if len(of_seed) == 4
  }
  assert {*taus} == {*kendall[400, None]} == {*range(20)}
  mean = np.mean([*taus.values()])
  gain = np.mean([taus[seed] - tau for seed, tau in kendall[400, None].items()])
  page = (ROOT / 'docs' / 'rankings.md').read_text().replace('\n', ' ')
  page = re.sub(' +', ' ', page)
  assert f'epochs has {mean:.3f} [' in page and f'{gain:.3f} [' in page
  assert f'a tau of {mean:.3f} on digits' in (ROOT / 'README.md').read_text()


def test_taus_along_pooling_are_those_of_the_results():
  """One seed of each training: uniform, then debiased to 0.7."""
  table = [r for r in rows('results/README.md', 8) if r[1] == '1']
  files = (ROOT / 'results').glob('pooling-*.json')
  by_fraction = {
    json.loads(file.read_text())['config'].get('debias.effective_fraction'): (
      np.load(file.with_suffix('.npz'))
    )
    for file in files
  }
  assert set(by_fraction) == {None, 0.7}
  truths, last = truth.load(POOLING), []
  for fraction, columns in ((None, slice(2, 5)), (0.7, slice(5, 8))):
    kept = by_fraction[fraction]
    truth_S = truths.accuracy(kept['archs_SxE'])
    assert [int(row[0]) for row in table] == kept['epoch_L'].tolist()
    for row, accuracy_S in zip(table, kept['accuracy_LxS'], strict=True):
      mean, tau, best = row[columns]
      assert mean == f'{accuracy_S.mean():.3f}'
      assert tau.split()[0] == f'{correlation.kendall(accuracy_S, truth_S):.3f}'
      assert best == f'{top.kendall_of_best(10, accuracy_S, truth_S):.2f}'
    last.append(table[-1][columns][1])
  docstring = ' '.join((ROOT / 'configs/pooling_cpu.py').read_text().split())
  assert all(f'Kendall {each}' in docstring for each in last)


def test_the_readme_quotes_the_table_of_the_results():
  quoted = {
    (epochs, training): (tau, difference, of_mean)
    for epochs, training, _, tau, difference, _, of_mean, *_ in rows(
      'results/README.md', 9
    )
  }
  table = rows('README.md', 4)
  assert len(table) == 3
  for epochs, uniform, difference, of_means in table:
    plain, debiased = (quoted[epochs, t] for t in ('uniform', 'debiased, 0.5'))
    assert uniform == plain[0]
    # The interval over seeds alone.
    assert debiased[1].startswith(difference)
    assert of_means == f'{plain[2]}, {debiased[2]}'


def test_the_quickstart_has_one_number_wherever_it_is_quoted():
  readme = (ROOT / 'README.md').read_text()
  docstring = (ROOT / 'configs/quickstart.py').read_text()
  for name, words in (
    ('debiased', 'debiased'), ('undebiased', 'undebiased'),
    ('macs alone', 'multiply-adds gives'),
  ):  # fmt: skip
    (tau,) = re.findall(rf'(?m)^ +{name} +(\d\.\d+)', readme)
    assert f'{tau} {words}' in docstring or f'{words} {tau}' in docstring


def test_the_quickstart_quotes_a_run_of_it():
  """`docs/draw.py` keeps the run's numbers."""
  readme = (ROOT / 'README.md').read_text()
  kept = json.loads((ROOT / 'docs/figures/quickstart.json').read_text())
  for name in ('debiased', 'undebiased'):
    found = kept[name]
    low, high = found['kendall_interval']
    row = (
      f'{found["kendall"]:.3f} [{low:.2f}, {high:.2f}]'
      f' {found["spearman"]:.3f} {found["top_kendall"]:.3f}'
      f' {found["best_arch"]} {found["best_arch_true_accuracy"]:.2%}'
    )
    assert f' {name} {row}' in ' '.join(readme.split())
    for cost, taus in found['baselines'].items():
      row = f'{cost} alone {taus["kendall"]:.3f} {taus["spearman"]:.3f}'
      assert row in ' '.join(readme.split())
  said = ' '.join(readme.split())
  assert f'on an {kept["made_by"]["processor"]} with' in said
  assert f'(jax {kept["made_by"]["jax"]},' in said


def test_the_command_for_many_devices_is_one_that_works():
  (line,) = re.findall(
    r'(?m)^ +(--mesh\.data.*)$', (ROOT / 'README.md').read_text()
  )
  assert line in (ROOT / 'launch/README.md').read_text()
  words = shlex.split(line)
  values = dict(zip(words[::2], map(int, words[1::2]), strict=True))
  given = config.load('macro.py')
  for name, value in values.items():
    section, field = name.removeprefix('--').split('.')
    changed = dataclasses.replace(getattr(given, section), **{field: value})
    given = dataclasses.replace(given, **{section: changed})
  validation.validate(given)
  assert given.sampler.paths % given.mesh.paths == 0


def test_the_readme_is_read_in_one_go():
  text = (ROOT / 'README.md').read_text()
  assert len(text.splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  for link in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
    if not link.startswith('http'):
      assert (page.parent / link).exists(), link
