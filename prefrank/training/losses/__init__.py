"""What scores and the labels people gave cost: likelihoods, and the losses made of them."""
