"""What every section of the workload's schema has in common: strict keys, and numbers that cannot be nonsense."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "NonNegative", "Positive", "Ratio", "Section"]

Count = Annotated[int, Field(ge=1)]
"""How many of something; there is at least one."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A mapping in the scenario file; a key it does not know is an error, not a setting that does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
