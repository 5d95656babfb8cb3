"""NAS-Bench-201 on CIFAR-10 with settings in customary use.

The paper gives none for this space. SGD with Nesterov's momentum from 0.025 to
0.001, weight decay 5e-4, batch 64, 250 epochs, 50 of them uniform warm-up; all
15,625 architectures are ranked on 2,000 validation images. With --data.name
cifar100, or imagenet16_120 and --data.crop_padding 2, the same file trains on
those, and --table FILE is read for the data set that is trained on.

Command: python -m jaxnas.train --config nas_bench_201.py --data.dir DIR
  --table FILE
Hardware and time: not yet measured (meant for one GPU or TPU)
Result: not yet measured; published uniform supernets reach a Kendall of 0.58 to
  0.60 at 250 epochs, and parameters alone have 0.578
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
    space='nas_bench_201',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=50,
    epochs=200,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(
      peak_lr=0.025, floor_lr=0.001, nesterov=True, weight_decay=5e-4
    ),
    ranking=Ranking(images=2000),
  )
