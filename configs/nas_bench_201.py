"""NAS-Bench-201 on CIFAR-10 with settings in customary use.

The paper gives none for this space. This file trains 250 epochs, 50 of them
uniform warm-up, at batch 64, with SGD and Nesterov's momentum from 0.025 to
0.001 and a weight decay of 5e-4. It ranks all 15,625 architectures on 2,000
validation images. With --data.name cifar100, or imagenet16_120 and
--data.crop_padding 2, it trains on those images, and reads --table FILE for
them.

It learns slowly: mean accuracy of 100 random architectures on 1,000 validation
images is 0.165, 0.190, 0.194, 0.208 and 0.222 at the end of epochs 1 to 5, and
the mean loss of an epoch falls from 2.25 to 2.08 (uniform, seed 0).

Command: python -m jaxnas.train --config nas_bench_201.py --data.dir DIR
  --table FILE
Hardware and time: not yet measured (meant for one GPU or TPU)
Result: not yet measured; published uniform supernets reach a Kendall of 0.58 to
  0.60 at 250 epochs, and counting parameters gives 0.578
"""

from jaxnas.config import Config, Data, Debias, Optimizer, Ranking


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
