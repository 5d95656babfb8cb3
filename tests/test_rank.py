import json

import numpy as np
import pytest

from jaxnas import rank, spaces, tables

SPACE = spaces.get('digits')
ARCHS_AxE = SPACE.enumerate()
TABLE = tables.from_seeds(
  SPACE, np.random.default_rng(0).uniform(0.5, 1, (81, 3))
)


def correlate(accuracy_A, table=TABLE, archs_AxE=ARCHS_AxE):
  return rank.correlate(
    SPACE, archs_AxE, accuracy_A, table, np.random.default_rng(1)
  )


def test_a_perfect_ranking():
  out = correlate(TABLE.accuracy_A)
  assert [out['kendall'], out['spearman']] == pytest.approx([1, 1])
  assert out['best_arch_true_accuracy'] == out['best_true_accuracy']
  assert SPACE.format(ARCHS_AxE[TABLE.accuracy_A.argmax()]) == out['best_arch']
  assert json.loads(json.dumps(out, allow_nan=False))['n'] == 81


def test_equal_strings_are_counted_once_in_canonical():
  out = correlate(TABLE.accuracy_A)
  # '0x' in the second position of a stage is the only freedom: none in digits.
  assert 'canonical' not in out
  macro = spaces.get('nas_bench_macro')
  archs_AxE = macro.enumerate()[1::5]
  truth = tables.from_seeds(macro, np.linspace(0, 1, 6561)[:, None])
  out = rank.correlate(
    macro, archs_AxE, np.arange(len(archs_AxE)) / 1e3, truth,
    np.random.default_rng(0),
  )  # fmt: skip
  forms = {tuple(form_E) for form_E in macro.canonical(archs_AxE).tolist()}
  # Of some networks a string that is not the canonical one was drawn.
  assert len(forms) > (macro.canonical(archs_AxE) == archs_AxE).all(1).sum()
  assert out['canonical'] == {
    'n': len(forms),
    'kendall': pytest.approx(1),
    'spearman': pytest.approx(1),
  }


def test_without_a_table_only_the_choice_is_known():
  accuracy_A = np.linspace(0, 1, 81)
  assert correlate(accuracy_A, table=None) == {
    'n': 81,
    'best_arch': '2222',
    'best_arch_accuracy': 1.0,
  }


def test_the_table_shows_results_side_by_side(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '120')
  out = correlate(TABLE.accuracy_A)
  constant = correlate(np.full(81, 0.5))
  rank.show({'debiased': out, 'undebiased': constant})
  text = capsys.readouterr().out
  assert '1.000 [1.00, 1.00]' in text
  for word in ('undebiased', 'params alone', 'layers alone', '81'):
    assert word in text
