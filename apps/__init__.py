"""What a person runs with a trained model."""

import stages  # noqa: F401, so that Ctrl-C is handled as in a stage
