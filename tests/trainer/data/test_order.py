"""The order of the training data is a function of (seed, epoch, position) and of nothing else."""

from itertools import chain
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_trainer.data.datasets.unlabelled import JoinedSampler, Unlabelled, unlabelled_order
from distill_trainer.data.loading.order import (
    MOSAIC_POOL,
    SampleOrder,
    SampleSpec,
    ShardBatchSampler,
    permutation,
    sample_seed,
)


def positions(tokens: list[SampleSpec]) -> list[int]:
    return [token.position for token in tokens]


def stream(
    order: SampleOrder, shard_batch: int, my_shards: tuple[int, ...], start: int, end: int
) -> list[list[SampleSpec]]:
    return list(ShardBatchSampler(order, shard_batch, my_shards, start, end))


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(1, 1, 1), (1, 16, 1), (16, 16, 1), (17, 16, 2), (100, 7, 15), (1500, 64, 24)]
)
def test_an_epoch_has_as_many_steps_as_batches_with_the_last_filled_up(images: int, batch: int, steps: int) -> None:
    assert SampleOrder(images, batch, seed=0).steps_per_epoch == steps


@given(images=st.integers(1, 200), batch=st.integers(1, 48), seed=st.integers(0, 2**31), epoch=st.integers(0, 300))
def test_an_epoch_shows_every_image_once_and_fills_up_from_its_beginning(
    images: int, batch: int, seed: int, epoch: int
) -> None:
    order = SampleOrder(images, batch, seed)
    shown = [order.sample(epoch, position).index for position in range(order.steps_per_epoch * batch)]
    assert sorted(shown[:images]) == list(range(images))
    assert shown[images:] == [shown[position % images] for position in range(images, len(shown))]


@given(
    shards=st.sampled_from([1, 2, 3, 4, 6, 12]),
    images=st.integers(1, 60),
    start=st.integers(0, 9),
    more=st.integers(0, 9),
)
def test_any_cut_into_shards_shows_the_same_samples(shards: int, images: int, start: int, more: int) -> None:
    order = SampleOrder(images, 12, seed=3, mosaic_epochs=2)
    whole = stream(order, 12, (0,), start, start + more)
    cut = stream(order, 12 // shards, tuple(range(shards)), start, start + more)
    assert list(chain(*whole)) == list(chain(*cut))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_show_the_global_batch_once(world_size: int) -> None:
    order = SampleOrder(50, 16, seed=1)
    shards = [
        shard for rank in range(world_size) for shard in stream(order, 4, tuple(range(rank, 4, world_size)), 3, 4)
    ]
    assert sorted(positions(list(chain(*shards)))) == list(range(48, 64))


def test_a_resumed_stream_is_the_rest_of_the_uninterrupted_one() -> None:
    order = SampleOrder(50, 16, seed=1, mosaic_epochs=2)
    whole = stream(order, 8, (0, 1), 0, 14)
    assert stream(order, 8, (0, 1), 5, 14) == whole[10:]


def test_one_stream_crosses_epochs_and_switches_mosaic_off() -> None:
    order = SampleOrder(images=20, batch=10, seed=0, mosaic_epochs=2)
    tokens = list(chain(*stream(order, 10, (0,), 0, 6)))
    assert [(token.epoch, token.mosaic) for token in tokens[::10]] == [
        (0, True), (0, True), (1, True), (1, True), (2, False), (2, False),
    ]  # fmt: skip


def test_mosaic_stays_on_without_close_mosaic() -> None:
    assert SampleOrder(20, 10, seed=0, mosaic_epochs=None).sample(10_000, 0).mosaic


def test_epochs_and_seeds_shuffle_differently() -> None:
    shuffles = {(seed, epoch): tuple(permutation(100, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(set(shuffles.values())) == 9


def test_every_position_has_its_own_seed() -> None:
    seeds = {sample_seed(seed, epoch, position) for seed in (0, 1) for epoch in (0, 1) for position in range(500)}
    assert len(seeds) == 2000


@given(images=st.integers(1, 100), position=st.integers(0, 99))
def test_a_mosaic_mixes_with_neighbours_of_the_same_aligned_window(images: int, position: int) -> None:
    order = SampleOrder(images, 10, seed=5)
    token = order.sample(0, position)
    assert token.index in token.pool
    assert token.pool == order.sample(0, position - position % MOSAIC_POOL).pool
    assert set(token.pool) <= set(range(images))


def test_the_order_never_changes_between_versions() -> None:
    """A checkpoint of an older version must go on with the same images: these numbers are a promise."""
    assert permutation(10, 0, 0).tolist() == [2, 1, 0, 8, 4, 3, 5, 6, 9, 7]
    assert sample_seed(0, 0, 0) == 9819966136895938196


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(ValueError, match="images and batch must be"):
        SampleOrder(0, 16, seed=0)


@given(shards=st.sampled_from([1, 2, 3, 6]), start=st.integers(0, 9), more=st.integers(0, 9), end=st.integers(0, 12))
def test_unlabelled_images_join_each_shard_wherever_a_run_starts(shards: int, start: int, more: int, end: int) -> None:
    order, extra = SampleOrder(20, 6, seed=3, mosaic_epochs=2), unlabelled_order(11, 12, seed=3)

    def batches(first: int, last: int) -> list[list[SampleSpec]]:
        labelled = ShardBatchSampler(order, 6 // shards, tuple(range(shards)), first, last)
        unlabelled = Unlabelled(cast(Any, None), extra, 12 // shards, end)
        return list(JoinedSampler(labelled, unlabelled))

    found = batches(start, start + more)
    assert found == batches(0, start + more)[start * shards :]
    for number, batch in enumerate(found):
        step = start + number // shards
        ours, theirs = batch[: 6 // shards], batch[6 // shards :]
        assert ours == order.shard(step, number % shards, 6 // shards)
        assert len(theirs) == (12 // shards if step < end else 0)
        assert all(20 <= image < 31 for spec in theirs for image in (spec.index, *spec.pool))
        assert all(spec.mosaic == ours[0].mosaic for spec in theirs)


def test_unlabelled_images_have_a_shuffle_and_an_augmentation_of_their_own() -> None:
    ours, theirs = SampleOrder(30, 6, seed=3), unlabelled_order(30, 6, seed=3)
    assert [spec.index for spec in ours.shard(0, 0, 6)] != [spec.index for spec in theirs.shard(0, 0, 6)]
    assert theirs.seed != ours.seed
