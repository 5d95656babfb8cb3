"""Pooling on CIFAR-10 with the paper's schedule.

It trains 50 warm-up epochs and 250 more at batch 512, with SGD from 0.1 to
0.001 along a cosine and a decay of 1e-3, and ranks all 36 architectures on the
25,000 validation images. The paper does not publish its temperature: here half
of the architectures stay effective (inferred). It trains as it is: the mean
accuracy of the 36 on 1,000 validation images is 0.346, 0.394, 0.415, 0.453 and
0.488 at the end of epochs 1 to 5, and the mean loss of an epoch falls from 1.96
through 1.72 and 1.58 to 1.48 (uniform, seed 0).

Command: python -m jaxnas.train --config pooling.py --data.dir DIR
Hardware and time: not yet measured (meant for one GPU or TPU)
Result: not yet measured; published is Kendall 0.34 debiased, 0.16 uniform
"""

from jaxnas.config import Config, Data, Debias, Optimizer, Ranking


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
