"""What `python -m monai.bundle` needs to run an exported network alone: MONAI's own parts, nothing of this package."""

from collections.abc import Mapping
from typing import Any

# Of what a folder with an exported network needs beside MONAI's own requirements.
NEEDED = ("nibabel", "pytorch-ignite")


def inference_config(kind: str, data_format: Mapping[str, Any], shape: tuple[int, ...], weights: str) -> dict[str, Any]:
    """A config with which `monai.bundle run` applies an exported network to images that are prepared for it.

    The images lie on the network's grid, in the range of values that metadata name: NIfTI volumes whose last axis
    counts slices, with channels behind it where there are several. Of a scorer the answer is the mean over slices; a
    sampler's noise is drawn.

    Args:
        kind: of the predictor, one of `pipeline.bundles.COMMANDS`.
        data_format: of the network, in the words of MONAI's metadata.
        shape: of a batch of what the network takes, images (B, C, H, W) or noise (B, N).
        weights: file of the TorchScript module, from the bundle's root.
    """
    reads_images = len(shape) == 4
    classes = data_format["outputs"]["pred"]["type"] == "classification"
    return {
        "imports": ["$import glob", "$import monai", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "torch.jit.load",
            "f": f"$@bundle_root + '/{weights}'",
            "map_location": "@device",
        },
        **(_volumes() if reads_images else _noise(shape[1])),
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": _inferer(kind, reads_images, classes),
        **(_table() if kind == "scorer" else _images(reads_images)),
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
        "finalize": [],
    }


def _volumes() -> dict[str, Any]:
    return {
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii*'))]",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
    }


def _noise(length: int) -> dict[str, Any]:
    return {
        "count": 16,
        "seed": 0,
        "noise": f"$torch.randn(@count, {length}, generator=torch.Generator().manual_seed(@seed))",
        "dataset": {"_target_": "Dataset", "data": "$[{'image': noise} for noise in @noise]"},
    }


def _inferer(kind: str, reads_images: bool, classes: bool) -> Any:
    if not reads_images:
        return {"_target_": "SimpleInferer"}
    if kind == "scorer":
        scores = "network(volume[0].movedim(-1, 0))" + (".softmax(1)" if classes else "")
        return f"$lambda volume, network: {scores}.mean(0, keepdim=True)"
    # A window of -1 pixels is the whole slice.
    return {"_target_": "SliceInferer", "roi_size": [-1, -1], "spatial_dim": 2, "sw_batch_size": 4}


def _images(volumes: bool) -> dict[str, Any]:
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "pred",
        # MONAI's writer fails where it is to leave alone what has no scan behind it; nothing is resampled here.
        "resample": not volumes,
        "separate_folder": False,
    }
    # It wants a third axis, and to be told of it.
    as_volume = "$lambda image: monai.data.MetaTensor(image[..., None], meta={'spatial_shape': (*image.shape[1:], 1)})"
    slices = {"_target_": "Lambdad", "keys": "pred", "func": as_volume}
    return {
        "handlers": [],
        "postprocessing": {"_target_": "Compose", "transforms": [save] if volumes else [slices, save]},
    }


def _table() -> dict[str, Any]:
    return {
        "postprocessing": None,
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
                "output_transform": "$lambda output: [item['pred'] for item in output]",
            }
        ],
    }
