"""Takes made-up steps of two members, some together and some alone.

`python -m support.group_runs FILE` saves the members' numbers after every one.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.training import together
from jaxnas.training.step import Metrics, Numbers, TrainState, WithNumbers

# Number of steps, and the members that take them.
TURNS = (
  (1, (0, 1)), (1, (0,)), (5, (1,)), (1, (1,)), (5, (0, 1)), (1, (0,)),
  (1, (0, 1)),
)  # fmt: skip
# A member whose state is changed before this turn.
CHANGED = 4


def program(count):
  def steps(state, inputs, numbers):
    shared, own = inputs
    params = 2 * state.params + shared + own + numbers.stream
    metrics = Metrics(
      params.sum(), *[jnp.float32(count)] * 3, jnp.zeros((1, 3))
    )
    return state.replace(step=state.step + count, params=params), metrics

  return steps


def member(number):
  nothing = [()] * 6
  numbers = Numbers(jnp.float32(number), optimizer=(), aim=(), ema_decay=0.5)
  return (
    TrainState(jnp.int32(0), jnp.arange(3.0) + number, *nothing),
    WithNumbers(program, program, numbers),
  )


if __name__ == '__main__':
  states, steps = map(list, zip(*map(member, range(2)), strict=True))
  group = together.Group(steps[0], 2)
  for place, state in zip(group.places, states, strict=True):
    place.put(state)
  shared, got, expected = jnp.ones(3), [], []
  for turn, (count, members) in enumerate(TURNS):
    if turn == CHANGED:
      states[1] = states[1].replace(params=jnp.full(3, 7.0))
      group.places[1].put(states[1])
    inputs = {n: (shared, jnp.float32(10 * turn + n)) for n in members}
    reads = group.run({n: (steps[n], inputs[n]) for n in members}, count)
    for n in members:
      states[n], metrics = program(count)(
        states[n], inputs[n], steps[n].numbers
      )
      got.append([float(reads[n]().loss)] * 4)
      expected.append([float(metrics.loss)] * 4)
    held = [place.get() for place in group.places]
    for rows, from_where in ((got, held), (expected, states)):
      rows += [[float(one.step), *one.params] for one in from_where]
  np.savez(
    sys.argv[1],
    devices=jax.device_count(),
    got=np.array(got, np.float32),
    expected=np.array(expected, np.float32),
  )
