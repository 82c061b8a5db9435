"""What a person runs with a trained network."""

import stages  # noqa: F401, so that Ctrl-C is handled as in a stage
