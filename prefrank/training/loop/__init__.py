"""The training loop and its parts: steps, optimizers, processes, adapters and evaluation."""
