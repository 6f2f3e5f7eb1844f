"""A small right file of each kind that the service reads."""

from __future__ import annotations

import gzip
import io
import zipfile

import h5py
import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def images() -> dict[str, bytes]:
    """A small right file of each kind that the service reads: name → content."""
    rng = np.random.default_rng(0)
    values = rng.normal(100, 20, (3, 10, 12)).astype(np.float32)
    picture = Image.fromarray(rng.integers(0, 255, (10, 12)).astype(np.uint8))
    found: dict[str, bytes] = {}
    for kind in ("png", "jpeg", "tiff", "bmp"):
        stream = io.BytesIO()
        picture.save(stream, format=kind)
        found[f"a.{kind}"] = stream.getvalue()
    nifti = nibabel.Nifti1Image(values.T, np.diag([1.0, 1.0, 2.0, 1.0]))
    found["a.nii"] = nifti.to_bytes()
    found["a.nii.gz"] = gzip.compress(found["a.nii"], mtime=0)
    stream = io.BytesIO()
    np.savez_compressed(stream, image=values)
    found["a.npz"] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, values)
    found["a.npy"] = stream.getvalue()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["image"] = values
    found["a.h5"] = stream.getvalue()
    found["a.mha"] = (
        b"ObjectType = Image\nNDims = 3\nDimSize = 12 10 3\nElementSpacing = 1 1 2\n"
        b"ElementType = MET_FLOAT\nElementDataFile = LOCAL\n" + values.tobytes()
    )
    found["a.nrrd"] = (
        b"NRRD0004\ntype: float\ndimension: 3\nsizes: 12 10 3\nencoding: raw\nendian: little\n"
        b"spacings: 1 1 2\n\n" + values.tobytes()
    )
    slices = [_dicom(values[k].astype(np.int16), k) for k in range(3)]
    found["a.dcm"] = slices[0]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for k, content in enumerate(slices):
            archive.writestr(f"{k}.dcm", content)
    found["a.zip"] = stream.getvalue()
    return found


def _dicom(pixels: np.ndarray, number: int) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2", "1.2.3", "CT"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.PixelSpacing, data.SliceThickness = [1, 1], 2
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, 2 * number]
    data.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
