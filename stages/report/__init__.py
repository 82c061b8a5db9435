"""What is measured and shown: scores, pictures, corruptions of test images."""
