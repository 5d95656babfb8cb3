"""Pooling on CIFAR-10, on a schedule for two CPU cores.

The space, data and method of pooling.py with fewer epochs and smaller
batches; all 36 architectures are ranked on 2,000 validation images.

Command: python -m jaxnas.reproduce table3 --scale cpu --data.dir DIR
  --truth.nas_bench_macro FILE --out OUT
Hardware and time: one core of an AMD EPYC without AVX-512, 11 to 20 minutes a
  run
Result: Kendall 0.253 +- 0.046 uniform, 0.215 +- 0.125 debiased, seeds 0 to 2;
  seed 0 of Boltzmann 0.183, debiased 0.094. After one epoch of warm-up dense
  architectures are the better ones (Spearman 0.22 to 0.41); multiply-adds alone
  have 0.498. The published figures are 0.16 uniform and 0.34 debiased
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
