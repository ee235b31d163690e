"""Algorithm 1: tasks and schedule, relation sources, trainer, checkpoints, model card."""
