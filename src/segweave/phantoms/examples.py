"""A synthetic heart as a user's own scan would come: a NIfTI file whose header is in order, and the
same voxels as a DICOM series.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.formats import read_case
from segweave.phantoms.cardiac import write_cardiac
from segweave.phantoms.writing import write_nifti

NIFTI, DICOM = "heart.nii.gz", "heart-dicom"


def write_examples(
    out: Path, *, seed: int = 1, size: tuple[int, int] = (144, 128), slices: int = 10
) -> None:
    """Write `heart.nii.gz` and, where pydicom is installed, the series `heart-dicom` into `out`.

    Both hold one stack, axial, its first slice uppermost: the size and the slices are about those
    that are asked for, see `write_cardiac`. The same arguments give the same voxels and UIDs. With
    another seed than the demo's, 0, it is a patient that no training has seen.
    """
    with TemporaryDirectory() as folder:
        patients = write_cardiac(folder, 1, seed, size=size, slices=slices)
        file = next(patients.glob("*/*_frame01.nii.gz"))
        case = read_case(file, id="heart", geometry="pixdim", with_label=False)
    assert case.spacing is not None
    step, height, width = case.spacing
    volume = case.image[:, 0]
    upwards = volume.transpose(2, 1, 0)[:, :, ::-1]
    write_nifti(_header((width, height, step), len(volume)), upwards, out / NIFTI)
    try:
        import pydicom  # noqa: F401
    except ImportError:
        return
    (out / DICOM).mkdir()
    for k, values in enumerate(volume):
        place = (0.0, 0.0, -step * k)
        _write_slice(values, case, place, k, seed, out / DICOM / f"IM{k:03d}.dcm")


def _header(steps: tuple[float, float, float], slices: int) -> Any:
    """A header of axial slices: columns run to the left, rows to the back, slices upwards."""
    import nibabel as nib

    header = nib.Nifti1Header()
    affine = np.diag([-steps[0], -steps[1], steps[2], 1.0])
    affine[2, 3] = -steps[2] * (slices - 1)
    header.set_data_shape((1, 1, 1))
    header.set_zooms(steps)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return header


def _write_slice(
    values: NDArray[Any],
    case: Case,
    place: tuple[float, float, float],
    index: int,
    seed: int,
    path: Path,
) -> None:
    """One MR slice of nobody, whose left upper voxel is at `place` (left, back, up; mm)."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    def uid(what: str) -> Any:
        return generate_uid(entropy_srcs=["segweave", "phantom", str(seed), what])

    assert case.spacing is not None
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, uid(f"slice {index}")
    data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
    data.FrameOfReferenceUID = uid("frame")
    data.PatientName, data.PatientID = "Phantom", "phantom"
    data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
    data.PatientSex, data.ReferringPhysicianName = "O", ""
    data.StudyID, data.SeriesNumber, data.InstanceNumber = "1", 1, index + 1
    data.Modality, data.Manufacturer, data.BodyPartExamined = "MR", "segweave", "HEART"
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "GR", "NONE", ""
    data.MRAcquisitionType, data.EchoTime, data.EchoTrainLength = "2D", None, None
    data.RepetitionTime = None
    data.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    data.SeriesDescription = "synthetic heart"
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    step, height, width = (f"{length:.6g}" for length in case.spacing)
    data.PixelSpacing, data.SliceThickness = [height, width], step
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [f"{length:.6g}" for length in place]
    data.PixelData = np.ascontiguousarray(values, np.dtype("<i2")).tobytes()
    data.save_as(path, enforce_file_format=True)
