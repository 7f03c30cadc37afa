"""The training loop and its parts: steps, optimisers, processes, adapters and evaluation."""
