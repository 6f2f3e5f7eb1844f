"""`segweave export-nnunet`: a store as an nnU-Net data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    (
        "segweave export-nnunet stores/synapse nnUNet_raw --split 18-12 --channels CT",
        "the same cases and the same test part for nnU-Net",
    ),
    (
        "segweave export-nnunet stores/photos nnUNet_raw --number 12",
        "single images, as PNG",
    ),
)


def export_nnunet(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="What prepare wrote.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="The folder for DatasetNNN_NAME: nnU-Net's nnUNet_raw.",
            show_default=False,
        ),
    ],
    number: Annotated[int, typer.Option(metavar="N", help="The number in its name.")] = 1,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name; else the store's.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which split, where the store has several."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Names of the channels, joined with commas; nnU-Net normalises by them (CT).",
        ),
    ] = None,
) -> None:
    """Write a store as nnU-Net's raw data, so that both train on the same cases.

    What the split trains and validates on goes to imagesTr and labelsTr, its test parts to imagesTs
    and labelsTs; cases in none of its parts are left out, and named. Train and valid are one fold
    in splits_final.json, for nnU-Net's folder of preprocessed data. cases.csv has the patient and
    the part of each case. nnU-Net's predictions for imagesTs are scored with
    `segweave score PREDICTIONS labelsTs --cases cases.csv --out scores`.
    """
    from segweave.cli.show import remark, results
    from segweave.data.store import Store
    from segweave.datasets.export_nnunet import in_no_part, write_nnunet
    from segweave.words import few

    opened = Store(store)
    folder = write_nnunet(
        opened,
        out,
        number=number,
        name=name,
        split=split,
        channels=[part.strip() for part in channels.split(",")] if channels else None,
    )
    if spare := in_no_part(opened, split):
        remark(
            f"left out, in no part of the split: {len(spare)} of {len(opened.ids)} cases: "
            f"{few(spare)}"
        )
    results(dataset=folder, description=folder / "dataset.json")
