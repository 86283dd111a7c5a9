"""What a user names and which scans are meant by it."""

import gzip
import hashlib
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.scans.sources import Source, in_dataset, open_sources

Writer = Callable[..., list[Path]]
VOLUME = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def nifti(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), path)
    return path


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(folder.rglob("*")):
            opened.write(file, file.relative_to(folder.parent))
    return archive


def found(*paths: Path, series: str | None = None, modality: str | None = None) -> list[Source]:
    with open_sources(paths, series, modality) as sources:
        return sources


def stems(*paths: Path, series: str | None = None, modality: str | None = None) -> list[str]:
    return [source.stem for source in found(*paths, series=series, modality=modality)]


class TestOneScan:
    def test_nifti_file(self, tmp_path: Path) -> None:
        path = nifti(tmp_path / "sub-01_FLAIR.nii.gz")
        assert found(path) == [Source(path, "sub-01_FLAIR", "nifti")]
        np.testing.assert_array_equal(found(path)[0].read().stored, VOLUME)
        assert found(path)[0].sha256() == sha256(path)

    def test_image_file(self, tmp_path: Path) -> None:
        path = tmp_path / "scan.gipl.gz"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
        assert found(path) == [Source(path, "scan", "image")]
        np.testing.assert_array_equal(found(path)[0].read().stored, VOLUME.T)

    def test_voxels_beside_their_header_change_its_hash(self, tmp_path: Path) -> None:
        path = tmp_path / "scan.mhd"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
        before = found(path)[0].sha256()
        (tmp_path / "scan.raw").write_bytes(bytes(120))
        assert found(path)[0].sha256() != before

    def test_dicom_folder(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path / "flair", VOLUME)
        (tmp_path / "flair" / "notes.txt").write_text("not DICOM")
        (source,) = found(tmp_path / "flair")
        assert (source.path, source.stem, source.kind) == (tmp_path / "flair", "flair", "dicom")
        scan = source.read()
        np.testing.assert_array_equal(scan.stored, VOLUME)
        assert scan.origin == tmp_path / "flair"
        hashes = "".join(sha256(file) for file in files)
        assert source.sha256() == hashlib.sha256(hashes.encode()).hexdigest()

    def test_zip_is_as_its_folder_and_leaves_nothing_behind(self, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "flair", VOLUME)
        with open_sources([zipped(tmp_path / "flair", tmp_path / "export.zip")]) as (source,):
            assert (source.path, source.stem, source.kind) == (tmp_path / "export.zip", "export", "dicom")
            np.testing.assert_array_equal(source.read().stored, VOLUME)
            assert source.sha256() == found(tmp_path / "flair")[0].sha256()
            assert source.series is not None
            unpacked = source.series.slices[0].file.parent
            assert unpacked.is_dir()
        assert not unpacked.exists()

    def test_multiframe_file(self, dicom_series: Writer, tmp_path: Path) -> None:
        (file,) = dicom_series(tmp_path, VOLUME, multiframe=True)
        path = file.rename(tmp_path / "IM_0001")
        (source,) = found(path)
        assert (source.stem, source.kind) == ("IM_0001", "dicom")

    def test_current_folder_has_its_name(
        self, dicom_series: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dicom_series(tmp_path / "flair", VOLUME)
        monkeypatch.chdir(tmp_path / "flair")
        assert stems(Path()) == ["flair"]


class TestChoice:
    @pytest.fixture
    def study(self, dicom_series: Writer, tmp_path: Path) -> Path:
        folder = tmp_path / "study"
        dicom_series(folder, VOLUME, SeriesNumber=3, SeriesDescription="t1 mprage")
        dicom_series(folder, VOLUME, SeriesNumber=4, modality="CT", SeriesInstanceUID="2.25.44")
        dicom_series(folder, VOLUME, SeriesNumber=5, SyntheticData="YES")
        dicom_series(folder, VOLUME[:, :, :1], SeriesNumber=6)
        return folder

    def test_series_are_listed_when_unclear(self, study: Path) -> None:
        with pytest.raises(UsageError, match=r"2 series that may be meant.*--series") as refusal:
            found(study)
        lines = str(refusal.value).splitlines()
        assert "5 x 4 x 3" in lines[2]
        assert "t1 mprage" in lines[2]
        assert [line.split()[0] for line in lines[2:]] == ["3", "4", "5", "6"]
        assert "eaked" not in str(refusal.value)

    @pytest.mark.parametrize(
        ("series", "modality", "number"),
        [("3", None, 3), ("4", None, 4), ("2.25.44", None, 4), (None, "ct", 4), ("3", "MR", 3)],
    )
    def test_by_number_uid_or_modality(
        self, series: str | None, modality: str | None, number: int, study: Path
    ) -> None:
        (source,) = found(study, series=series, modality=modality)
        assert source.series is not None
        assert source.series.number == number
        assert source.stem == f"study_series-{number}"

    def test_no_such_series(self, study: Path) -> None:
        with pytest.raises(UsageError, match="no such series"):
            found(study, series="9")

    def test_what_is_no_volume_can_be_named_but_not_read(self, study: Path) -> None:
        for series, reason in (("5", "Synthetic"), ("6", "single slice")):
            (source,) = found(study, series=series)
            with pytest.raises(ScanError, match=reason):
                source.read()

    def test_one_volume_among_localizers_needs_no_choice(self, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "study", VOLUME[:, :, :1], SeriesNumber=1)
        dicom_series(tmp_path / "study", VOLUME, SeriesNumber=2)
        assert stems(tmp_path / "study") == ["study"]

    def test_broken_volume_is_not_passed_over_for_another(self, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "study", VOLUME, SeriesNumber=1)
        dicom_series(tmp_path / "study", VOLUME, SeriesNumber=2, PhotometricInterpretation="MONOCHROME1")
        with pytest.raises(UsageError, match=r"(?s)2 series.*unusable"):
            found(tmp_path / "study")

    def test_series_chooses_among_dicom_only(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--series 4: found no DICOM"):
            found(nifti(tmp_path / "a.nii"), series="4")


class TestFolder:
    def test_every_scan_below_counts(self, dicom_series: Writer, tmp_path: Path) -> None:
        folder = tmp_path / "cohort"
        nifti(folder / "a" / "flair.nii.gz")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(folder / "a" / "t2.nrrd"))
        dicom_series(folder / "b" / "t1", VOLUME)
        dicom_series(folder / "c", VOLUME, SeriesNumber=1)
        dicom_series(folder / "c", VOLUME, SeriesNumber=2)
        dicom_series(tmp_path / "d", VOLUME)
        zipped(tmp_path / "d", folder / "d.zip")
        (folder / "readme.txt").write_text("hello")
        assert stems(folder) == ["flair", "t2", "t1", "c_series-1", "c_series-2", "d"]

    def test_series_whose_slices_lie_in_many_folders_is_one_scan(self, dicom_series: Writer, tmp_path: Path) -> None:
        for number, file in enumerate(dicom_series(tmp_path / "disc", VOLUME)):
            (tmp_path / "disc" / f"part{number}").mkdir()
            file.rename(tmp_path / "disc" / f"part{number}" / file.name)
        (source,) = found(tmp_path / "disc")
        assert (source.path, source.stem) == (tmp_path / "disc", "disc")
        assert source.series is not None
        assert source.series.shape == VOLUME.shape

    def test_masks_results_and_hidden_files_are_no_scans(self, tmp_path: Path) -> None:
        for name in (
            "sub-1_desc-pseudohealthy_FLAIR.nii.gz", "x_desc-anomaly.nii.gz", "x_desc-enhanced.nii.gz",
            "sub-1_label-lesion_mask.nii.gz", "brain_mask.nii.gz", "BraTS-seg.nii.gz", "id_seg.nii.gz", "mask.nii",
            ".hidden.nii.gz", ".partial-1234-x.nii.gz", ".cache/x.nii.gz", "derivatives/fmriprep/x_T1w.nii.gz",
        ):  # fmt: skip
            nifti(tmp_path / name)
        # Whatever a product is called: the sidecar beside it says that it is one.
        for name in ("sub-1_desc-pseudohealthy_FLAIR", "x_desc-anomaly", "x_desc-enhanced", "x_desc-filled"):
            (tmp_path / f"{name}.json").write_text('{"SyntheticData": true}')
        nifti(tmp_path / "x_desc-filled.nii.gz")
        for name in ("unmasked", "x_desc-preproc"):
            nifti(tmp_path / f"{name}.nii.gz")
        assert stems(tmp_path) == ["unmasked", "x_desc-preproc"]

    def test_bids_dataset_gives_its_anatomical_scans(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_description.json").write_text("{}")
        names = ("sub-1/anat/sub-1_FLAIR.nii.gz", "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/ses-1/anat/sub-2_ses-1_T2w.nii")
        for name in (
            *names, "sub-1/func/sub-1_bold.nii.gz", "sub-1/anat/other.nii.gz", "code/template.nii.gz",
            "derivatives/manual/sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_label-lesion_mask.nii.gz",
        ):  # fmt: skip
            nifti(tmp_path / name)
        assert [source.path for source in found(tmp_path)] == [tmp_path / name for name in names]
        assert {source.dataset for source in found(tmp_path)} == {tmp_path}
        assert stems(tmp_path / "sub-1", modality="flair") == ["sub-1_FLAIR"]
        assert len(found(tmp_path, modality="MR")) == 3

    def test_bad_ones_say_so_when_read_and_the_others_go_on(self, dicom_series: Writer, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        (tmp_path / "b.nii.gz").write_bytes(b"damaged")
        (tmp_path / "c.zip").write_bytes(b"damaged")
        for file in dicom_series(tmp_path / "d", VOLUME):
            file.write_bytes(file.read_bytes()[:600])
        dicom_series(tmp_path / "e", np.repeat(VOLUME, 2, axis=2))[2].unlink()
        sources = found(tmp_path)
        assert [source.path.name for source in sources] == ["a.nii", "b.nii.gz", "c.zip", "d", "e"]
        sources[0].read()
        for source in sources[1:]:
            with pytest.raises(ScanError, match=source.path.name):
                source.read()
        with pytest.raises(ScanError, match="damaged zip"):
            sources[2].sha256()

    def test_scouts_and_synthetic_series_are_passed_over(self, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "a" / "scout", VOLUME[:, :, :1])
        dicom_series(tmp_path / "a" / "t1", VOLUME)
        dicom_series(tmp_path / "a" / "results", VOLUME, SyntheticData="YES")
        assert stems(tmp_path) == ["t1"]

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        nifti(tmp_path / "elsewhere" / "a.nii")
        (tmp_path / "cohort" / "inner").mkdir(parents=True)
        (tmp_path / "cohort" / "inner" / "up").symlink_to(tmp_path / "cohort", target_is_directory=True)
        (tmp_path / "cohort" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "cohort" / "broken.nii").symlink_to(tmp_path / "nowhere")
        assert stems(tmp_path / "cohort") == ["a"]

    def test_modality_and_series_choose_in_folders_too(self, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "a", VOLUME, modality="CT", SeriesNumber=1)
        dicom_series(tmp_path / "b", VOLUME, SeriesNumber=2)
        assert stems(tmp_path, modality="CT") == ["a"]
        assert stems(tmp_path, series="2") == ["b"]

    @pytest.mark.parametrize("name", ["", "notes.txt", "picture.png", "x_mask.nii.gz"])
    def test_folder_without_scans(self, name: str, tmp_path: Path) -> None:
        if name:
            (tmp_path / name).write_bytes(b"content")
        with pytest.raises(UsageError, match="holds no scan that can be used"):
            found(tmp_path)


class TestMany:
    def test_each_path_counts_once(self, tmp_path: Path) -> None:
        first, second = nifti(tmp_path / "a" / "1.nii"), nifti(tmp_path / "b" / "2.nii")
        assert stems(first, second, first) == ["1", "2"]

    def test_missing_path_stops_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            found(nifti(tmp_path / "a.nii"), tmp_path / "b.nii")

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("picture.PNG", b"\x89PNG", "no third axis"),
            ("table.csv", b"a,b", "another kind"),
            ("empty", b"", "another kind"),
            ("empty.zip", b"PK\x05\x06" + bytes(18), "no images"),
            ("broken.dcm", b"", "damaged"),
            ("noise", random.Random(0).randbytes(500), "another kind"),
        ],
    )
    def test_files_that_are_no_scans_do_not_stop_the_others(
        self, name: str, content: bytes, reason: str, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        bad, good = found(path, nifti(tmp_path / "a.nii"))
        with pytest.raises(ScanError, match=f"{name}.*{reason}"):
            bad.read()
        good.read()

    def test_pipes_are_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ScanError, match="no regular file"):
            found(tmp_path / "pipe")[0].read()

    def test_one_slice_of_a_series_asks_for_its_folder(self, dicom_series: Writer, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match=r"single slice.*name the folder"):
            found(dicom_series(tmp_path, VOLUME)[0])[0].read()


@pytest.mark.data
def test_real_scan_from_a_zip_is_the_one_from_its_folder(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom_t1"
    with open_sources([folder, zipped(folder, tmp_path / "t1.zip")]) as (from_folder, from_zip):
        assert from_folder.sha256() == from_zip.sha256()
        ours, theirs = from_folder.read(), from_zip.read()
    np.testing.assert_array_equal(ours.stored, theirs.stored)
    np.testing.assert_array_equal(ours.affine, theirs.affine)


@pytest.mark.data
def test_real_cohort(shared_data: Path) -> None:
    assert len(found(shared_data / "lgg", modality="FLAIR")) == 88
    assert len(found(shared_data / "brats2013")) == 8


class TestEveryFileThatCouldBeAScan:
    """Is made, or named with the reason; nothing that looks like a scan is passed over in silence."""

    @pytest.mark.parametrize("name", ["x.nii.GZ", "x.Nii.Gz", "x.NII.gz", "x.NII"])
    def test_endings_in_large_letters_are_made(self, name: str, tmp_path: Path) -> None:
        nifti(tmp_path / ("x.nii.gz" if name.lower().endswith("gz") else "x.nii")).rename(tmp_path / name)
        (source,) = found(tmp_path)
        assert source.stem == "x"
        np.testing.assert_array_equal(source.read().stored, VOLUME)

    @pytest.mark.parametrize(
        "name",
        ["x.mgz", "x.MGH", "x.nii.bz2", "x.nii.xz", "x.nii.zst", "x.mif.gz", "x.rec", "x+orig.BRIK", "x.tar.gz", "x.7z",
         "x.rar", "x.img", "x.nrrd.gz"],
    )  # fmt: skip
    def test_kinds_that_are_not_read_are_named(self, name: str, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        (tmp_path / name).write_bytes(b"content")
        good, bad = found(tmp_path)
        good.read()
        with pytest.raises(ScanError, match=f"{re.escape(name)}: found a file of a kind that is not read"):
            bad.read()

    @pytest.mark.parametrize("name", ["x", "x.bak", "x.nii.bak", "x (1)", "x.niigz.part"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_nifti_under_another_name_is_named(self, name: str, packed: bool, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        content = (tmp_path / "a.nii").read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
        (tmp_path / "x_mask.bak").write_bytes(content)
        good, bad = found(tmp_path)
        good.read()
        with pytest.raises(ScanError, match=rf"{re.escape(name)}: found NIfTI under another name.*\.nii\.gz; rename"):
            bad.read()

    def test_packed_dicom_is_named_once(self, dicom_series: Writer, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        for file in dicom_series(tmp_path / "t1", VOLUME):
            (tmp_path / "t1" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        good, bad = found(tmp_path)
        good.read()
        with pytest.raises(ScanError, match=r"found the packed file .*\.gz, expected plain DICOM; unpack it"):
            bad.read()

    def test_a_zip_under_another_name_is_one_if_it_holds_scans(self, dicom_series: Writer, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        dicom_series(tmp_path / "t1", VOLUME)
        zipped(tmp_path / "t1", tmp_path / "study")
        shutil.rmtree(tmp_path / "t1")
        with zipfile.ZipFile(tmp_path / "patients.xlsx", "w") as office:
            office.writestr("[Content_Types].xml", b"<xml/>")
        with open_sources([tmp_path]) as sources:
            assert [source.path.name for source in sources] == ["a.nii", "study"]
            np.testing.assert_array_equal(sources[1].read().stored, VOLUME)

    @pytest.mark.parametrize("name", ["x.nii.gz", "inner.zip", "x.mgz"])
    def test_what_else_is_in_a_zip_of_dicom_is_named(self, name: str, dicom_series: Writer, tmp_path: Path) -> None:
        dicom_series(tmp_path / "t1", VOLUME)
        for other in (name, "x_mask.nii.gz", "readme.txt"):
            (tmp_path / "t1" / other).write_bytes(b"content")
        zipped(tmp_path / "t1", tmp_path / "study.zip")
        shutil.rmtree(tmp_path / "t1")
        with open_sources([tmp_path]) as (good, bad):
            good.read()
            with pytest.raises(ScanError, match=f"study.zip: found {name} in a zip of DICOM"):
                bad.read()

    def test_what_git_annex_has_not_fetched_is_named(self, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        link = tmp_path / "x.nii.gz"
        link.symlink_to(".git/annex/objects/aa/bb/MD5E-s1--00.nii.gz/MD5E-s1--00.nii.gz")
        (tmp_path / "x_mask.nii.gz").symlink_to(".git/annex/objects/x")
        for source in (found(tmp_path)[1], *found(link)):
            with pytest.raises(ScanError, match=r"x\.nii\.gz: is a link of git-annex.*get the file first"):
                source.read()

    def test_a_pipe_called_as_a_scan_is_named(self, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        os.mkfifo(tmp_path / "x.nii.gz")
        with pytest.raises(ScanError, match=r"x\.nii\.gz: found no regular file"):
            found(tmp_path)[1].read()

    @pytest.mark.parametrize("name", ["x_mask.mgz", "x_label-lesion.mgh", "notes.txt", "table.csv", ".hidden.mgz"])
    def test_masks_and_texts_are_not(self, name: str, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        (tmp_path / name).write_bytes(b"content")
        assert stems(tmp_path) == ["a"]

    def test_the_image_of_a_pair_is_read_by_its_header(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), tmp_path / "x.img")
        (source,) = found(tmp_path)
        assert source.path.name == "x.hdr"

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            (["x.nii.gz"], r"zip of other files \(x.nii.gz\)"),
            (["a/x.NRRD", "readme.txt"], r"zip of other files \(x.NRRD\)"),
            (["inner.zip"], r"zip of other files \(inner.zip\)"),
            (["readme.txt"], "no images"),
            ([], "no images"),
        ],
    )
    def test_a_zip_without_dicom_is_named(self, members: list[str], reason: str, tmp_path: Path) -> None:
        nifti(tmp_path / "a.nii")
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as opened:
            for name in members:
                opened.writestr(name, b"content")
        for source in (found(tmp_path)[1], *found(tmp_path / "z.zip")):
            with pytest.raises(ScanError, match=rf"z\.zip: found .*{reason}"):
                source.read()

    @pytest.mark.parametrize("k", [0, 1, 2])
    def test_a_damaged_slice_in_a_zip_refuses_its_series(self, k: int, dicom_series: Writer, tmp_path: Path) -> None:
        for number, file in enumerate(dicom_series(tmp_path / "flair", VOLUME)):
            file.rename(tmp_path / "flair" / f"IM{number}")
        (tmp_path / "flair" / f"IM{k}").write_bytes(b"")
        (source,) = found(zipped(tmp_path / "flair", tmp_path / "z.zip"))
        with pytest.raises(ScanError, match="damaged file"):
            source.read()

    @pytest.mark.usefixtures("names_of_any_bytes")
    def test_a_file_name_that_is_no_utf_8_is_a_name(self, tmp_path: Path) -> None:
        path = nifti(tmp_path / "a.nii")
        path.rename(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"m\xfcller.nii")))  # noqa: PTH118
        (source,) = found(tmp_path)
        assert os.fsencode(source.stem) == b"m\xfcller"
        source.read()
        source.sha256()

    def test_slices_in_folders_of_their_own_and_a_damaged_one_among_them(
        self, dicom_series: Writer, tmp_path: Path
    ) -> None:
        for number, file in enumerate(dicom_series(tmp_path / "disc", np.repeat(VOLUME, 2, axis=2))):
            (tmp_path / "disc" / f"part{number}").mkdir()
            file.rename(tmp_path / "disc" / f"part{number}" / "slice.dcm")
        (tmp_path / "disc" / "part5" / "slice.dcm").write_bytes(b"")
        for source in found(tmp_path / "disc"):
            with pytest.raises(ScanError, match=r"damaged file slice.dcm"):
                source.read()


def test_a_dataset_itself_its_folders_and_its_files_lie_in_it(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    scan = dataset / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    assert not in_dataset(scan)
    (dataset / "dataset_description.json").write_text('{"Name": "any", "BIDSVersion": "1.10.0"}')
    assert all(map(in_dataset, (dataset, dataset / "sub-01", scan)))
    assert not in_dataset(tmp_path)
