"""Statistics: figures with intervals, tests, ranks and correlations. They know nothing of items, texts or models."""
