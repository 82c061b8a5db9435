"""What is made of a network after training: averaged views, true probabilities, an exported file.

`stages.train` uses none of it, so that a change here never trains again.
"""
