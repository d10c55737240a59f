"""The rows of reproduce.py and its command line."""

import argparse
from pathlib import Path

import torch
from encoders import ARCHITECTURES, INITS

CCD = {"method": "ccd", "strong": "permutation"}
ROWS: dict[str, dict] = {
    "start": {},  # the start encoder itself, as it is: random or ImageNet
    "start-calibrated": {},  # with batch-norm statistics of the healthy images, which pre-training ends with, too
    "ccd": CCD,  # Table 3, first row
    "ccd+medmix": CCD | {"strong": "medmix"},
    "msacl-no-kappa": {"alpha": 1.0},  # MedMix + MSACL loss, without eq. (7)
    "msacl": {},
    "msacl-rotation": {"strong": "rotation"},  # Fig. 6, left
    "msacl-permutation": {"strong": "permutation"},
    "msacl-cutmix": {"strong": "cutmix"},
    "msacl-noise": {"strong": "noise"},
}


START_ROWS = ("start", "start-calibrated")


def parse_args(description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="only print the tables of this CSV")
    parser.add_argument("--data", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["start", "ccd", "msacl"])
    parser.add_argument("--detectors", nargs="+", choices=("padim", "igd"), default=["padim"])
    parser.add_argument("--test-set", choices=("real", "drawn", "medmix"), default="real")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--init", choices=INITS, default="random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--igd-epochs", type=int, default=256)
    parser.add_argument("--igd-width", type=float, default=1.0)
    parser.add_argument("--igd-lr", type=float, default=1e-4)
    parser.add_argument("--igd-scales", choices=("global", "local", "both"), default="both")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other options of pretrain.py")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.table is not None and not args.table.is_file():
        parser.error(f"--table expects a CSV file; there is none at {args.table}")
    if min(args.epochs, args.seeds, args.batch_size) < 1:
        parser.error("expected --epochs, --seeds and --batch-size of at least 1")
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def check_folders(folders: list[Path]) -> None:
    """Stop before anything runs if a data set is missing or two share the name that they have in the CSV."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing or not folders:
        raise SystemExit(f"--data expects one or more folders; not found: {', '.join(missing) or 'none was given'}")
    if len({folder.resolve().name for folder in folders}) < len(folders):
        raise SystemExit("--data expects folders of different names, which tell the sets apart in the CSV: rename one")


def read_settings(texts: list[str]) -> dict[str, object]:
    """Options of `Config` given as name=value, but those that have a flag here or belong to a row."""
    free = ("lr", "temperature", "lesion_min", "lesion_max", "crop_min", "centring_weight")
    pairs = [text.partition("=")[::2] for text in texts]
    unknown = [name for name, value in pairs if name not in free or not value]
    if unknown:
        raise SystemExit(f"--set expects name=value with a name of {', '.join(free)}, got {', '.join(unknown)}")
    try:
        return {name: float(value) for name, value in pairs}
    except ValueError as error:
        raise SystemExit(f"--set expects numbers: {error}") from error
