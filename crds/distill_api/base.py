"""The base class of the contract's models: camelCase in YAML, snake_case in Python, no unknown fields."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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
