"""Pooling on CIFAR-10 with the paper's schedule.

50 warm-up epochs and 250 more, batch 512, SGD from 0.1 to 0.001 along a
cosine, decay 1e-3; all 36 architectures are ranked on the 25,000 validation
images. The paper's temperature is not published: half of the architectures
stay effective here (inferred).

Command: python -m jaxnas.train --config pooling.py --data.dir DIR
Hardware and time: not yet measured (meant for one GPU or TPU)
Result: not yet measured; published Kendall 0.34 debiased, 0.16 uniform
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
    data=Data(name='cifar10', batch_size=512, crop_padding=4, flip=True),
    warmup_epochs=50,
    epochs=250,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(peak_lr=0.1, floor_lr=0.001, weight_decay=1e-3),
    ranking=Ranking(batch_size=500),
  )
