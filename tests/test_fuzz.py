"""Readers on anything: they take it or refuse it in a line, and never fail.

More examples with `pytest -m slow`.
"""

import contextlib
import dataclasses
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxnas import config, density, prepare, searchers, spaces, train, truth
from jaxnas.config import Config, run_folder, types, validation
from jaxnas.config.flags import parse as parse_flags
from jaxnas.runtime import files, strict_json

DIGITS = spaces.get('digits')


def fuzzed(few, many):
  """Runs a test on a few examples by default, and on many when asked to."""

  def decorate(test):
    return pytest.mark.parametrize(
      'examples',
      [few, pytest.param(many, marks=pytest.mark.slow)],
      ids=['few', 'many'],
    )(test)

  return decorate


def check(property_, examples):
  """Holds a property of generated values, the same ones every time."""
  settings(
    max_examples=examples,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
  )(property_)()


def refusal(call, *args):
  """Returns the message of a refusal; None where the call succeeds."""
  try:
    call(*args)
  except (ValueError, FileNotFoundError) as error:
    return str(error)
  return None


SCALARS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.integers(-(10**30), 10**30),
  st.floats(),
  st.text(max_size=6),
  st.sampled_from(['digits', 'pooling', 'None', '../x', '0120', '4,7']),
)
VALUES = st.recursive(
  SCALARS,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.text(max_size=6), inner, max_size=3),
  ),
  max_leaves=8,
)

# What the texts of a space are made of.
ALPHABETS = {
  'digits': '0123²٣ -',
  'nas_bench_macro': '0123²٣ -',
  'pooling': '0123456789,²٣ -',
  'nas_bench_201': None,
  'mobilenet': None,
  'mobilenet_strict': None,
}
WORDS = ('|', '+', '~', '0', '1', '2', 'none', 'skip_connect', 'nor_conv_3x3',
         ',', 'ID', 'MB3_K3', 'MB6_K7_SE', 'MB9', ' ', '٣')  # fmt: skip


@pytest.mark.parametrize('name', spaces.SPACES)
@fuzzed(60, 3000)
def test_an_arch_is_what_is_written_so(name, examples):
  space = spaces.get(name)
  alphabet = ALPHABETS[name]
  texts = (
    st.lists(st.sampled_from(WORDS), max_size=40).map(''.join)
    if alphabet is None
    else st.text(alphabet, max_size=10)
  )
  archs = st.integers(0, 2**32 - 1).map(
    lambda seed: space.random(np.random.default_rng(seed), 1)[0]
  )
  written = archs.map(space.format)
  # And such as are written, but for a character.
  near = st.tuples(written, st.integers(0, 200), st.text(max_size=1)).map(
    lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
  )

  @given(st.one_of(texts, st.text(max_size=30), written, near))
  def parse(text):
    said = refusal(space.parse, text)
    if said is None:
      arch_E = space.parse(text)
      space.validate(arch_E[None])
      assert space.format(arch_E) == text
    else:
      assert ('\n' not in said and name in said) or ' at position ' in said

  @given(archs)
  def back(arch_E):
    np.testing.assert_array_equal(space.parse(space.format(arch_E)), arch_E)

  check(parse, examples)
  check(back, examples // 3)


def changed(values):
  """Draws (field, value): a field becomes anything, or a new one appears."""
  fields = [*config.flatten(Config()), 'data', 'colour', 'data.colour']
  return st.tuples(st.sampled_from(fields), values)


def with_field(name, value):
  out = dataclasses.asdict(Config())
  section, _, field = name.rpartition('.')
  (out[section] if section else out)[field] = value
  return out


@fuzzed(150, 5000)
def test_config_json_is_a_config_or_refused(tmp_path, examples):
  file = tmp_path / 'config.json'

  @given(changed(VALUES))
  @example(('data', {}))
  @example(('modules', '0'))
  def one_field(change):
    file.write_text(json.dumps(with_field(*change)))
    said = refusal(run_folder.read_config, tmp_path)
    if said is not None:
      assert str(file) in said and '\n' not in said
      return
    found = run_folder.read_config(tmp_path)
    types.check(found)
    assert config.from_json(config.to_json(found)) == found
    refusal(validation.validate, found)

  @given(st.one_of(st.binary(max_size=40), VALUES.map(json.dumps)))
  def anything(content):
    given = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(given)
    said = refusal(run_folder.read_config, tmp_path)
    assert said is None or str(file) in said

  check(one_field, examples)
  check(anything, examples)


@fuzzed(150, 5000)
def test_json_holds_what_was_written(examples):
  finite = st.recursive(
    st.one_of(
      st.none(), st.booleans(), st.text(max_size=5),
      st.integers(-(10**9), 10**9),
      st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
      st.lists(inner, max_size=3),
      st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
  )  # fmt: skip

  @given(finite)
  def same(value):
    text = json.dumps(value)
    assert strict_json.loads(text) == value
    # As some editors write it.
    assert strict_json.loads(text.encode('utf-8-sig')) == value

  @given(st.one_of(st.text(max_size=30), st.binary(max_size=30)))
  def refused(content):
    refusal(strict_json.loads, content)

  check(same, examples)
  check(refused, examples)


@fuzzed(25, 400)
def test_flags_are_a_config_or_exit_code_2(tmp_path, examples):
  flags = [f'--{name}' for name in config.flatten(Config())]
  words = st.one_of(
    st.sampled_from([*flags, '--run', '--table', '--workdir', '--resume']),
    # Neither may ask for help, which is no refusal.
    st.text(max_size=6).filter(lambda text: not text.startswith('-')),
    st.sampled_from(['0', '-1', '1e999', 'nan', '²', 'None', '--nope', '=']),
  )

  @given(st.lists(words, max_size=4))
  def accepted(argv):
    argv = ['--config', 'quickstart.py', *argv]
    err = io.StringIO()
    try:
      with contextlib.redirect_stderr(err):
        given = parse_flags(train.Train, argv).experiment
    except SystemExit as ended:
      assert ended.code == 2
      said = err.getvalue()
      assert said.startswith('error: ') and said.count('\n') == 1, said
    else:
      validation.validate(given)
      assert config.from_json(config.to_json(given)) == given

  check(accepted, examples)


@fuzzed(200, 5000)
def test_limits_are_numbers_or_refused(examples):
  digits = st.text('0123456789.e-+kKMG_ ٣²', max_size=8)

  @given(st.one_of(digits, st.text(max_size=8)))
  @example('1e99G')
  @example('.')
  def limits(text):
    said = refusal(types.count, '--max_macs', text)
    if said is None:
      number = types.count('--max_macs', text)
      assert isinstance(number, int) and number >= 0
      assert text.isascii() and '_' not in text
    else:
      assert repr(text) in said and '330M' in said

  @given(st.integers(0, 10**12), st.sampled_from(['', 'k', 'M', 'G']))
  def exact(number, unit):
    found = types.count('--max_macs', f'{number}{unit}')
    expected = number * {'': 1, 'k': 10**3, 'M': 10**6, 'G': 10**9}[unit]
    # Through a float.
    assert abs(found - expected) <= expected * 1e-15

  check(limits, examples)
  check(exact, examples // 4)


def damaged(content):
  """Files that were one, but for some bytes."""
  places = st.lists(
    st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)),
    max_size=4,
  )

  def damage(cut, edits):
    out = bytearray(content)
    for place, value in edits:
      out[place] = value
    return bytes(out[:cut])

  return st.builds(damage, st.integers(0, len(content)), places)


def npz(**arrays):
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  return stream.getvalue()


def header(text):
  """An npz of one array whose header is any text."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as zipped:
    head = text.encode('latin1', 'replace')
    zipped.writestr(
      'accuracy_V.npy',
      b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head,
    )
  return stream.getvalue()


STATE = npz(
  archs_VxE=DIGITS.enumerate()[:2],
  accuracy_V=np.array([0.5, 0.25]),
  generation_V=np.array([0, 0]),
  generation=np.array(1),
)
DENSITY = npz(archs_AxE=DIGITS.enumerate()[:3], alpha_A=np.ones(3))
READERS = {
  'npz': (STATE, files.read_npz),
  'state': (STATE, lambda file: searchers.load_state(file, DIGITS)),
  'density': (DENSITY, density.read_file),
  'table': (npz(ops=np.zeros((2, 6), np.int8)),
            lambda file: truth.load(spaces.get('nas_bench_201'), file)),
}  # fmt: skip


@pytest.mark.parametrize('reader', READERS)
@fuzzed(60, 3000)
def test_damaged_npz_are_refused_in_a_line(reader, tmp_path, examples):
  content, read = READERS[reader]
  file = tmp_path / 'x.npz'

  @given(
    st.one_of(
      damaged(content),
      st.binary(max_size=60),
      st.text(max_size=60).map(header),
    )
  )
  @example(header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n"))
  @example(
    header(
      "{'descr': '<f8', 'fortran_order': False, 'shape': (9"
      + '9' * 15
      + ',)}\n'
    )
  )
  @example(header('x' * 60_000))
  def any_bytes(data):
    file.write_bytes(data)
    said = refusal(read, file)
    assert said is None or (str(file) in said and '\n' not in said)

  check(any_bytes, examples)


SPARE = DIGITS.enumerate()
OWN = {
  'space': 'digits',
  'data': 'digits',
  'accuracy': {DIGITS.format(a): [0.5, 0.25] for a in SPARE},
}
MACRO = {
  DIGITS.format(a): {'test_acc': [90.0, 92.0], 'mean_acc': 91.0} for a in SPARE
}


@fuzzed(60, 2000)
def test_tables_are_whole_or_refused(tmp_path, examples):
  file = tmp_path / 't.json'

  @given(
    st.sampled_from([OWN, MACRO]),
    st.sampled_from(['space', 'data', 'accuracy', '0120', 'x']),
    VALUES,
    st.booleans(),
  )
  def any_entry(content, key, value, inside):
    content = json.loads(json.dumps(content))
    place = content.get('accuracy', content) if inside else content
    place[key] = value
    file.write_text(json.dumps(content))
    said = refusal(truth.load, DIGITS, file, 'digits')
    if said is None:
      found = truth.load(DIGITS, file, 'digits')
      assert found.accuracy_A.shape == (81,)
      assert ((found.accuracy_A >= 0) & (found.accuracy_A <= 1)).all()
    else:
      assert str(file) in said and '\n' not in said

  check(any_entry, examples)


@fuzzed(60, 2000)
def test_flags_of_prepare_are_refused_in_a_line(tmp_path, examples):
  @given(
    st.sampled_from(['--url', '--sha256', '--from', '--dirr', 'x']),
    st.text(max_size=10).filter(lambda text: '\0' not in text),
  )
  def parse(flag, value):
    if flag == '--url' and value.startswith(('file:', 'http')):
      return
    err = io.StringIO()
    with (
      pytest.raises(SystemExit) as ended,
      contextlib.redirect_stderr(err),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      prepare.main(['cifar10', '--dir', str(tmp_path / 'D'), f'{flag}={value}'])
    assert ended.value.code == 2
    assert err.getvalue().startswith('error: ')
    assert err.getvalue().count('\n') == 1
    assert not [*tmp_path.iterdir()]

  check(parse, examples)
