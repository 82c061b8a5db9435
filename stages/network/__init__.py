"""What trains: the model, augmentation, batches, the optimizer, saved models."""
