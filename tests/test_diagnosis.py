"""Diagnoses: what they measure, what they say, and where runs keep them."""

import numpy as np
import pytest

from jaxnas.experiment import diagnosing
from jaxnas.report import __main__ as report
from jaxnas.runtime import files
from jaxnas.truth import diagnosis
from support import small_run
from support.runs import result_of

RNG = np.random.default_rng


def halves(signal_A, noise):
  """Scores on two halves, whose mean has noise of this standard deviation."""
  draws = RNG(0).normal(size=(2, len(signal_A)))
  return signal_A + noise * np.sqrt(2) * draws


@pytest.mark.parametrize('ratio', [0.1, 1.0, 9.0])
def test_signal_to_noise(ratio):
  signal_A = RNG(1).normal(size=50_000)
  found = diagnosis.signal_to_noise(halves(signal_A, ratio**-0.5))
  assert found == pytest.approx(ratio, rel=0.1)
  assert diagnosis.signal_to_noise(np.full((2, 5), 0.1)) is None


def test_still_falling():
  straight_L = np.linspace(2, 1, 100)
  assert diagnosis.still_falling(straight_L) == pytest.approx(0.25)
  assert diagnosis.still_falling(straight_L[::-1]) is None
  plateau_L = np.r_[np.linspace(2, 1, 50), np.ones(50)]
  assert diagnosis.still_falling(plateau_L) == 0
  assert diagnosis.still_falling(np.array([2.0, 1.0])) is None


def test_the_parts_of_a_score():
  """Exact without noise: s = 2 q + 3 e, before it is standardised."""
  q_A, e_A = RNG(0).normal(size=(2, 500))
  e_A += 0.5 * q_A
  found = diagnosis.parts(2 * q_A + 3 * e_A, e_A, q_A)
  assert found['b'] / found['c'] == pytest.approx(
    2 * q_A.std() / (3 * e_A.std())
  )
  assert found['noise'] == pytest.approx(0, abs=1e-12)
  assert found['rho'] == pytest.approx(np.corrcoef(q_A, e_A)[0, 1])
  assert found['threshold'] == pytest.approx(0, abs=1e-12)
  assert diagnosis.parts(q_A, np.ones(500), q_A) == {}


def agrees(b, c, rho, noise):
  """Correlation of a score with the truth, by the model."""
  variance = b**2 + c**2 + 2 * b * c * rho + noise
  return (b + c * rho) / np.sqrt(variance)


@pytest.mark.parametrize('c', [0.05, 0.2, 0.4, 0.8, 1.6])
@pytest.mark.parametrize(
  ('b', 'rho', 'noise'), [(1, 0.5, 0.5), (0.5, 0.3, 2.0), (1, -0.3, 0.5)]
)
def test_the_threshold_is_where_less_bias_begins_to_help(b, c, rho, noise):
  q_A, other_A, n_A = RNG(0).normal(size=(3, 200_000))
  e_A = rho * q_A + np.sqrt(1 - rho**2) * other_A
  scale = np.sqrt(b**2 + c**2 + 2 * b * c * rho + noise)
  found = diagnosis.parts(b * q_A + c * e_A + noise**0.5 * n_A, e_A, q_A)
  for name, value in (('b', b), ('c', c), ('noise', noise / scale)):
    assert found[name] == pytest.approx(value / scale, abs=0.02)
  less = agrees(b, 0.98 * c, rho, noise) > agrees(b, c, rho, noise)
  assert less == (c > scale * found.get('threshold', 0))


def said(**changes):
  return diagnosis.says(
    {
      'signal_to_noise': 4.0,
      'score_density': 0.5,
      'still_falling': 0.02,
      **changes,
    }
  )


HELD = {'density_truth': -0.2, 'rho': -0.2, 'c': 0.3}
SAYS = [
  ({}, 'debiasing can help, unless'),
  ({'signal_to_noise': 0.5}, 'mostly noise'),
  ({'signal_to_noise': None}, 'mostly noise'),
  ({'score_density': -0.3}, 'no bias to take away'),
  ({'still_falling': 0.4}, 'still learns (40%'),
  (HELD, 'is no sign of a good architecture: debiasing should help.'),
  ({**HELD, 'c': -0.1}, 'does not raise a score: debiasing should not help.'),
  ({**HELD, 'threshold': 0.2}, 'by more than it tells'),
  ({**HELD, 'threshold': 0.4}, 'than it misleads: debiasing should not help.'),
]


@pytest.mark.parametrize(('changes', 'words'), SAYS, ids=[s[1] for s in SAYS])
def test_what_is_said(changes, words):
  assert words in said(**changes)


def test_an_intervention():
  moved_A = RNG(0).normal(size=300)
  change_A = 0.3 * moved_A + 0.05 + 0.1 * RNG(1).normal(size=300)
  found = diagnosis.intervention(change_A, moved_A, RNG(2))
  low, high = found['slope_interval']
  assert found['slope'] == pytest.approx(np.polyfit(moved_A, change_A, 1)[0])
  assert low < 0.3 < high and high - low < 0.05
  assert found['r2'] == pytest.approx(np.corrcoef(moved_A, change_A)[0, 1] ** 2)
  assert diagnosis.intervention(change_A, np.ones(300), RNG(2)) is None


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
def test_a_run_diagnoses_itself(tmp_path, capsys):
  run = small_run.train_in(
    tmp_path, '--debias.effective_fraction', '0.6', '--debias.baseline'
  )
  found = result_of(run / diagnosing.FILE)
  assert {*found} == {'warm_up', 'end', 'intervention'}
  assert found['warm_up']['n'] == found['end']['n'] == 27
  predicted = files.read_npz(run / 'predictions.npz')
  assert found['end']['signal_to_noise'] == diagnosis.signal_to_noise(
    predicted['half_HxA']
  )
  printed = capsys.readouterr().out
  assert found['warm_up']['says'] in printed
  assert 'points for one more effective update a step' in printed
  # The twin has no density to take away.
  assert not (run / 'undebiased' / diagnosing.FILE).exists()
  assert report.main([str(run), str(run / 'undebiased')]) == 0
  page = (run / 'report.html').read_text('utf-8')
  assert 'Diagnosis' in page and 'What debiasing changed' in page
