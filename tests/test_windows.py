"""Windows of a benchmark last as long as they must."""

import time

import pytest

from jaxnas.bench import clocks, step, windows
from jaxnas.bench.cases import Options


@pytest.mark.parametrize(
  ('at_least_s', 'runs'), [(0.0, [1]), (0.5, [1, 2]), (1.0, [1, 4])]
)
def test_a_window_is_filled_with_whole_runs(at_least_s, runs, monkeypatch):
  clock, done, counts = [0.0], [0], []

  def run():
    done[0] += 1

  def wait():
    # A run takes a quarter of a second, which passes while all are waited for.
    clock[0] += done[0] / 4
    counts.append(done[0])
    done[0] = 0

  monkeypatch.setattr(windows.time, 'perf_counter', lambda: clock[0])
  assert windows.pace(run, wait, 3.0, at_least_s) == 12.0
  assert counts == runs


@pytest.mark.parametrize(
  ('kind', 'peak'),
  [
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA H100 PCIe', 756),
    ('NVIDIA L4', 121),
    ('NVIDIA L40', 181),
    ('NVIDIA L40S', 362),
    ('NVIDIA L400', None),
    ('NVIDIA A100-SXM4-80GB MIG 1g.10gb', None),
    ('cpu', None),
  ],
)
def test_devices_are_known_by_their_whole_names(kind, peak):
  assert (step.PEAKS[kind].tflops if kind in step.PEAKS else None) == peak


def units(kind, monkeypatch):
  monkeypatch.setattr(step.rivals, 'device', lambda: ('gpu', kind))
  cases = step.cases(Options(batch_size=16))
  return [
    (case.unit, case.ours.kwargs)
    for case in cases
    if 'macro bfloat16' in case.case
  ]


def test_a_gpu_is_measured_as_shares_of_what_it_can(monkeypatch):
  found = units('NVIDIA H100 80GB HBM3', monkeypatch)
  assert [unit for unit, _ in found] == [
    'images/s', 'TFLOP/s', 'of peak', 'of peak bandwidth',
  ]  # fmt: skip
  assert found[2][1]['rate'] == pytest.approx(1 / 989e12)
  assert found[3][1]['bandwidth'] == pytest.approx(1 / 3.35e12)
  assert len(units('NVIDIA H1', monkeypatch)) == 2


def test_a_share_of_bandwidth_counts_what_the_step_moves(monkeypatch):
  given = {
    'space': 'digits', 'dtype': 'float32', 'archs': 2, 'batch_size': 4,
    'seed': 0,
  }  # fmt: skip
  monkeypatch.setattr(
    step.windows, 'pace', lambda run, wait, work, at_least_s: work
  )
  one, two = (step.ours(**given, bandwidth=share)() for share in (1.0, 2.0))
  # All maps of a forward pass move at least once.
  assert two == 2 * one > 1e5
  assert step.ours(**given)() == 8


def test_clocks_are_those_that_the_driver_says(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with clocks.watched() as nothing:
    pass
  assert nothing == {}
  (tmp_path / 'nvidia-smi').write_text(
    '#!/bin/sh\n'
    'echo "1980, 2619, 500.25, 40"; echo "1700, 2619, 600.25, [N/A]"\n'
    'exec /bin/sleep 60\n'
  )
  (tmp_path / 'nvidia-smi').chmod(0o755)
  with clocks.watched() as seen:
    time.sleep(0.5)
  assert seen == {'sm_mhz': 1840, 'memory_mhz': 2619, 'power_w': 550.25}
