"""Pooling on CIFAR-10, on a schedule for two CPU cores.

The space, data and method of pooling.py with fewer epochs and smaller
batches; all 36 architectures are ranked on 2,000 validation images.

Command: python -m jaxnas.compare --config pooling_cpu.py --data.dir DIR
  --seeds 1 --samplers uniform,uniform+debias,boltzmann,boltzmann+debias
Hardware and time: one core of an AMD EPYC, 52 minutes
Result: Kendall 0.164 [-0.04, 0.39] uniform, -0.297 [-0.51, -0.04] debiased,
  0.267 Boltzmann, -0.309 debiased, one seed: after one epoch of warm-up dense
  architectures are the better ones (Spearman 0.49); multiply-adds alone have
  0.498. The published figures of uniform are 0.16 and 0.34 debiased
"""

from jaxnas.config import (
  Config,
  Data,
  Debias,
  Optimizer,
  Ranking,
)


def get_config() -> Config:
  return Config(
    space='pooling',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=1,
    epochs=2,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(
      peak_lr=0.1, floor_lr=0.001, weight_decay=1e-3, lr_warmup_steps=100
    ),
    ranking=Ranking(images=2000),
  )
