"""Training: the loss, token weights, image masking and the trainers."""
