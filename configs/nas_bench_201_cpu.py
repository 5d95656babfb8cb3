"""NAS-Bench-201 on CIFAR-10, on a schedule for two CPU cores.

The space, data and optimizer of nas_bench_201.py with 4 epochs instead of 250
and clipped gradients; 300 architectures drawn with a fixed seed are ranked on
1,000 validation images. Training is uniform: a density of all 15,625
architectures would take longer than the rest.

Command: python -m jaxnas.train --config nas_bench_201_cpu.py --data.dir DIR
  --table FILE
Hardware and time: one core of an AMD EPYC, 22 minutes to train (75 images/s)
  and 15 to rank
Result: Kendall -0.118 [-0.20, -0.04], one seed, 300 architectures; parameters
  alone have 0.559. After four epochs the supernet has learnt little (loss
  2.0 to 2.1): cells of pools and skips, which need no training, lead
"""

from jaxnas.config import (
  Config,
  Data,
  Optimizer,
  Ranking,
)


def get_config() -> Config:
  return Config(
    space='nas_bench_201',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=0,
    epochs=4,
    optimizer=Optimizer(
      peak_lr=0.025,
      floor_lr=0.001,
      nesterov=True,
      weight_decay=5e-4,
      clip_norm=5.0,
    ),
    ranking=Ranking(images=1000, archs=300),
  )
