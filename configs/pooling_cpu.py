"""Pooling on CIFAR-10, on a schedule for two CPU cores.

The space, data and method of pooling.py with fewer epochs and smaller
batches; all 36 architectures are ranked on 2,000 validation images.

Command: python -m jaxnas.train --config pooling_cpu.py --data.dir DIR
  --debias.baseline
Hardware and time: one core of an AMD EPYC, mostly shared, 42 minutes for both
  runs (19 of CPU time)
Result: Kendall 0.148 [-0.10, 0.39] debiased, 0.159 [-0.06, 0.37] undebiased,
  one seed: no difference that 36 architectures could show; multiply-adds
  alone have 0.498. The published figures are 0.34 and 0.16
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
