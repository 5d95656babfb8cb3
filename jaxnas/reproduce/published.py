"""What is published, to stand beside what is measured here.

Tables 3 to 6 are those of Roshtkhari, Toews and Pedersoli, "Debiased One-Shot
NAS via Density-Aware Sampling", CVPR Findings 2026. Correlations as they are
printed; accuracies are fractions.
"""

# By space and training: Kendall and Spearman.
TABLE_3 = {
  ('pooling', 'uniform'): {'kendall': 0.16, 'spearman': 0.21},
  ('pooling', 'uniform+debias'): {'kendall': 0.34, 'spearman': 0.55},
  ('nas_bench_macro', 'uniform'): {'kendall': 0.72, 'spearman': 0.87},
  ('nas_bench_macro', 'uniform+debias'): {'kendall': 0.74, 'spearman': 0.91},
}

# Pooling, by estimator.
TABLE_4 = {
  'inverse_mean_distance': {'kendall': 0.34},
  'kde': {'kendall': 0.32},
}

# NAS-Bench-Macro, by temperature.
TABLE_5 = {
  50.0: {'kendall': 0.72},
  7.0: {'kendall': 0.74},
  0.5: {'kendall': 0.67},
  0.1: {'kendall': 0.65},
}

# Pooling: Spearman of the density after so many of 300 epochs of uniform
# training with the last one.
TABLE_6 = {
  0: 0.00,
  5: 0.76,
  10: 0.88,
  50: 0.95,
  100: 0.96,
  200: 1.00,
  300: 1.00,
}
TABLE_6_EPOCHS = 300

# Pooling, by strategy: true accuracy of the architecture found, the average of
# Roshtkhari et al. (2025), and of one search (2023).
FOUND_ON_AVERAGE = {
  'uniform': 0.9040,
  'boltzmann': 0.9051,
  'tree': 0.9057,
  'tree:prioritized': 0.9142,
  'tree:iterative': 0.9181,
}
FOUND = {'boltzmann': 0.9042}

# NAS-Bench-201 on CIFAR-10 after 250 epochs; uniform is given as 0.58 to 0.60,
# importance by PA&DA (Lu et al. 2023), which trains on all images and ranks on
# the test set.
NAS_BENCH_201 = {
  'uniform': {'kendall': 0.59},
  'importance': {'kendall': 0.713},
}

# ImageNet top-1 under other limits than here: PA&DA 399M multiply-adds,
# FairNAS-C 325M, SPOS 328M.
IMAGENET = {'uniform': 0.762, 'fair': 0.767, 'importance:path': 0.773}
