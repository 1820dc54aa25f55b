"""Virtual shards: a global batch always has the same shards, whatever the number of ranks that process them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shards:
    """The shards of a global batch, and those of this rank."""

    count: int
    """Shards of a global batch: the number of ranks at full size."""
    local: tuple[int, ...]
    """Shards that this rank processes, in order."""

    def __post_init__(self) -> None:
        if not self.local or not set(self.local) <= set(range(self.count)):
            raise ValueError(f"shards are {list(self.local)}; they must be one or more of 0 to {self.count - 1}")

    @classmethod
    def of_rank(cls, rank: int, world_size: int, count: int) -> Shards:
        """The shards of `rank`. Rank 0 always has shard 0. Raises ValueError if there are more ranks than shards."""
        if not 0 < world_size <= count:
            raise ValueError(f"there are {world_size} ranks for {count} shards; every rank needs at least one")
        return cls(count, tuple(range(rank, count, world_size)))

    def images(self, batch: int) -> int:
        """Images of one shard of a global batch of `batch` images."""
        return batch // self.count
