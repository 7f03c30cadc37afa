"""Statistics: figures with intervals, tests, ranks, correlations and regression. They know no items, texts or models.

numpy is all they need, so that the base install evaluates. What scipy, statsmodels or scikit-learn have too is held
against them by the tests; what they lack (weights, clusters, strata, half wins) is why it is ours.
"""
