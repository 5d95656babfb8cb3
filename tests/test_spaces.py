import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas import spaces

SIZES = {
  'digits': 81,
  'pooling': 36,
  'nas_bench_macro': 6561,
  'nas_bench_201': 15_625,
}
NAMES = sorted(SIZES)
# Too large to list.
LARGE = {'mobilenet': 13**21, 'mobilenet_strict': 12**6 * 13**15}
CELLS = spaces.get('nas_bench_201')
MOBILENET = spaces.get('mobilenet')
STRICT = spaces.get('mobilenet_strict')
MACRO = spaces.get('nas_bench_macro')
POOLING = spaces.get('pooling')

each_space = pytest.mark.parametrize(
  'space', [spaces.get(name) for name in NAMES], ids=NAMES
)


def test_names():
  assert sorted(spaces.SPACES) == sorted([*NAMES, *LARGE])
  assert [spaces.get(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize(
  ('name', 'near'),
  [
    ('NAS-Bench-Macro', 'nas_bench_macro'),
    ('nasbench201', 'nas_bench_201'),
    ('mobilnet', 'mobilenet'),
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
  assert len(set(texts)) == space.size
  if space != CELLS:
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
    ('nas_bench_201', '|none~0|', 'has 1 op; nas_bench_201 has 6, such as'),
    (
      'nas_bench_201',
      '|none~0|+|none~0|none~1|+|none~0|conv~1|none~2|',
      "op 'conv' at position 4; nas_bench_201 allows none, skip_connect, "
      'nor_conv_1x1, nor_conv_3x3, avg_pool_3x3 there.',
    ),
    (
      'nas_bench_201',
      '|none~0|+|none~1|none~1|+|none~0|none~1|none~2|',
      "node '1' at position 1 of",
    ),
    (
      'nas_bench_201',
      'none~0+|none~0|none~1|+|none~0|none~1|none~2|',
      'is not written as nas_bench_201 has it: |none~0|+|',
    ),
    (
      'mobilenet',
      'ID,ID',
      "'ID,ID' has 2 ops; mobilenet has 21 positions, with commas between",
    ),
    (
      'mobilenet',
      ','.join(['ID'] * 20 + ['MB9_K3']),
      "op 'MB9_K3' at position 20; mobilenet allows ID, MB3_K3, MB3_K5, ",
    ),
    (
      'mobilenet_strict',
      ','.join(['MB3_K3'] * 4 + ['ID'] * 17),
      "op 'ID' at position 4; mobilenet_strict allows MB3_K3, MB3_K5, ",
    ),
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
      'ID, MB3_K3, MB6_K5.',
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
  archs_AxE[3, 2] = 9
  with pytest.raises(ValueError, match='op 9 at position 2 of arch 3'):
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
  if space == CELLS:
    return  # It counts parameters of edges that reach nothing.
  for mine, other in zip(
    space.costs(archs_AxE), space.costs(canonical_AxE), strict=True
  ):
    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
  ('name', 'distinct'),
  # Per stage 3 first ops times the strings over {1, 2} of at most n - 1:
  # 3 * (1 + 2) for two positions, 3 * (1 + 2 + 4) for three.
  [
    ('nas_bench_macro', 9 * 21 * 21),
    ('digits', 9 * 9),
    ('pooling', 36),
    # As published.
    ('nas_bench_201', 6466),
  ],
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


@pytest.mark.parametrize('name', LARGE)
def test_a_space_too_large_to_list(name):
  space = spaces.get(name)
  assert space.size == LARGE[name]
  assert not space.enumerable
  archs_AxE = space.random(np.random.default_rng(0), 50)
  space.validate(archs_AxE)
  parsed_AxE = [space.parse(space.format(arch_E)) for arch_E in archs_AxE]
  np.testing.assert_array_equal(parsed_AxE, archs_AxE)
  canonical_AxE = space.canonical(archs_AxE)
  for mine, other in zip(
    space.costs(archs_AxE), space.costs(canonical_AxE), strict=True
  ):
    np.testing.assert_array_equal(mine, other)
  for question in (space.enumerate, lambda: space.index(archs_AxE)):
    with pytest.raises(ValueError, match=f'{name} has .* too many to list'):
      question()


def test_mobilenet_positions():
  shapes = [tuple(layer) for layer in MOBILENET.layers]
  assert shapes[::4] == [
    (16, 32, 2),
    (32, 40, 2),
    (40, 80, 2),
    (80, 96, 1),
    (96, 192, 2),
    (192, 320, 1),
  ]
  assert all((i, s) == (o, 1) for e, (i, o, s) in enumerate(shapes) if e % 4)
  assert MOBILENET.ops[0] == (
    'ID',
    *(
      f'MB{expansion}_K{kernel}{end}'
      for end in ('', '_SE')
      for expansion in (3, 6)
      for kernel in (3, 5, 7)
    ),
  )
  assert [e for e in range(21) if 'ID' not in STRICT.ops[e]] == list(
    range(0, 21, 4)
  )
  arch_E = STRICT.parse(
    ','.join(['MB3_K3', 'ID', 'ID', 'MB3_K3_SE'] * 5 + ['MB6_K7'])
  )
  assert arch_E.tolist() == [0, 0, 0, 7] * 5 + [5]
  assert STRICT.depth(arch_E[None]).tolist() == [11]


def test_cells_that_reach_their_output():
  archs_AxE = CELLS.enumerate()
  connected_A = CELLS.connected(archs_AxE)
  assert connected_A.sum() == 15_284

  def reaches(arch_E):
    """True where a path without `none` joins node 0 and node 3."""
    a, b, c, d, e, f = arch_E != 0
    return d or (a and e) or (b and f) or (a and c and f)

  np.testing.assert_array_equal(
    connected_A, [bool(reaches(arch_E)) for arch_E in archs_AxE]
  )


def test_cells_are_those_of_the_benchmark(data_folder):
  truth = np.load(data_folder / 'nas_bench_201.npz')
  archs_AxE = truth['ops'].astype(np.int32)
  texts = [CELLS.format(arch_E) for arch_E in archs_AxE]
  assert texts == truth['genotype'].tolist()
  np.testing.assert_array_equal(
    np.sort(CELLS.index(archs_AxE)), np.arange(15_625)
  )
  forms_A = CELLS.index(CELLS.canonical(archs_AxE))
  pairs = set(zip(forms_A, truth['isomorph_class'], strict=True))
  assert len(pairs) == len(set(forms_A)) == len(set(truth['isomorph_class']))


def test_spaces_follow_the_images_or_say_why_not():
  assert CELLS.on_images((16, 16, 3), 120).classes == 120
  assert MOBILENET.on_images((64, 64, 3), 10).image_shape == (64, 64, 3)
  for space in (MACRO, spaces.get('digits'), spaces.get('pooling')):
    other = space.on_images((9, 12, 2), 4)
    assert (other.image_shape, other.classes) == ((9, 12, 2), 4)
    assert other.ops == space.ops
  with pytest.raises(ValueError, match='are 3x8: they must be 4x4 at least'):
    spaces.get('pooling').on_images((3, 8, 3), 10)
  own = dataclasses.replace(MACRO, any_images=False)
  assert own.on_images((32, 32, 3), 10) is own
  with pytest.raises(ValueError, match='takes images of 32x32x3; these are 8'):
    own.on_images((8, 8, 3), 10)
  with pytest.raises(ValueError, match='has 10 classes; these images have 11'):
    own.on_images((32, 32, 3), 11)
  with pytest.raises(ValueError, match='sides that 4 divides; these are 30x32'):
    CELLS.on_images((30, 32, 3), 10)


def test_values_of_some_are_looked_up_for_others():
  space = spaces.get('pooling')
  every_AxE = space.enumerate()
  found_A = space.looked_up(
    every_AxE[[5, 2]], np.array([0.5, 0.2]), every_AxE[[2, 3, 5]]
  )
  np.testing.assert_array_equal(found_A, [0.2, np.nan, 0.5])
