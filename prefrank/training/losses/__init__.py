"""Labels, likelihoods of labels given scores, and the losses made of them."""
