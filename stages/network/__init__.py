"""What trains: the network, augmentation, batches, the optimizer, saved networks."""
