"""Many independent trainings: a list of tasks, and where they run."""
