"""`phs-pipeline view`: results in a browser, or for another viewer."""

from pathlib import Path

import click

from pipeline.cli.say import say

VIEWERS = ("slicer", "itksnap", "freeview", "niivue")


@click.command()
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in the browser.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Where to serve.  [default: a free one]")
@click.option(
    "--for",
    "viewers",
    multiple=True,
    type=click.Choice(VIEWERS),
    help="Instead of serving, write the masks' names and colours for this viewer into OUT/viewers.",
)
def view(folder: Path, browser: bool, port: int, viewers: tuple[str, ...]) -> None:
    """Show the pages of OUT, a folder of results or a report, in a browser on this machine, until Ctrl-C.

    They are served on 127.0.0.1 alone, under an address with a random token: nobody else on the network or on this
    machine can read them without it.

    With --for, masks become what the viewer opens with names and colours: slicer a segmentation (.seg.nrrd), itksnap
    label descriptions, freeview a look-up table, niivue a label colour map. How to call the viewer is said.
    """
    from pipeline.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder, expected one of results; check the path")
    if viewers:
        _write(folder, viewers)
    else:
        _serve(folder, browser, port)


def _write(folder: Path, viewers: tuple[str, ...]) -> None:
    from pipeline.errors import UsageError
    from pipeline.reports.viewer_files import masks_below, write_for

    masks = list(masks_below(folder))
    if not masks:
        raise UsageError(
            f"{folder}: holds no mask of ours (…_label-NAME_mask.nii.gz), expected results of `synthesize`, `fill` or "
            "`segment`; DICOM Segmentations open in 3D Slicer as they are"
        )
    for viewer in viewers:
        for mask in masks:
            # Masks of two subfolders may be called alike.
            path, called = write_for(viewer, mask, folder / "viewers" / mask.path.parent.relative_to(folder))
            say(f"{path}: {called}")


def _serve(folder: Path, browser: bool, port: int) -> None:
    import webbrowser

    from pipeline.errors import UsageError
    from pipeline.reports.server import PageServer, pages

    if not pages(folder):
        raise UsageError(
            f"{folder}: holds no page, expected a folder of results or a report; make them without --no-page"
        )
    try:
        server = PageServer(folder, port)
    except OSError as error:
        raise UsageError(f"--port {port}: cannot be served on ({error.strerror}); choose another") from error
    with server:
        say(f"{server.url} shows {folder}; Ctrl-C ends it", always=True)
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt as stop:
            if type(stop) is not KeyboardInterrupt:  # stopped from outside, by SIGTERM
                raise
