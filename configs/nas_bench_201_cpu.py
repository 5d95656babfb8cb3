"""NAS-Bench-201 on CIFAR-10, on a schedule for a CPU core.

It has the space, data and optimizer of nas_bench_201.py with 5 warm-up epochs
and 20 more instead of 50 and 200. It estimates densities from 500 cells, as
those of all 15,625 would take longer than the training, and ranks 1,000, drawn
with a fixed seed, on 1,000 validation images; 100 of them every five epochs.

Command: python -m jaxnas.train --config nas_bench_201_cpu.py --data.dir DIR
  --table FILE
Hardware and time: not yet measured
Result: not yet measured
"""

from jaxnas.config import Config, Data, Debias, Density, Optimizer, Ranking


def get_config() -> Config:
  return Config(
    space='nas_bench_201',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=5,
    epochs=20,
    debias=Debias(effective_fraction=0.5),
    density=Density(estimator='prototypes'),
    optimizer=Optimizer(
      peak_lr=0.025,
      floor_lr=0.001,
      nesterov=True,
      weight_decay=5e-4,
      clip_norm=5.0,
    ),
    ranking=Ranking(images=1000, archs=1000, every_epochs=5),
  )
