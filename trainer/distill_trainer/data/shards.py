"""Virtual shards: a global batch is always the same shards, however many ranks there are to run them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shards:
    """The shards of a global batch, and which of them this rank runs, in order."""

    count: int
    """Shards of a global batch: the ranks at full size."""
    mine: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.mine or not set(self.mine) <= set(range(self.count)):
            raise ValueError(f"shards {list(self.mine)} are not some of 0 to {self.count - 1}")

    @classmethod
    def of_rank(cls, rank: int, world_size: int, count: int) -> Shards:
        """Those of `rank`. Rank 0 always has shard 0. Raises ValueError when there are fewer shards than ranks."""
        if not 0 < world_size <= count:
            raise ValueError(f"{world_size} ranks cannot share {count} shards; every rank needs at least one")
        return cls(count, tuple(range(rank, count, world_size)))

    def images(self, batch: int) -> int:
        """Images of one shard of a global batch of `batch` images."""
        return batch // self.count
