"""What each token can see, in every scan order."""

from __future__ import annotations

import pytest
import torch
from matmamba_vision import MatMamba, extract
from small import SMALL

SIDE = 4
PATCHES = SIDE * SIDE
RASTER = torch.arange(PATCHES)
COLUMN_MAJOR = RASTER.view(SIDE, SIDE).mT.flatten().argsort()


@torch.no_grad()
def sees(model: MatMamba) -> torch.Tensor:
    """(tokens, patches): whether a token's output changes when a patch does. Exact: token by token."""
    model.use_backend("reference")
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = image.repeat(PATCHES, 1, 1, 1)
    for patch in range(PATCHES):
        row, column = divmod(patch, SIDE)
        changed[patch, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
    before, after = model.forward_features(image), model.forward_features(changed)
    return (before != after).any(-1).mT


def make(depth: int, **options: object) -> MatMamba:
    torch.manual_seed(0)
    return MatMamba(**{**SMALL, "depth": depth, **options}).eval()


@pytest.mark.parametrize(
    ("scan", "place"),
    [
        ("rows", RASTER),
        ("rows_reversed", -RASTER),
        ("columns", COLUMN_MAJOR),
        ("columns_reversed", -COLUMN_MAJOR),
    ],
)
def test_a_scan_sees_what_came_before(scan: str, place: torch.Tensor) -> None:
    """The class token stands last in every order, and has seen all."""
    found = sees(make(1, scan=[scan]))
    assert torch.equal(found[:PATCHES], place[:, None] >= place)
    assert found[PATCHES].all()


def test_a_scan_in_both_directions_sees_everything() -> None:
    assert sees(make(1, scan="bidirectional")).all()


def test_the_mean_lets_every_token_see_everything() -> None:
    assert sees(make(1, mean_token=True)).all()
    assert sees(make(1, scan=["columns"], mean_token=True)).all()


def test_attention_sees_everything() -> None:
    assert sees(make(1, attention_blocks=[0])).all()


@pytest.mark.parametrize(
    ("scan", "blocks"),
    [
        ("raster", ("rows",) * 5),
        ("flip", ("rows", "rows_reversed", "rows", "rows_reversed", "rows")),
        ("cross", ("rows", "rows_reversed", "columns", "columns_reversed", "rows")),
        ("bidirectional", ("both",) * 5),
    ],
)
def test_what_each_block_does(scan: str, blocks: tuple[str, ...]) -> None:
    model = make(5, scan=scan)
    assert tuple(block.scan for block in model.stack) == blocks


def test_two_flipped_blocks_see_everything_and_two_equal_ones_do_not() -> None:
    assert sees(make(2, scan="flip")).all()
    assert not sees(make(2)).all()


def test_registers_are_spread_among_the_patches() -> None:
    """Three registers divide sixteen patches in four parts: each has seen the parts before it."""
    found = sees(make(1, reg_tokens=3))
    registers, patches = found[:3], found[3 : 3 + PATCHES]
    assert registers.sum(1).tolist() == [4, 8, 12]
    assert torch.equal(patches, RASTER[:, None] >= RASTER)
    reversed_ = sees(make(1, reg_tokens=3, scan=["rows_reversed"]))
    assert reversed_[0].tolist() == [patch >= 12 for patch in range(PATCHES)]


@torch.no_grad()
def test_each_direction_is_the_raster_scan_of_a_turned_image(images: torch.Tensor) -> None:
    """With positions that turn as well: a quarter turn and a mirror make columns of rows."""
    rows, columns = make(1, scan=["rows"]), make(1, scan=["columns"])
    columns.load_state_dict(rows.state_dict())
    for model in (rows, columns):
        model.pos_embed.zero_()
    # The patches themselves are turned as well, but not what is inside of them.
    grid = images.unflatten(2, (4, 4)).unflatten(4, (4, 4))
    turned = grid.transpose(2, 4).flatten(4, 5).flatten(2, 3)
    found = columns.forward_features(images)[:, :-1].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(found, rows.forward_features(turned)[:, :-1])


@torch.no_grad()
def test_a_skipped_block_leaves_the_others_their_direction(images: torch.Tensor) -> None:
    model = make(4, scan="flip")
    small = extract(model, [8, 0, 4, 8])
    assert tuple(block.scan for block in small.stack) == ("rows", "rows", "rows_reversed")
    assert torch.equal(small(images), model(images, width=[8, 0, 4, 8]))
    assert extract(model, [8, 8, 4, 4]).arguments["scan"] == "flip"


@pytest.mark.parametrize("scan", ["spiral", ["rows"], ["rows", "rows", "up"]], ids=str)
def test_an_unknown_scan_is_refused(scan: object) -> None:
    with pytest.raises(ValueError, match="scan"):
        MatMamba(**SMALL, scan=scan)
