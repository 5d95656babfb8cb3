import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas import spaces

SIZES = {'digits': 81, 'pooling': 36, 'nas_bench_macro': 6561}
NAMES = sorted(SIZES)
MACRO = spaces.get('nas_bench_macro')
POOLING = spaces.get('pooling')

each_space = pytest.mark.parametrize(
  'space', [spaces.get(name) for name in NAMES], ids=NAMES
)


def test_names():
  assert sorted(spaces.NAMES) == NAMES
  assert [spaces.get(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize(
  ('name', 'near'),
  [
    ('NAS-Bench-Macro', 'nas_bench_macro'),
    ('nasbench', 'nas_bench_macro'),
    ('poolin', 'pooling'),
    ('digit', 'digits'),
  ],
)
def test_unknown_space_names_the_nearest_and_all(name, near):
  with pytest.raises(ValueError) as error:
    spaces.get(name)
  assert f'Did you mean {near}?' in str(error.value)
  assert all(known in str(error.value) for known in (repr(name), *NAMES))


@each_space
def test_enumeration_is_complete_valid_and_ordered(space):
  archs_AxE = space.enumerate()
  assert archs_AxE.shape == (SIZES[space.name], space.positions)
  assert archs_AxE.dtype == np.int32
  assert space.size == SIZES[space.name]
  space.validate(archs_AxE)
  assert len(np.unique(archs_AxE, axis=0)) == space.size
  texts = [space.format(arch_E) for arch_E in archs_AxE]
  assert texts == sorted(texts)


@each_space
def test_index_inverts_enumeration_in_any_order(space):
  order = np.random.default_rng(0).permutation(space.size)
  index_A = space.index(space.enumerate()[order])
  assert index_A.dtype == np.int64
  np.testing.assert_array_equal(index_A, order)


@each_space
def test_parse_inverts_format(space):
  archs_AxE = space.enumerate()
  parsed = [space.parse(space.format(arch_E)) for arch_E in archs_AxE]
  np.testing.assert_array_equal(parsed, archs_AxE)
  assert parsed[0].dtype == np.int32


@each_space
def test_random_is_uniform_and_follows_its_generator(space):
  draws = 200 * space.size if space.size < 100 else 60_000
  archs_AxE = space.random(np.random.default_rng(7), draws)
  assert archs_AxE.dtype == np.int32
  again_AxE = space.random(np.random.default_rng(7), draws)
  np.testing.assert_array_equal(archs_AxE, again_AxE)
  counts_A = np.bincount(space.index(archs_AxE), minlength=space.size)
  mean = draws / space.size
  chi2 = ((counts_A - mean) ** 2 / mean).sum()
  # Mean size - 1, variance twice that; five standard deviations.
  assert abs(chi2 - space.size + 1) < 5 * np.sqrt(2 * space.size)


@pytest.mark.parametrize(
  ('name', 'text', 'says'),
  [
    (
      'nas_bench_macro',
      '0102',
      "'0102' has 4 digits; nas_bench_macro has 8 positions, each 0, 1 or 2.",
    ),
    ('nas_bench_macro', '', "'' has 0 digits; nas_bench_macro has 8"),
    ('nas_bench_macro', '01021023', 'op 3 at position 7'),
    ('digits', '012a', "'012a' is not all digits; digits has 4 positions"),
    ('digits', '01²0', 'is not all digits'),
    ('digits', '٠١٢٠', 'is not all digits'),
    ('digits', ' 012', 'is not all digits'),
    ('digits', '9' * 5000, 'has 5000 digits'),
    ('pooling', '4', "'4' is not two blocks such as 4,7; pooling has blocks 1"),
    ('pooling', '4,7,8', 'is not two blocks'),
    ('pooling', '0,7', 'is not two blocks'),
    ('pooling', '4,10', 'is not two blocks'),
    ('pooling', '4, 7', 'is not two blocks'),
    ('pooling', '²,7', 'is not two blocks'),
    ('pooling', '4,' + '9' * 5000, 'is not two blocks'),
    ('pooling', '7,4', 'the first pool must stand before the second'),
    ('pooling', '4,4', 'the first pool must stand before the second'),
  ],
)
def test_parse_says_what_is_wrong(name, text, says):
  with pytest.raises(ValueError) as error:
    spaces.get(name).parse(text)
  assert says in str(error.value)


@each_space
@settings(deadline=None, max_examples=150, database=None, derandomize=True)
@given(
  text=st.one_of(
    st.text(max_size=12),
    st.text('0123²٣,- ', max_size=9),
    st.builds('{},{}'.format, st.integers(), st.integers()),
  )
)
def test_parse_takes_exactly_what_format_gives(space, text):
  try:
    arch_E = space.parse(text)
  except ValueError as error:
    assert repr(text) in str(error) or ' at position ' in str(error)
  else:
    space.validate(arch_E[None])
    assert space.format(arch_E) == text


def _replaced(position, op):
  archs_AxE = MACRO.enumerate()[:5].copy()
  archs_AxE[3, position] = op
  return archs_AxE


@pytest.mark.parametrize(
  ('archs_AxE', 'says'),
  [
    (np.zeros((2, 8)), 'archs of dtype float64; nas_bench_macro needs int'),
    (np.zeros((2, 8), bool), 'archs of dtype bool'),
    (np.zeros((2, 7), int), 'archs of shape (2, 7); nas_bench_macro needs (A'),
    (np.zeros(8, int), 'archs of shape (8,)'),
    (
      _replaced(6, 3),
      'op 3 at position 6 of arch 3; nas_bench_macro allows 0 to 2 there: '
      'identity, mb3_k3, mb6_k5.',
    ),
    (_replaced(0, -1), 'op -1 at position 0 of arch 3'),
  ],
)
def test_invalid_archs(archs_AxE, says):
  with pytest.raises(ValueError) as error:
    MACRO.validate(archs_AxE)
  assert says in str(error.value)


@each_space
@pytest.mark.parametrize('method', ['index', 'costs', 'baselines'])
def test_every_question_validates(space, method):
  archs_AxE = space.enumerate()[:5].copy()
  archs_AxE[3, 2] = 3
  with pytest.raises(ValueError, match='op 3 at position 2 of arch 3'):
    getattr(space, method)(archs_AxE)


@pytest.mark.parametrize('pools', [0, 1, 3, 9])
def test_pooling_has_exactly_two_pools(pools):
  archs_AxE = POOLING.enumerate()[:2].copy()
  archs_AxE[1] = np.arange(9) < pools
  with pytest.raises(ValueError, match=f'arch 1 has {pools} pools; pooling'):
    POOLING.validate(archs_AxE)


@each_space
def test_canonical_keeps_costs_and_is_idempotent(space):
  archs_AxE = space.enumerate()
  canonical_AxE = space.canonical(archs_AxE)
  space.validate(canonical_AxE)
  np.testing.assert_array_equal(space.canonical(canonical_AxE), canonical_AxE)
  np.testing.assert_array_equal(space.enumerate(), archs_AxE)
  for mine, other in zip(
    space.costs(archs_AxE), space.costs(canonical_AxE), strict=True
  ):
    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
  ('name', 'distinct'),
  # Per stage 3 first ops times the strings over {1, 2} of at most n - 1:
  # 3 * (1 + 2) for two positions, 3 * (1 + 2 + 4) for three.
  [('nas_bench_macro', 9 * 21 * 21), ('digits', 9 * 9), ('pooling', 36)],
)
def test_canonical_forms(name, distinct):
  space = spaces.get(name)
  forms_AxE = np.unique(space.canonical(space.enumerate()), axis=0)
  assert len(forms_AxE) == distinct


@pytest.mark.parametrize(
  ('text', 'canonical'),
  [
    ('22212202', '22212220'),
    ('00101002', '00110020'),
    ('01002012', '01020012'),
    ('20012001', '20012010'),
  ],
)
def test_canonical_of_known_archs(text, canonical):
  assert MACRO.format(MACRO.canonical(MACRO.parse(text)[None])[0]) == canonical


def test_canonical_moves_identities_to_the_end_of_their_stage():
  def by_hand(text):
    return ''.join(
      stage[0] + stage[1:].replace('0', '') + '0' * stage[1:].count('0')
      for stage in (text[:2], text[2:5], text[5:])
    )

  archs_AxE = MACRO.enumerate()
  for arch_E, form_E in zip(archs_AxE, MACRO.canonical(archs_AxE), strict=True):
    assert MACRO.format(form_E) == by_hand(MACRO.format(arch_E))


def test_equivalent_strings_share_their_accuracy(benchmark):
  archs_AxE = MACRO.enumerate()
  for arch_E, form_E in zip(archs_AxE, MACRO.canonical(archs_AxE), strict=True):
    arch, form = MACRO.format(arch_E), MACRO.format(form_E)
    assert benchmark[arch]['test_acc'] == benchmark[form]['test_acc']


def test_layers():
  assert [tuple(layer) for layer in MACRO.layers] == [
    (32, 64, 2),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 256, 1),
  ]
