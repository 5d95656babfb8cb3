"""Results say what they were made of, and are read as what they are, or not."""

import io
import json
import os
import shutil
import time
import zipfile

import numpy as np
import pytest

from jaxnas import config, density, spaces, truth
from jaxnas.config import run_folder
from jaxnas.experiment import comparison, outcomes, predictions, trained
from jaxnas.report import folders, sections
from jaxnas.runtime import errors, files, jsonl, ledger, memory, seals
from jaxnas.runtime import npz as npz_files
from jaxnas.searchers import base
from jaxnas.training import metrics
from support import runs
from support.refusals import Refusal, refused

DIGITS = spaces.get('digits')
ARCHS_AxE = DIGITS.enumerate()


@pytest.fixture
def run(finished, tmp_path):
  """A run to be written to."""
  return shutil.copytree(finished, tmp_path / 'run')


def origin(run, **changes):
  return {'config': config.digest(run_folder.read_config(run))} | changes


def test_a_file_is_not_blamed_for_memory_that_ran_out(tmp_path, monkeypatch):
  """Unless it is the file that takes it."""

  def short(*_):
    raise MemoryError('Unable to allocate 22 GB')

  (tmp_path / 'x.json').write_text('{}')
  with pytest.raises(MemoryError):
    files.parsed(tmp_path / 'x.json', short)
  (tmp_path / 'x.npz').write_bytes(npz(x=array((2,), content=bytes(16))))
  monkeypatch.setattr(npz_files, '_array', short)
  with pytest.raises(MemoryError):
    files.read_npz(tmp_path / 'x.npz')


def test_memory_is_not_blamed_for_a_file_that_takes_it(
  tmp_path, monkeypatch, capsys
):
  file = tmp_path / 'x.npz'
  file.write_bytes(npz(x=array((2,), content=bytes(16))))
  monkeypatch.setattr(memory, '_of_machine', lambda: 10)
  with pytest.raises(SystemExit, match='2'), errors.usage_errors():
    files.read_npz(file)
  said = capsys.readouterr().err
  assert said.startswith(f'error: {file} cannot be read (it takes 1.44e-07 GB')
  assert 'data.batch_size' not in said


# --- a seal holds as long as nothing changed


def digit_changed(text):
  """Yields the text with another digit, for some of its digits."""
  places = [i for i, letter in enumerate(text) if letter.isdigit()]
  for i in places[:: max(1, len(places) // 20)]:
    yield text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :]


def test_a_digit_changed_is_noticed_in_every_result(tmp_path):
  facts = {'config': 'a1'}
  file = tmp_path / 'x.json'
  files.write_result(file, {'n': 81, 'tau': {'x': [0.25]}, 'name': '0'}, facts)
  assert files.read_result(file, {'n': int}, facts) == {
    'n': 81, 'tau': {'x': [0.25]}, 'name': '0',
  }  # fmt: skip
  # In another order, and without blanks, it is the same.
  values = json.loads(file.read_text())
  file.write_text(json.dumps(dict(reversed(values.items()))))
  files.read_result(file, {}, facts)
  for text in digit_changed(file.read_text()):
    file.write_text(text)
    with pytest.raises(errors.Damaged, match=r'x\.json cannot be read'):
      files.read_result(file, {}, facts)
  for key in values:
    file.write_text(json.dumps({k: v for k, v in values.items() if k != key}))
    with pytest.raises(
      errors.Damaged, match=r'x\.json (cannot be read|lacks n)'
    ):
      files.read_result(file, {'n': int}, facts)


def test_a_digit_changed_is_noticed_in_a_table(tmp_path):
  file = tmp_path / 't.json'
  truth.dump(truth.load(DIGITS), file, data='digits')
  truth.load(DIGITS, file)
  for text in digit_changed(file.read_text()):
    file.write_text(text)
    with pytest.raises(ValueError, match=r't\.json: '):
      truth.load(DIGITS, file)


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    ('train', '--workdir {tmp}/run --resume'),
    ('rank', '--run {tmp}/run'),
    ('search', '--run {tmp}/run'),
    ('compare', '--workdir {tmp}/run --resume --samplers uniform'),
    ('train', '--config {config} --workdir {tmp}/new --table '
     '{tmp}/run/table.json'),
  ],
)  # fmt: skip
def test_no_command_is_held_to_a_changed_table(
  command, words, run, tmp_path, capsys
):
  file = run / 'table.json'
  truth.dump(truth.load(DIGITS), file, data='digits')
  text = file.read_text()
  place = text.index('0.9')
  file.write_text(f'{text[:place]}0.8{text[place + 3 :]}')
  says = (
    '{tmp}/run/table.json',
    'differs from its digest',
    'restore it',
    'give a table',
  )
  refused(Refusal(command, words, says), tmp_path, capsys)


def test_damaged_rows_are_named_and_kept_aside(tmp_path, capsys):
  file = tmp_path / 'metrics.jsonl'
  with metrics.MetricsFile(file, of='run') as rows:
    for step in range(1, 6):
      rows.write(step, {'loss': step / 7})
  with metrics.MetricsFile(tmp_path / 'other.jsonl', of='other') as rows:
    rows.write(2, {'loss': 0.0})
  lines = file.read_text().splitlines(keepends=True)
  bad = [
    (tmp_path / 'other.jsonl').read_text(), lines[3].replace('0.5', '0.4'),
  ]  # fmt: skip
  # The last one was cut short, as by a signal.
  file.write_text(''.join([lines[0], bad[0], lines[2], bad[1], lines[4][:-9]]))
  with metrics.MetricsFile(file, of='run') as rows:
    rows.go_on_from(5)
  said = capsys.readouterr().out
  assert f'warning: {file}: rows that are damaged' in said
  assert said.rstrip().endswith(f'{tmp_path / "damaged/metrics.jsonl"}: 2, 4')
  assert file.read_text() == lines[0] + lines[2]
  assert (tmp_path / 'damaged/metrics.jsonl').read_text() == ''.join(bad)
  with metrics.MetricsFile(file, of='run') as rows:
    rows.go_on_from(5)
  assert capsys.readouterr().out == ''


def test_results_of_another_run_are_trained_again(tmp_path, capsys):
  file = tmp_path / 'results.jsonl'
  rows = [{'arch': '0000', 'seed': n, 'accuracy': 0.5} for n in range(2)]
  jsonl.append_row(file, rows[0], 'run')
  jsonl.append_row(file, rows[1], 'other')
  assert outcomes.read_results(file, 'run') == {('0000', 0): 0.5}
  assert 'of another run' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['density.npz', 'state.npz'])
def test_arrays_have_a_checksum(name, tmp_path):
  rng, file = np.random.default_rng(0), tmp_path / name
  alpha_A = rng.uniform(1, 2, 81)
  if name == 'density.npz':
    density.save(density.Density(ARCHS_AxE, alpha_A), file, {'config': 'x'})

    def read():
      (archs_AxE, found_A, _), facts = density.read_file(file)
      return [archs_AxE, found_A], facts
  else:
    state = base.empty(DIGITS)
    state = base.record(state, ARCHS_AxE, alpha_A / 2)
    base.save_state(file, state, {'config': 'x'})

    def read():
      *arrays, _ = base.load_state(file, DIGITS)
      return arrays, None

  content, (arrays, facts) = file.read_bytes(), read()
  for place in rng.integers(len(content), size=60):
    changed = bytearray(content)
    changed[place] ^= 1 << rng.integers(8)
    file.write_bytes(bytes(changed))
    try:
      found, others = read()
    except errors.Damaged:
      continue
    assert others == facts
    for one, other in zip(found, arrays, strict=True):
      np.testing.assert_array_equal(one, other)


# --- results of versions that wrote less


def test_a_result_of_an_older_version_says_what_to_do(tmp_path):
  older = r'older version of jaxnas wrote it.*Take it away, .*--resume'
  kind = {'archs_AxE': 'iu', 'half_HxA': 'f', 'own?': 'f'}
  file = tmp_path / 'x.npz'
  files.write_npz(file, {'archs_AxE': ARCHS_AxE}, {'config': 'a1'})
  with pytest.raises(errors.Damaged, match=f'npz lacks half_HxA: an {older}'):
    files.read_arrays(file, kind, {'config': 'a1'})
  # Another program's file is none of an older version.
  np.savez(file, archs_AxE=ARCHS_AxE)
  with pytest.raises(errors.Damaged, match='lacks half_HxA: it is no such'):
    files.read_arrays(file, kind)
  file = tmp_path / 'x.json'
  files.write_result(file, {'of': {'n': 81}}, {'config': 'a1'})
  with pytest.raises(errors.Damaged, match=f'json lacks of.tau: an {older}'):
    files.read_result(file, {'of': {'n': int, 'tau': float}}, {'config': 'a1'})


# --- a result says of what it is


def test_a_digest_is_of_the_experiment_alone():
  plain = config.Config()
  assert config.digest(plain) == config.digest(
    config.Config(
      mesh=config.Mesh(data=2), data=config.Data(dir='/x'),
      logging=config.Logging(every_steps=3),
    )
  )  # fmt: skip
  # A number that was given as an integer.
  one, other = (
    config.Config(debias=config.Debias(temperature=2.0)) for _ in '12'
  )
  object.__setattr__(one.debias, 'temperature', 2)
  assert config.digest(one) == config.digest(other) != config.digest(plain)
  assert config.digest(config.Config(seed=1)) != config.digest(plain)
  read = config.from_json(config.to_json(other))
  assert config.digest(read) == config.digest(other)


BEST = {'best_arch': '0120', 'arch': '0120'}


@pytest.mark.parametrize('name', ['search/best.json', 'correlation.json'])
def test_the_best_of_another_run_is_not_of_this_one(name, run):
  (run / 'search').mkdir()
  (run / 'correlation.json').unlink()
  for facts, says in (
    ({}, 'does not say of which config'),
    ({'config': 'f00'}, 'of another run'),
  ):
    files.write_result(run / name, BEST, facts)
    with pytest.raises(errors.Damaged, match=says):
      trained.best_arch(run)
  runs.write_result(run, name, BEST)
  assert trained.best_arch(run) == '0120'


def test_a_comparison_believes_its_own_results_alone(run):
  given = run_folder.read_config(run)
  found = {
    'n': 81, 'best_arch': '0120', 'best_arch_accuracy': 0.5, 'images': 20,
    'split': 'test', 'bn': 'batch', 'compute': {'epochs': {}},
  }  # fmt: skip
  runs.write_result(run, 'correlation.json', found)
  assert comparison.result_of(run, given) == found
  for changed in ({'seed': 1}, {'epochs': 2}):
    other = config.from_json(
      json.dumps(json.loads(config.to_json(given)) | changed)
    )
    with pytest.raises(errors.Damaged, match='of another run: of config'):
      comparison.result_of(run, other)
  assert comparison.result_of(run / 'no', given) is None


def test_a_search_goes_on_with_scores_of_its_supernet_alone(tmp_path):
  file = tmp_path / 'state.npz'
  facts = {'config': 'x', 'state': 'y', 'ranking': {'images': 20}}
  base.save_state(file, base.empty(DIGITS), facts)
  base.load_state(file, DIGITS, facts)
  for changed in ({'state': 'z'}, {'config': 'z'}, {'ranking': {'images': 10}}):
    with pytest.raises(errors.Damaged, match=r'of another run.*new --workdir'):
      base.load_state(file, DIGITS, facts | changed)


def test_the_seconds_of_another_run_are_not_counted(tmp_path):
  book = ledger.Ledger(tmp_path / 'ledger.json', 0.0, 'run')
  book.save()
  ledger.Ledger(tmp_path / 'ledger.json', 0.0, 'run')
  with pytest.raises(errors.Damaged, match='of another run'):
    ledger.Ledger(tmp_path / 'ledger.json', 0.0, 'other')


def test_a_ranking_is_of_a_config_and_a_state(run):
  file = run / 'predictions.npz'
  arrays = {
    'archs_AxE': ARCHS_AxE[:3], 'accuracy_A': np.full(3, 0.5),
    'half_HxA': np.zeros((2, 3)),
    'right_AxW': np.zeros((3, 4), np.uint8),
    'skipped_images': np.array(0),
  }  # fmt: skip
  facts = origin(run, state='y')
  files.write_npz(file, arrays, facts)
  assert predictions.read(file, DIGITS, facts).facts == facts
  for name in facts:
    with pytest.raises(errors.Damaged, match=f'of another run: of {name}'):
      predictions.read(file, DIGITS, facts | {name: 'z'})
    files.write_npz(file, arrays, {k: v for k, v in facts.items() if k != name})
    with pytest.raises(errors.Damaged, match=f'not say of which {name}'):
      predictions.read(file, DIGITS, facts)
    files.write_npz(file, arrays, facts)


# --- a reader takes what a run writes, and nothing else

HUGE = '1' + '0' * 400
TEXTS = {
  'empty': '', 'null': 'null', 'list': '[1]', 'number': '3', 'cut': '{"n": ',
  'nested': '{"n": ' + '[' * 500 + ']' * 500 + '}',
  'deep': '{"a":' * 900 + '1' + '}' * 900,
  'huge': f'{{"n": {HUGE}, "seconds": {{"train": {HUGE}}}}}',
  'nulls': '{"n": null, "seconds": null, "versions": null}',
  'lists': '{"n": [], "baselines": [], "seconds": {"train": []}}',
  'twins': '{"n": 1, "n": 2}', 'not finite': '{"n": 1e999}',
}  # fmt: skip
PARTS = (
  'correlation.json', 'environment.json', 'ledger.json', 'metrics.jsonl',
  'table.json', 'predictions.npz', 'density.npz', 'density_log.npz',
  'samples.npz',
)  # fmt: skip


@pytest.mark.parametrize('name', PARTS)
def test_a_report_shows_what_can_be_read(name, run):
  (run / name).unlink(missing_ok=True)
  some = TEXTS if name.endswith('.json') else ('empty', 'list', 'huge')
  for text in map(TEXTS.get, some):
    # Sealed as well, where seals are asked for.
    (run / name).write_text(text)
    check_left_out(run, name)
    value = json.loads(text) if text in ('null', '[1]', '3') else None
    if name.endswith('.json') and value is None:
      try:
        value = json.loads(text)
      except (ValueError, RecursionError):
        continue
      if isinstance(value, dict):
        facts = {seals.FACTS: origin(run)}
        sealed = seals.sealed(value | facts)
        (run / name).write_text(json.dumps(sealed))
        check_left_out(run, name)


def check_left_out(run, name):
  (read,) = folders.read([run])
  if name != 'metrics.jsonl':
    assert 'cannot be read' in read.lacks[name]
  said = sections.sections([read])
  shown = sections.summary([read])
  assert 'cannot be shown' not in str(said) + str(shown)


@pytest.mark.parametrize('name', ['config.json', *PARTS])
def test_a_pipe_is_not_waited_at(name, run, capsys):
  (run / name).unlink(missing_ok=True)
  os.mkfifo(run / name)
  start_s = time.monotonic()
  if name == 'config.json':
    with pytest.raises(errors.Damaged, match='it is no regular file'):
      folders.read([run])
  else:
    (read,) = folders.read([run])
    assert 'cannot be read' in read.lacks[name]
  assert time.monotonic() - start_s < 5


def npz(**members):
  """Returns an archive with these bytes."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as zipped:
    for name, content in members.items():
      zipped.writestr(f'{name}.npy', content)
  return stream.getvalue()


def array(shape, descr='<f8', content=b''):
  stream = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    stream, {'descr': descr, 'fortran_order': False, 'shape': shape}
  )
  return stream.getvalue() + content


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (npz(x=array((10**13,))), 'has 0 bytes'),
    (npz(x=array((3,), content=bytes(16))), 'has 16 bytes'),
    (npz(x=array((10**9, 10**9, 10**9))), 'has 0 bytes'),
    (npz(x=array((2,), '|O', bytes(16))), 'objects'),
    (npz(**{f'x{n}': b'' for n in range(1001)}), '1001 arrays'),
    (
      npz(xa=array((0,)), xb=array((0,))).replace(b'xb.npy', b'xa.npy'),
      'two arrays of one name',
    ),
  ],
  ids=['larger', 'smaller', 'overflow', 'objects', 'many', 'twice'],
)
def test_an_array_is_as_large_as_it_says(content, says, tmp_path):
  file = tmp_path / 'x.npz'
  file.write_bytes(content)
  with pytest.raises(errors.Damaged, match=says):
    files.read_npz(file)


def test_memory_is_asked_before_it_is_taken(tmp_path, monkeypatch):
  bomb = tmp_path / 'bomb.npz'
  bomb.write_bytes(npz(x=array((10**7,), '|u1', bytes(10**7))))
  assert bomb.stat().st_size < 10**5
  assert files.read_npz(bomb)['x'].nbytes == 10**7
  monkeypatch.setattr(memory, '_of_machine', lambda: 10**6)
  with pytest.raises(errors.Damaged, match=r'0\.01 GB of memory, more than is'):
    files.read_npz(bomb)
  large = tmp_path / 'x.json'
  large.write_text('[' + '0,' * 10**6 + '0]')
  with pytest.raises(errors.Damaged, match='GB of memory, more than is left'):
    files.read_json(large, {})
  monkeypatch.setattr(files, 'LARGEST_TEXT', 100)
  with pytest.raises(errors.Damaged, match=r'x\.json cannot be read'):
    files.read_json(large, {})
