"""Combinations of a supernet's scores: formulas, the gate, the whole space."""

import numpy as np
import pytest
import scipy.stats

from jaxnas import rank, spaces
from jaxnas.config import Config, Ranking, validation
from jaxnas.config.registry import COMBINATIONS
from jaxnas.experiment import build, ranking
from jaxnas.runtime import files
from jaxnas.truth import agreement, combine, correlation
from support import small_run
from support.runs import result_of

DIGITS = spaces.get('digits')
MACRO = spaces.get('nas_bench_macro')
RNG = np.random.default_rng


def scored(space, archs_AxE, value_A, noise=0.0, seed=0):
  """Scores whose halves have noise of their own, and whose mean has half."""
  halves = value_A + noise * RNG(seed).normal(size=(2, len(archs_AxE)))
  return combine.Scores(archs_AxE, halves.mean(axis=0), halves)


def sums(space, archs_AxE, seed=3):
  """Accuracies to which every op adds something of its own."""
  features_AxF = space.one_hot(archs_AxE)
  return features_AxF @ RNG(seed).normal(size=features_AxF.shape[1]) / 20


def after(space, scores, *names):
  return combine.combine(space, scores, names)[-1]


def test_ranks_by_hand():
  archs_AxE = DIGITS.parse('0000')[None].repeat(3, 0)
  archs_AxE[1:, 0] = [1, 2]  # In this order they cost more.
  assert (np.diff(DIGITS.costs(archs_AxE).macs_A) > 0).all()
  scores = scored(DIGITS, archs_AxE, np.array([0.9, 0.8, 0.7]))
  ranks_A = np.array([3, 2, 1])
  np.testing.assert_allclose(
    after(DIGITS, scores, 'log_macs').score_A, np.log(ranks_A * [1, 2, 3])
  )
  gaussian = [scipy.stats.norm.ppf((r - 0.375) / 3.25) for r in (1, 2, 3)]
  np.testing.assert_allclose(
    after(DIGITS, scores, 'params').score_A,
    np.array(gaussian)[::-1] + 0.5 * np.array(gaussian),
  )


def test_one_network_has_one_score():
  archs_AxE = MACRO.enumerate()[::7]
  scores = scored(MACRO, archs_AxE, RNG(0).uniform(size=len(archs_AxE)))
  found = after(MACRO, scores, 'canonical')
  forms = {}
  for form_E, value in zip(
    MACRO.canonical(archs_AxE).tolist(), scores.score_A, strict=True
  ):
    forms.setdefault(tuple(form_E), []).append(value)
  expected_A = [
    np.mean(forms[tuple(form_E)])
    for form_E in MACRO.canonical(archs_AxE).tolist()
  ]
  np.testing.assert_allclose(found.score_A, expected_A)
  shared = sum(len(values) for values in forms.values() if len(values) > 1)
  assert found.note.startswith(f'{shared:,} ')


def test_the_gate_takes_a_sum_out_of_noise():
  archs_AxE = DIGITS.enumerate()
  truth_A = sums(DIGITS, archs_AxE)
  scores = scored(DIGITS, archs_AxE, truth_A, noise=0.1)
  found = after(DIGITS, scores, 'additive')
  assert 'is taken' in found.note
  raw, fitted = (
    correlation.kendall(one.score_A, truth_A) for one in (scores, found)
  )
  assert fitted > raw + 0.1


def test_the_gate_keeps_what_is_no_sum():
  archs_AxE = DIGITS.enumerate()
  scores = scored(DIGITS, archs_AxE, RNG(0).uniform(size=81), noise=1e-3)
  found = after(DIGITS, scores, 'additive')
  assert 'left out' in found.note
  np.testing.assert_array_equal(found.score_A, scores.score_A)


@pytest.mark.parametrize('name', ['digits', 'nas_bench_macro', 'pooling'])
def test_a_sample_extends_to_the_space(name):
  space = spaces.get(name)
  every_NxE = space.enumerate()
  some = np.sort(RNG(0).permutation(len(every_NxE))[: max(20, space.size // 8)])
  truth_N = sums(space, every_NxE)
  scores = scored(space, every_NxE[some], truth_N[some])
  found = after(space, scores, 'extend')
  np.testing.assert_array_equal(found.archs_AxE, every_NxE)
  assert correlation.kendall(found.score_A, truth_N) > 0.9
  assert float(found.note.split()[2]) > 0.9


def test_what_no_sum_explains_is_said_to_be_so():
  every_NxE = DIGITS.enumerate()
  scores = scored(DIGITS, every_NxE, RNG(1).uniform(size=81))
  assert float(after(DIGITS, scores, 'extend').note.split()[2]) < 0.3


@pytest.mark.parametrize('step', COMBINATIONS)
@pytest.mark.parametrize(
  'name', ['digits', 'nas_bench_macro', 'nas_bench_201', 'pooling']
)
def test_the_order_of_the_list_is_of_no_account(name, step):
  space = spaces.get(name)
  archs_AxE = space.subset(RNG(0), min(space.size, 60))
  scores = scored(space, archs_AxE, sums(space, archs_AxE), noise=0.02)
  order = RNG(1).permutation(len(archs_AxE))
  shuffled = scores._replace(
    archs_AxE=archs_AxE[order],
    score_A=scores.score_A[order],
    half_HxA=scores.half_HxA[:, order],
  )
  one, other = after(space, scores, step), after(space, shuffled, step)
  back = slice(None) if step == 'extend' else np.argsort(order)
  np.testing.assert_allclose(one.score_A, other.score_A[back], atol=1e-9)
  np.testing.assert_allclose(one.half_HxA, other.half_HxA[:, back], atol=1e-9)
  assert one.uses == (step,) and np.isfinite(one.score_A).all()


def test_what_each_step_changes_has_an_interval():
  archs_AxE, truth_A = DIGITS.enumerate(), np.arange(81) / 100
  table = agreement.Table(DIGITS, archs_AxE, truth_A[:, None])
  scores = scored(DIGITS, archs_AxE, truth_A, noise=0.3)
  better = scores._replace(score_A=truth_A, uses=('mine',))
  (found,) = agreement.combined(DIGITS, [scores, better], table, RNG(0))
  assert found['kendall'] == pytest.approx(1)
  low, high = found['gain_interval']
  gain = 1 - correlation.kendall(scores.score_A, truth_A)
  assert 0 < low < gain < high
  (alone,) = agreement.combined(DIGITS, [scores, better], None, RNG(0))
  assert {*alone} == {'uses', 'note', 'n', 'best_arch', 'tied'}


def test_a_table_of_a_part_holds_what_it_knows():
  archs_AxE, truth_A = DIGITS.enumerate(), np.arange(81) / 100
  table = agreement.Table(DIGITS, archs_AxE[:40], truth_A[:40, None])
  sample = scored(DIGITS, archs_AxE[:40], truth_A[:40])
  whole = sample._replace(archs_AxE=archs_AxE, score_A=truth_A)
  (found,) = agreement.combined(DIGITS, [sample, whole], table, RNG(0))
  assert (found['n'], found['kendall']) == (81, pytest.approx(1))
  # The table does not have the best one.
  assert found['best_arch_true_accuracy'] is None
  assert 'gain_interval' not in found


BAD = [
  ('logmacs', 'Did you mean log_macs?'),
  ('macs,', "ranking.combine '' is none of"),
  ('additive, macs', "ranking.combine ' macs' is none of"),
]


@pytest.mark.parametrize(('text', 'says'), BAD)
def test_unknown_steps_are_refused(text, says):
  with pytest.raises(ValueError) as raised:
    validation.validate(Config(ranking=Ranking(combine=text)))
  assert says in str(raised.value)


def test_a_space_that_cannot_be_listed_is_not_extended():
  given = Config(ranking=Ranking(archs=50, combine='extend'))
  with pytest.raises(ValueError, match='leave that step out'):
    build.ranking_archs(given, spaces.get('mobilenet'))


# The command, on a run of a space of 27 architectures.


@pytest.mark.usefixtures('small_space')
def test_what_a_run_has_predicted_is_not_predicted_again(
  small, tmp_path, monkeypatch, capsys
):
  def none(*args, **options):
    raise AssertionError('It evaluates.')

  monkeypatch.setattr(ranking, 'right', none)
  names = 'canonical,additive,log_macs'
  flags = ['--run', str(small), '--workdir', str(tmp_path)]
  assert rank.main([*flags, '--ranking.combine', names]) == 0
  found = result_of(tmp_path / 'correlation.json')
  before = result_of(small / 'correlation.json')
  assert found['kendall'] == before['kendall']
  assert found['best_arch'] == before['best_arch']
  assert [step['uses'][-1] for step in found['combined']] == names.split(',')
  printed = capsys.readouterr().out
  assert '+ log_macs' in printed and 'in tau' in printed
  predicted = files.read_npz(small / 'predictions.npz')
  table = small_run.TABLE.accuracy(predicted['archs_AxE'])
  expected = after(
    small_run.SPACE,
    combine.Scores(
      predicted['archs_AxE'], predicted['accuracy_A'], predicted['half_HxA']
    ),
    *names.split(','),
  )
  assert found['combined'][-1]['kendall'] == correlation.kendall(
    expected.score_A, table
  )


@pytest.mark.usefixtures('small_space')
def test_halves_are_of_all_images(small):
  predicted = files.read_npz(small / 'predictions.npz')
  right_AxI = np.unpackbits(predicted['right_AxW'], axis=1, count=30)
  for h in range(2):
    np.testing.assert_array_equal(
      predicted['half_HxA'][h], right_AxI[:, h::2].mean(axis=1)
    )
