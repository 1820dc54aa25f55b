"""The base class of the contract's models: camelCase in YAML, snake_case in Python. What a user writes has no unknown
fields; what the API server has stored may have some (`job.read_stored`). And the types of what a training pod reports:
values that every program can store and compare, whatever the pod sends.
"""

import math
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A number of things; JSON programs can represent integers up to here exactly."""
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Measured = Annotated[float | None, BeforeValidator(_finite)]
"""A measured number; NaN and infinity, such as the loss of a training that diverged, are read as null."""
Moment = AwareDatetime
"""A time with a time zone, so that it can be compared with others."""


class Model(BaseModel):
    """Base class of the contract's models, which are immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, object]:
        """The model for YAML or JSON: camelCase keys, without null fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
