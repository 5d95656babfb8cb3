"""Search by walks down a tree, which prefer branches that scored well."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxnas.runtime import suggestions
from jaxnas.samplers.base import Feedback
from jaxnas.samplers.tree import best
from jaxnas.samplers.tree import tree as tree_sampler
from jaxnas.searchers.base import Searcher, State, empty, record
from jaxnas.searchers.draws import keys, listed
from jaxnas.searchers.limits import Limits
from jaxnas.spaces import Space

# Variants of the sampler whose tree needs no accuracies beforehand.
VARIANTS = ('default', 'prioritized')


@dataclasses.dataclass(frozen=True, eq=False)
class _Part(Space):
  """A space that has only some architectures of another."""

  archs_AxE: Int[np.ndarray, 'A E']

  @property
  def size(self) -> int:
    return len(self.archs_AxE)

  def enumerate(self) -> Int[np.ndarray, 'A E']:
    return self.archs_AxE


def tree(
  space: Space,
  limits: Limits,
  *,
  walks: int = 50,
  generations: int = 20,
  variant: str = 'default',
  exploration: float = 1.0,
  temperature: float = 0.7,
  priority: float = 1.0,
) -> Searcher:
  """Walks like the sampler `tree`, with the accuracy at the end as reward.

  The walks of a generation start from the same state; then the tree learns from
  one after the other (inferred), also where the architecture was scored before.
  The search picks the arch at the end of the branches of the highest R, C = 0
  (stated). The tree has only the architectures within the limits (inferred).

  Args:
    space: one that can be listed.
    limits: on every architecture.
    walks: number of walks in a generation.
    generations: number of generations.
    variant: 'default' or 'prioritized'; see the sampler.
    exploration: C.
    temperature: T.
    priority: C2, read by 'prioritized' alone.

  Raises ValueError where the space is too large, an option is out of range or
  no architecture meets the limits.
  """
  suggestions.check('variant', variant, VARIANTS)
  for name, value in (('walks', walks), ('generations', generations)):
    if value < 1:
      raise ValueError(f'{name} is {value}; it must be at least 1.')
  if temperature <= 0:
    raise ValueError(f'temperature is {temperature}; it must be above 0.')
  archs_AxE = listed(space, limits)
  sampler = tree_sampler(
    _Part(space.name, space.ops, space.image_shape, space.classes, archs_AxE),
    paths=walks,
    variant=variant,
    exploration=exploration,
    temperature=temperature,
    priority=priority,
  )
  first = sampler.init()
  structure = jax.tree.structure(first)
  sample = jax.jit(sampler.sample)

  @jax.jit
  def learn(tree_state, archs_NxE, reward_N):
    def one(tree_state, walk):
      arch_E, reward = walk
      return sampler.update(tree_state, Feedback(arch_E, None, reward)), None

    return jax.lax.scan(one, tree_state, (archs_NxE, reward_N))[0]

  def with_tree(state: State, tree_state) -> State:
    return state._replace(
      own=tuple(map(np.asarray, jax.tree.leaves(tree_state)))
    )

  def tree_of(state: State):
    return jax.tree.unflatten(structure, map(jnp.asarray, state.own))

  def propose(state, rng):
    key = jax.random.key(int(rng.integers(2**31)))
    return np.asarray(sample(tree_of(state), key))

  def update(state, archs_NxE, accuracy_N):
    known = set(keys(state.archs_VxE))
    # Walks to the same architecture are recorded once, as the last of them.
    last = {key: n for n, key in enumerate(keys(archs_NxE))}
    new_M = [n for key, n in last.items() if key not in known]
    learnt = learn(
      tree_of(state), archs_NxE, jnp.asarray(accuracy_N, jnp.float32)
    )
    return with_tree(record(state, archs_NxE[new_M], accuracy_N[new_M]), learnt)

  return Searcher(
    init=lambda: with_tree(empty(space), first),
    propose=propose,
    done=lambda state: bool(state.generation >= generations),
    update=update,
    pick=lambda state: archs_AxE[best(tree_of(state))],
  )
