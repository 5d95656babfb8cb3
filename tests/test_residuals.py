"""The switch against `lax.switch`, and what its gradient keeps."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.bench import switch
from jaxnas.nn import residuals, target
from jaxnas.nn.cpu import native
from jaxnas.nn.residuals import keep

ROWS, WIDTHS = 3, (5, 2, 7)


def parameters():
  keys = iter(jax.random.split(jax.random.key(0), 2 * len(WIDTHS)))
  return [
    (
      jax.random.normal(next(keys), (4, width)),
      jax.random.normal(next(keys), (width, 4)),
    )
    for width in WIDTHS
  ]


def block(x, weights, mark=keep):
  """Two products, of which the second depends on all of the first."""
  into, out = weights
  hidden = mark(x @ into)
  scale = mark(jnp.mean(hidden * hidden))
  wide = mark((hidden * scale).astype(jnp.bfloat16)).astype(jnp.float32)
  return jnp.sin(mark(jnp.tanh(wide) @ out))


def branches(mark=keep):
  return [
    *(
      lambda x, params, i=i: block(x, params[i], mark)
      for i in range(len(WIDTHS))
    ),
    lambda x, params: x,
  ]


def loss(switch, mark=keep):
  def of(index, x, params):
    y = switch(index, branches(mark), x, params)
    return jnp.sum(y * jnp.arange(y.size).reshape(y.shape))

  return of


x_Rx4 = jax.random.normal(jax.random.key(1), (ROWS, 4))


@functools.cache
def program(switch, poisoned, mark=keep):
  """Value and gradients, compiled once; `poisoned` where unread is NaN."""
  del poisoned
  return jax.jit(jax.value_and_grad(loss(switch, mark), argnums=(1, 2)))


@pytest.mark.usefixtures('unread_is_nan')
@pytest.mark.parametrize('index', [-1, 0, 1, 2, 3, 9])
def test_values_and_gradients_are_those_of_lax(index):
  """In one program, clamped as there."""
  found, wanted = (
    program(switch, True)(jnp.int32(index), x_Rx4, parameters())
    for switch in (residuals.switch, lax.switch)
  )
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())


def products(switch, mark=keep):
  jitted = program(switch, False, mark)
  compiled = jitted.lower(jnp.int32(0), x_Rx4, parameters()).compile()
  return len(re.findall(r' dot\(', compiled.as_text()))


def test_what_is_kept_is_not_computed_again():
  """Two products forward and four backward; unmarked the two once more."""
  blocks = len(WIDTHS)
  assert products(residuals.switch) == 6 * blocks
  assert products(residuals.switch, lambda x: x) == 8 * blocks


def test_a_tpu_keeps_nothing_and_computes_everything_again():
  def kept(backend):
    with target.formulated_for(backend):
      return jax.eval_shape(
        lambda x, params: jax.vjp(
          lambda x, params: residuals.switch(
            jnp.int32(0), branches(lambda x: keep(x)), x, params
          ),
          x,
          params,
        )[1],
        x_Rx4,
        parameters(),
      )

  operands = len(jax.tree.leaves((0, x_Rx4, parameters())))
  assert len(jax.tree.leaves(kept('gpu'))) > operands
  assert len(jax.tree.leaves(kept('tpu'))) == operands


def unpadded(x):
  return keep(x, padded=False)


@pytest.mark.parametrize('index', range(len(WIDTHS)))
def test_what_does_not_fill_a_slot_can_be_computed_again(index):
  """The wide product of all but the widest; others have slots of their size."""
  assert products(residuals.switch, unpadded) == 6 * len(WIDTHS) + 2
  found, wanted = (
    program(residuals.switch, False, mark)(
      jnp.int32(index), x_Rx4, parameters()
    )
    for mark in (unpadded, keep)
  )
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())


def test_slots_are_as_large_as_the_largest_branch_needs():
  params = parameters()
  saved = jax.eval_shape(
    lambda index: jax.vjp(
      lambda x, params: residuals.switch(index, branches(), x, params),
      x_Rx4,
      params,
    )[1],
    jnp.int32(0),
  )
  of_operands = [leaf.shape for leaf in jax.tree.leaves((x_Rx4, params))]
  shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(saved)]
  # The index, the operands, and of both types the largest of each rank. On CPUs
  # bfloat16 is stored as integers.
  widest = max(WIDTHS)
  assert sorted(shapes) == sorted(
    [((), 'int32')]
    + [(shape, 'float32') for shape in of_operands]
    + [
      ((ROWS * widest,), 'float32'),
      ((ROWS * 4,), 'float32'),
      ((1,), 'float32'),
      ((ROWS * widest,), 'uint16'),
    ]
  )


def test_outside_of_a_branch_nothing_is_marked():
  assert keep(x_Rx4) is x_Rx4
  with pytest.raises(ZeroDivisionError):
    residuals.switch(jnp.int32(0), [lambda x: 1 / 0], x_Rx4)
  assert keep(x_Rx4) is x_Rx4


@pytest.mark.slow
@pytest.mark.parametrize(
  'by', [contextlib.nullcontext, native.without], ids=['C++', 'XLA']
)
def test_a_switch_takes_no_more_memory_than_its_costliest_path(by):
  """One path keeps only what its gradient reads, and has no other gradient."""
  with by():
    of_switch, of_path = (
      switch.memory_of(
        space='nas_bench_macro', batch_size=64, seed=0, static=static
      )()
      for static in (False, True)
    )
  assert of_switch <= of_path
