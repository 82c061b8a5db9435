"""What a person runs with a trained network."""
