"""Limits against enumeration, also on spaces that count as too large for it."""

import dataclasses

import numpy as np
import pytest

from jaxnas import spaces
from jaxnas.searchers import draws as drawing
from jaxnas.searchers.draws import distinct_draws, draws, listed
from jaxnas.searchers.limits import (
  Limits,
  by_position,
  cheapest,
  check,
  costs,
  extremes,
  feasible,
  idle,
)
from jaxnas.spaces import Costs, Space
from jaxnas.spaces.chain import Block, Stage, chain

# Parameters against multiply-adds: squeezing costs the former, large kernels
# the latter.
TRADE = chain(
  'trade',
  image_shape=(16, 16, 3),
  classes=4,
  stem=16,
  stages=(Stage(1, 16), Stage(1, 24), Stage(1, 24), Stage(1, 32)),
  blocks=(Block(3, 3, True), Block(3, 5), Block(3, 7, True)),
  head=8,
  identity_everywhere=False,
)


@dataclasses.dataclass(frozen=True)
class Toy(Space):
  """Ops of a few random costs, so that sums tie."""

  seed: int

  def costs(self, archs_AxE):
    table_ExOx2 = RNG(self.seed).integers(0, 6, (self.positions, 4, 2))
    chosen_AxEx2 = table_ExOx2[np.arange(self.positions), archs_AxE]
    return Costs(*chosen_AxEx2.sum(axis=1).T)


RNG = np.random.default_rng
TOYS = [
  Toy(f'toy {seed}', (('a', 'b', 'c', 'd'),) * 3, (8, 8, 1), 2, seed)
  for seed in range(4)
]
ENUMERABLE = [space for space in spaces.SPACES.values() if space.enumerable]
PRODUCTS = [
  space for space in spaces.SPACES.values() if space.name != 'pooling'
]
SMALL_PRODUCTS = [
  TRADE,
  *TOYS,
  *(spaces.get(name) for name in ('digits', 'nas_bench_macro')),
]
DIGITS, POOLING = spaces.get('digits'), spaces.get('pooling')
MOBILENET = spaces.get('mobilenet')


def name_of(value):
  return value.name if isinstance(value, Space) else None


def tight(space, share, *, kinds='pm'):
  """Limits at a quantile of each cost."""
  archs_AxE = space.enumerate()
  params, macs = np.quantile(
    costs(space, archs_AxE), share, axis=0, method='lower'
  ).tolist()
  return Limits(
    params if 'p' in kinds else None, macs if 'm' in kinds else None
  )


@pytest.mark.parametrize('space', ENUMERABLE, ids=name_of)
@pytest.mark.parametrize('kinds', ['p', 'm', 'pm'])
def test_feasible_equals_the_loop_and_takes_a_cost_on_its_limit(space, kinds):
  limits = tight(space, 0.4, kinds=kinds)
  archs_AxE = space.enumerate()
  params_A, macs_A = space.costs(archs_AxE)
  most_params, most_macs = limits.max_params, limits.max_macs
  expected = [
    (most_params is None or p <= most_params)
    and (most_macs is None or m <= most_macs)
    for p, m in zip(params_A.tolist(), macs_A.tolist(), strict=True)
  ]
  assert feasible(space, limits, archs_AxE).tolist() == expected
  # The quantile is a cost that occurs.
  for most_of_kind, cost_A in ((most_params, params_A), (most_macs, macs_A)):
    assert most_of_kind is None or most_of_kind in cost_A
  np.testing.assert_array_equal(listed(space, limits), archs_AxE[expected])


def test_without_limits_costs_are_not_asked_for():
  space = Space('costless', (('a', 'b'),), (8, 8, 1), 2)
  assert feasible(space, Limits(), space.enumerate()).all()
  check(space, Limits())
  assert draws(space, Limits())(RNG(0), 5).shape == (5, 1)


@pytest.mark.parametrize('space', PRODUCTS, ids=name_of)
def test_costs_are_sums_over_positions(space):
  archs_AxE = space.random(RNG(0), 200)
  tables = by_position(space)
  summed_Ax2 = sum(
    table_Ox2[archs_AxE[:, e]] for e, table_Ox2 in enumerate(tables)
  )
  np.testing.assert_array_equal(summed_Ax2, costs(space, archs_AxE))


def cheapest_by_loops(space):
  pairs = set(map(tuple, costs(space, space.enumerate()).tolist()))
  lowest, out = np.inf, []
  for params, macs in sorted(pairs):
    if macs < lowest:
      out.append([params, macs])
      lowest = macs
  return out


@pytest.mark.parametrize('space', [*ENUMERABLE, TRADE, *TOYS], ids=name_of)
def test_cheapest_equals_the_loop(space):
  expected = cheapest_by_loops(space)
  # Of the spaces that there are, one architecture is the cheapest in both.
  assert space in TOYS or (len(expected) > 1) == (space == TRADE)
  assert cheapest(space).tolist() == expected


@pytest.mark.parametrize('space', SMALL_PRODUCTS, ids=name_of)
def test_what_is_attainable_needs_no_list(space, monkeypatch):
  expected = cheapest_by_loops(space)
  dearest_2 = costs(space, space.enumerate()).max(axis=0)
  np.testing.assert_array_equal(extremes(space)[1], dearest_2)
  monkeypatch.setattr(spaces.base, 'LARGEST_ENUMERATION', 10)
  assert not space.enumerable
  assert cheapest(space).tolist() == expected
  np.testing.assert_array_equal(extremes(space)[1], dearest_2)


@pytest.mark.parametrize(
  'space', [*spaces.SPACES.values(), TRADE, *TOYS], ids=name_of
)
def test_the_least_of_each_cost_is_the_last_limit_that_passes(space):
  params, macs = cheapest(space).min(axis=0).tolist()
  check(space, Limits(params, None))
  check(space, Limits(None, macs))
  for limits, unit in (
    (Limits(params - 1, None), f'{params - 1:,} parameters: they have'),
    (Limits(10**12, macs - 1), f'{macs - 1:,} multiply-adds: they have'),
  ):
    with pytest.raises(ValueError, match=unit) as error:
      draws(space, limits)
    assert '\n' not in str(error.value)


def test_both_at_once_names_the_nearest_of_each():
  (few_params, its_macs), *_, (its_params, few_macs) = cheapest(TRADE).tolist()
  check(TRADE, Limits(few_params, its_macs))
  check(TRADE, Limits(its_params, few_macs))
  with pytest.raises(ValueError) as error:
    check(TRADE, Limits(few_params, few_macs))
  assert str(error.value) == (
    f'no architecture of trade has at most {few_params:,} parameters and '
    f'{few_macs:,} multiply-adds at once: raise the former to {its_params:,} '
    f'or the latter to {its_macs:,}.'
  )


@pytest.mark.parametrize('cells', [2**16, 2**6])
@pytest.mark.parametrize('kinds', ['p', 'm', 'pm'])
@pytest.mark.parametrize('space', [DIGITS, TRADE, TOYS[0]], ids=name_of)
def test_unlisted_draws_are_uniform(space, kinds, cells, monkeypatch):
  limits = tight(space, 0.5, kinds=kinds)
  archs_AxE, count = space.enumerate(), 20_000
  allowed_A = feasible(space, limits, archs_AxE)
  monkeypatch.setattr(spaces.base, 'LARGEST_ENUMERATION', 10)
  monkeypatch.setattr(drawing, 'CELLS', cells)
  drawn_NxE = draws(space, limits)(RNG(1), count)
  assert drawn_NxE.dtype == np.int32
  row_N = np.ravel_multi_index(tuple(drawn_NxE.T), space.counts)
  share_A = np.bincount(row_N, minlength=len(archs_AxE)) / count
  p_A = allowed_A / allowed_A.sum()
  # Five standard errors, which are none for what is above a limit.
  assert (abs(share_A - p_A) <= 5 * np.sqrt(p_A / count)).all()


def test_coarse_steps_propose_too_much_which_is_drawn_again(monkeypatch):
  limits = tight(DIGITS, 0.5)
  monkeypatch.setattr(drawing, 'CELLS', 2**6)
  proposed_NxE = drawing._within_rounded(DIGITS, limits)(RNG(0), 500)
  accepted_N = feasible(DIGITS, limits, proposed_NxE)
  assert 0 < accepted_N.sum() < 500


@pytest.mark.parametrize(
  'limits',
  [
    Limits(None, 330_000_000),
    Limits(4_000_000, 300_000_000),
    # An architecture has no more than both; all but one have more.
    Limits(1_789_048, 50_878_976),
  ],
)
def test_tight_limits_on_the_largest_space(limits):
  archs_NxE = draws(MOBILENET, limits)(RNG(0), 200)
  MOBILENET.validate(archs_NxE)
  assert archs_NxE.shape == (200, 21)
  assert feasible(MOBILENET, limits, archs_NxE).all()
  different = len(np.unique(archs_NxE, axis=0))
  assert different == (1 if limits.max_params == 1_789_048 else 200)
  few = distinct_draws(MOBILENET, limits)(RNG(0), 30, archs_NxE[:0])
  assert len(few) == len(np.unique(few, axis=0)) == min(different, 30)


def test_large_draws_agree_with_rejection():
  limits = Limits(None, 400_000_000)
  all_NxE = MOBILENET.random(RNG(0), 40_000)
  rejected_NxE = all_NxE[feasible(MOBILENET, limits, all_NxE)]
  drawn_NxE = draws(MOBILENET, limits)(RNG(1), len(rejected_NxE))

  def shares(archs_NxE):
    return np.stack([(archs_NxE == op).mean(axis=0) for op in range(13)])

  share_OxE, other_OxE = shares(rejected_NxE), shares(drawn_NxE)
  error_OxE = np.sqrt((share_OxE + other_OxE) / len(drawn_NxE))
  assert (abs(share_OxE - other_OxE) < 5 * error_OxE).all()
  # The identity is far more often among the cheap.
  assert share_OxE[0].mean() > 1.5 / 13


@pytest.mark.parametrize('space', [DIGITS, POOLING], ids=name_of)
def test_distinct_draws_leave_out_the_known_and_end(space):
  limits = tight(space, 0.6)
  allowed_AxE = listed(space, limits)
  known_VxE = allowed_AxE[::3]
  draw = distinct_draws(space, limits)
  few_NxE = draw(RNG(0), 4, known_VxE)
  rest_NxE = draw(RNG(0), 1000, np.concatenate([known_VxE, few_NxE]))
  everything = np.concatenate([known_VxE, few_NxE, rest_NxE])
  assert len(few_NxE) == 4
  assert sorted(space.index(everything)) == sorted(space.index(allowed_AxE))
  assert draw(RNG(0), 5, everything).shape == (0, space.positions)
  assert draw(RNG(0), 0, known_VxE).shape == (0, space.positions)


def test_distinct_draws_are_uniform_among_the_rest():
  draw, known_VxE = distinct_draws(DIGITS, Limits()), DIGITS.enumerate()[:71]
  row_N = np.concatenate(
    [DIGITS.index(draw(RNG(seed), 3, known_VxE)) for seed in range(600)]
  )
  count_A = np.bincount(row_N, minlength=81)
  assert not count_A[:71].any()
  # 600 draws with probability 3/10 each, and five standard deviations.
  assert (abs(count_A[71:] - 180) < 5 * np.sqrt(600 * 0.3 * 0.7)).all()


def test_distinct_asks_ten_times_at_most():
  asked = []

  def make(count):
    asked.append(count)
    return np.array([[len(asked) % 3]], np.int32)

  found_NxE = drawing.distinct(make, 4, np.array([[2]], np.int32))
  assert asked == [4] * 10
  assert found_NxE.tolist() == [[1], [0]]
  asked.clear()
  assert drawing.distinct(make, 1, found_NxE[:0]).tolist() == [[1]]
  assert asked == [1]


def test_too_large_to_list_names_the_way_out():
  with pytest.raises(ValueError, match=r'2\.5e\+23 architectures: use evol'):
    listed(MOBILENET, Limits())


def test_limits_are_data():
  limits = Limits(max_params=5)
  assert limits.any and not Limits().any
  assert dataclasses.asdict(limits) == {
    'max_params': 5, 'max_macs': None, 'max_cost': None, 'table': None,
  }  # fmt: skip


@pytest.mark.parametrize('space', [TRADE, *ENUMERABLE], ids=lambda s: s.name)
def test_a_limit_that_excludes_nothing_says_so(space):
  params, macs = map(int, extremes(space)[1])
  assert idle(space, Limits()) == []
  assert idle(space, Limits(params - 1, macs - 1)) == []
  (of_params,) = idle(space, Limits(params, macs - 1))
  assert of_params.startswith('--max_params') and f'{params:,}' in of_params
  (of_macs,) = idle(space, Limits(None, macs))
  assert of_macs.startswith('--max_macs') and f'{macs:,}' in of_macs
