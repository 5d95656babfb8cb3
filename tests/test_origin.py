"""environment.json says by what a run was computed, and what has changed."""

import ctypes
import json
import shutil

import pytest

from jaxnas import train
from jaxnas.experiment import origin
from jaxnas.nn import gpu, target
from jaxnas.nn.cpu import native
from jaxnas.nn.cpu.native import library
from jaxnas.runtime import files


@pytest.fixture
def computes(monkeypatch):
  """Makes C++ serve those programs that ask for it, or not, from now on."""

  def by(**kernels):
    def registered(source):
      return ctypes.CDLL(None) if kernels.get(source) == 'C++' else None

    monkeypatch.setattr(library, '_loaded', {})
    monkeypatch.setattr(library, '_registered', registered)
    for source in kernels:
      native.formulation(source)

  return by


def read(folder):
  return json.loads((folder / origin.FILE).read_text())


def changed(folder, **fields):
  files.write_json(folder / origin.FILE, {**read(folder), **fields})


def test_what_has_computed_is_kept_in_order(tmp_path, computes):
  for by in ('C++', 'C++', 'XLA', 'C++'):
    computes(middle=by)
    origin.Origin(tmp_path).save()
  assert read(tmp_path)['kernels'] == {'middle': 'C++, then XLA, then C++'}
  assert read(tmp_path)['backend'] == 'cpu'


@pytest.mark.parametrize(
  ('before', 'says'),
  [
    ({}, None),
    ({'kernels': {'middle': 'XLA', 'dense': 'C++'}},
     'middle by C++ instead of XLA, dense by XLA instead of C++'),
    ({'kernels': {'middle': 'XLA, then C++'}}, None),
    ({'versions': {'jaxlib': '0.1'}}, 'instead of 0.1'),
    ({'backend': 'gpu'}, 'backend cpu instead of gpu'),
    ({'kernels': 1}, 'cannot be read (kernels is 1)'),
    ({'kernels': {'middle': 1}}, 'no texts'),
  ],
)  # fmt: skip
def test_a_resumption_says_what_is_computed_otherwise(
  tmp_path, computes, capsys, before, says
):
  computes(middle='C++', dense='XLA')
  origin.Origin(tmp_path).save()
  changed(tmp_path, **before)
  made_by = origin.Origin(tmp_path)
  made_by.save()
  made_by.goes_on()
  out = capsys.readouterr().out
  assert out.count('\n') == (says is not None)
  if says:
    assert says in out and out.startswith('warning: ')


def test_what_gathers_trainings_names_what_computed_them(
  tmp_path, computes, capsys
):
  folders = [tmp_path / name for name in 'abc']
  for folder, by in zip(folders, ('C++', 'XLA', 'C++'), strict=True):
    folder.mkdir()
    computes(middle=by)
    origin.Origin(folder).save()
  changed(folders[2], backend='gpu', kernels={'dense': 'C++'})
  (tmp_path / 'd').mkdir()
  assert origin.of_folders([*folders, tmp_path / 'd']) == {
    'backend': 'cpu or gpu',
    'kernels': {'middle': 'C++ or XLA', 'dense': 'C++'},
  }
  assert origin.of_folders([tmp_path / 'd']) == {}
  # It is not this process's file to write anew.
  (folders[0] / origin.FILE).write_text('{')
  assert origin.of_folders(folders)['kernels']['middle'] == 'XLA'
  said = capsys.readouterr().out
  assert f'warning: {folders[0] / origin.FILE}' in said and 'anew' not in said


def test_kernels_of_a_gpu_are_told_apart(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv(gpu.SWITCH, '1')
  with target.formulated_for('gpu'):
    origin.Origin(tmp_path).save()
    assert read(tmp_path)['kernels']['middle'] == 'Pallas'
    monkeypatch.delenv(gpu.SWITCH)
    origin.Origin(tmp_path).goes_on()
  assert 'middle by XLA instead of Pallas' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures('small_space')
@pytest.mark.skipif(not library.available('middle'), reason='no C++ compiler')
def test_a_run_begun_without_c_plus_plus_goes_on_with_it(
  small, tmp_path, capsys
):
  run = tmp_path / 'run'
  shutil.copytree(small, run)
  kernels = read(run)['kernels']
  assert kernels['middle'] == 'C++'
  changed(run, kernels={**kernels, 'middle': 'XLA'})
  (run / 'predictions.npz').unlink()
  assert train.main(['--workdir', str(run), '--resume']) == 0
  assert 'goes on with middle by C++ instead of XLA' in capsys.readouterr().out
  assert read(run)['kernels']['middle'] == 'XLA, then C++'
