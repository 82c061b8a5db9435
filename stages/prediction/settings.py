"""The section `package` of params.yaml."""

from typing import Annotated

from pydantic import Field

from stages.base.params import Section


class Package(Section):
    """What is made of a trained network.

    average_shift: pixels by which four further views of an image are shifted, see views.py.
    """

    average_shift: Annotated[int, Field(ge=0, le=14)]
