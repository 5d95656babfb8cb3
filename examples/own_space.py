"""A space of one's own: three positions, each a skip, a 1x1 or a 3x3.

`python own_space.py` trains it; then, from this folder, for instance
`jaxnas retrain --run own --arch best --trust_module own_space`.
"""

import flax.linen as nn
import numpy as np

import jaxnas

WIDTH, OPS = 8, ('skip', 'conv1', 'conv3')


class MySpace(jaxnas.Space):
  def costs(self, archs_AxE):
    weights_A = WIDTH**2 * np.array([0, 1, 9])[archs_AxE].sum(axis=1)
    ends = 9 * WIDTH + WIDTH * self.classes
    return jaxnas.Costs(weights_A + ends, (weights_A + ends) * 64)


class MyNet(jaxnas.Network):
  @nn.compact
  def __call__(self, x, arch, *, train):
    ops = self.skip(WIDTH), self.block(WIDTH, 1), self.block(WIDTH, 3)
    x = self.block(WIDTH)(name='stem')(x, train)
    for e in range(self.space.positions):
      x = self.choice(e, ops)(x, arch[e], train)
    return self.classify(x)


jaxnas.register_space(MySpace('mine', (OPS,) * 3, (8, 8, 1), 10), MyNet)

if __name__ == '__main__':
  run = jaxnas.run_experiment(
    jaxnas.Config(space='mine', debias=jaxnas.Debias(effective_fraction=0.5)),
    'own',
  )
  print(run.search(searcher='exhaustive')['arch'])
