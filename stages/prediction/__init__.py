"""What is made of a model after training: averaged views, calibrated probabilities, exports.

`stages.train` uses none of it, so that a change here never trains again.
"""
