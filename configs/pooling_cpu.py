"""Pooling on CIFAR-10, on a schedule for two CPU cores.

The space, data and method of pooling.py with fewer epochs and smaller
batches; all 36 architectures are ranked on 2,000 validation images.

Command: python -m jaxnas.train --config pooling_cpu.py --data.dir DIR
  --debias.baseline
Hardware and time: not yet measured
Result: not yet measured
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
