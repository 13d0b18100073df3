"""Galleries of vectors that were made elsewhere, told which encoder made them."""

from __future__ import annotations

import json
from pathlib import Path

import matmamba_vision as mv
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from encoders_made import INPUT, MeanColour, colour_texts, coloured, timm_folder
from matmamba_datasets import eval_transform
from matmamba_vision.cli.main import main
from PIL import Image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


def towers() -> mv.Encoder:
    return mv.encoder_from(
        MeanColour(), "two towers", size=48, mean=INPUT["mean"], std=INPUT["std"], texts=colour_texts
    )


def vectors_of(photos: Path, encoder: mv.Encoder, file: Path, found: bool = True) -> Path:
    """Vectors of the photos as another program would write them, with their paths."""
    files = sorted(photos.rglob("*.png"))
    transform = eval_transform(encoder.input).array
    images = torch.from_numpy(np.stack([transform(Image.open(one).convert("RGB")) for one in files]))
    table = {
        "id": [one.relative_to(photos).as_posix() for one in files],
        "path": [str(one) if found else f"/gone/{one.name}" for one in files],
        "label": [one.parent.name for one in files],
        "vector": list(encoder.embed(images).numpy()),
    }
    pq.write_table(pa.table(table), file)
    return file


@pytest.fixture
def foreign(photos: Path, teacher: str, tmp_path: Path) -> Path:
    file = vectors_of(photos, mv.open_encoder(teacher), tmp_path / "v.parquet")
    mv.index_vectors(file, tmp_path / "g", model_name="theirs")
    return tmp_path / "g"


def test_a_gallery_that_was_told_its_encoder_is_like_one_that_it_made(
    foreign: Path, photos: Path, teacher: str, tmp_path: Path
) -> None:
    red = photos / "red" / "0.png"
    mv.index(photos, tmp_path / "made", model=teacher)
    with mv.open_gallery(foreign, write=True) as gallery:
        with pytest.raises(mv.MatMambaError, match="unless `set_encoder`"):
            gallery.search(red)
        before = gallery.search("red/0.png", k=5)
        done = gallery.set_encoder(teacher)
        assert (done.encoder, done.compared) == (teacher, 16)
        assert done.cosine == pytest.approx(1, abs=1e-3)
        answer = gallery.search(red, k=5)
        assert answer[0].id == "red/0.png"
        assert gallery.search("red/0.png", k=5).hits == before.hits
        asked = coloured(tmp_path / "asked", 4, seed=2)
        assert gallery.plan(asked, target={"recall": 0.9}, k=3).plan.spec == gallery.spec
        assert gallery.add(photos, prefix="more/").added == 18
        assert gallery.verify(images=30).whole
    with mv.open_gallery(foreign) as gallery, mv.open_gallery(tmp_path / "made") as made:
        assert gallery.spec == made.spec
        assert gallery.info()["checkpoint"] == teacher
        assert gallery.search(red, k=1)[0].score == pytest.approx(made.search(red, k=1)[0].score, abs=1e-6)
    other = timm_folder(tmp_path / "other", mean=[0.5] * 3)
    with pytest.raises(mv.MatMambaError, match="transformed in another way"):
        mv.open_gallery(foreign, model=other)


def test_what_it_was_told_is_kept_by_compacting_merging_and_exporting(
    foreign: Path, photos: Path, teacher: str, tmp_path: Path
) -> None:
    with mv.open_gallery(foreign, write=True) as gallery:
        gallery.set_encoder(teacher)
        gallery.delete("blue/0.png")
        assert gallery.compact() == 1
        gallery.export(tmp_path / "e.parquet")
        assert gallery.repair().whole
    mv.import_gallery(tmp_path / "e.parquet", tmp_path / "imported")
    mv.merge([foreign], tmp_path / "merged")
    for folder in (foreign, tmp_path / "imported", tmp_path / "merged"):
        with mv.open_gallery(folder) as gallery:
            assert len(gallery) == 17
            assert gallery.search(photos / "red" / "0.png", k=1)[0].id == "red/0.png"


def test_other_means_are_refused_where_all_images_lie_close_together(photos: Path, tmp_path: Path) -> None:
    def made(mean: list[float]) -> mv.Encoder:
        shared = torch.tensor([8.0, 0.0, 0.0])
        return mv.encoder_from(
            lambda images: images.mean((2, 3)).tanh() + shared, "close", size=48, mean=mean, std=INPUT["std"]
        )

    right, wrong = made(INPUT["mean"]), made([0.2, 0.9, 0.9])
    mv.index_vectors(vectors_of(photos, right, tmp_path / "v.parquet"), tmp_path / "g", model_name="theirs")
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        with pytest.raises(mv.MatMambaError, match=r"told apart in another way.* 0\.\d{3} .* below 0\.95"):
            gallery.set_encoder(wrong)
        assert gallery.set_encoder(right).cosine == pytest.approx(1, abs=1e-3)


def test_an_encoder_that_did_not_make_them_is_refused_with_figures(
    foreign: Path, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = (foreign / "catalog.sqlite").read_bytes()
    other, small = timm_folder(tmp_path / "other", seed=1), "matmamba_nano_patch4_32"
    with mv.open_gallery(foreign, write=True) as gallery:
        with pytest.raises(mv.MatMambaError, match=r"16 images .* mean cosine of -?0\.\d{3} .* below 0.98"):
            gallery.set_encoder(other)
        with pytest.raises(mv.MatMambaError, match=r"dims: those of .* have 512"):
            gallery.set_encoder(small)
        with pytest.raises(mv.ConfigError, match="images"):
            gallery.set_encoder(other, images=-1)
    assert (foreign / "catalog.sqlite").read_bytes() == catalogue
    with mv.open_gallery(foreign) as gallery, pytest.raises(mv.MatMambaError, match="opened for reading"):
        gallery.set_encoder(teacher)
    assert main(["gallery", "encoder", str(foreign), other]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["gallery", "encoder", str(foreign), other, "--force"]) == 0
    assert main(["gallery", "encoder", str(foreign), teacher]) == 2
    assert "another checkpoint" in capsys.readouterr().err
    assert main(["gallery", "encoder", str(foreign), teacher, "--force", "--images", "4", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["encoder"], done["compared"]) == (teacher, 4)
    assert done["cosine"] == pytest.approx(1, abs=1e-3)


def test_files_that_are_gone_are_not_compared_and_that_is_said(
    photos: Path, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = vectors_of(photos, mv.open_encoder(teacher), tmp_path / "v.parquet", found=False)
    mv.index_vectors(file, tmp_path / "g", model_name="theirs")
    assert main(["gallery", "encoder", str(tmp_path / "g")]) == 0
    assert "made elsewhere by theirs; no encoder is known" in capsys.readouterr().out
    assert main(["gallery", "encoder", str(tmp_path / "g"), teacher]) == 0
    assert "none of its images could be compared" in capsys.readouterr().out
    assert main(["gallery", "encoder", str(tmp_path / "g")]) == 0
    assert f"by {teacher}, digest" in capsys.readouterr().out
    assert main(["search", "--gallery", str(tmp_path / "g"), str(photos / "red" / "1.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["hits"][0]["id"] == "red/1.png"


def test_vectors_of_that_encoder_still_ask_and_are_added_by_its_name(
    foreign: Path, photos: Path, teacher: str, tmp_path: Path
) -> None:
    file = tmp_path / "v.parquet"
    with mv.open_gallery(foreign, write=True) as gallery:
        gallery.set_encoder(teacher)
        answers = gallery.search(vectors=mv.GivenVectors(file, teacher), k=1)
        assert [answer[0].id for answer in answers] == [answer.query for answer in answers]
        with pytest.raises(mv.MatMambaError, match="another checkpoint"):
            gallery.search(vectors=mv.GivenVectors(file, "theirs"))
    assert mv.index_vectors(file, foreign, model_name=teacher, prefix="again/").added == 18


def test_texts_ask_vectors_of_a_function_with_a_text_tower(photos: Path, tmp_path: Path) -> None:
    file = vectors_of(photos, towers(), tmp_path / "v.parquet")
    mv.index_vectors(file, tmp_path / "g", model_name="towers")
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        with pytest.raises(mv.MatMambaError, match="made elsewhere"):
            gallery.search(text="red")
        assert gallery.set_encoder(towers()).compared == 16
        assert {hit.label for hit in gallery.search(text="red", k=6)} == {"red"}
        assert gallery.info()["takes_text"] is True


def test_who_has_it_open_sees_it_after_a_refresh(foreign: Path, photos: Path, teacher: str) -> None:
    with mv.open_gallery(foreign) as reader, mv.open_gallery(foreign, write=True) as writer:
        plan = writer.plan(
            vectors=mv.GivenVectors(foreign.parent / "v.parquet", "theirs"), target={"recall": 0.9}, k=3
        )
        assert plan.plan.spec == reader.spec
        writer.set_encoder(teacher)
        assert writer.info()["plan"] is None
        with pytest.raises(mv.MatMambaError, match="made elsewhere"):
            reader.search(photos / "red" / "0.png")
        reader.refresh()
        assert reader.search(photos / "red" / "0.png", k=1)[0].id == "red/0.png"


def test_vectors_without_paths_are_taken_at_ones_word(photos: Path, tmp_path: Path) -> None:
    file = vectors_of(photos, towers(), tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", np.stack(pq.read_table(file)["vector"].to_numpy()).astype(np.float32))
    mv.index_vectors(tmp_path / "v.npy", tmp_path / "g", model_name="towers")
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        done = gallery.set_encoder(towers())
        assert (done.compared, done.cosine) == (0, None)
        assert len(gallery.search(photos / "red" / "0.png", k=3)) == 3
