"""Score a folder of new images with a detector of train_padim.py or train_igd.py.

    python examples/predict.py --model padim.pt --images DIR --out OUT

Writes OUT/scores.csv (highest score first), OUT/overlays and OUT/report.html, one page that needs no network. The
images (sub-folders included) are resized and scaled as those that the detector was fitted on.
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.utils import save_image
from tqdm import tqdm

from detectors import ImageFiles, load, map_limits, overlay, write_report

sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", type=Path, required=True, help="file of train_padim.py or train_igd.py")
parser.add_argument("--images", type=Path, required=True, help="folder of images, sub-folders included")
parser.add_argument("--out", type=Path, required=True, help="folder for the results")
parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"

detector = load(args.model).to(device)
images = ImageFiles.like(args.images, detector.metadata)
print(images.summary())

scores, maps = [], []
with torch.inference_mode():
    for batch in tqdm(DataLoader(images, args.batch_size), desc="scoring", leave=False):
        prediction = detector(batch.to(device))
        scores.append(prediction.pred_score.float().cpu())
        maps.append(prediction.anomaly_map.float().cpu())
scores, maps = torch.cat(scores), torch.cat(maps)

threshold, pixel_threshold = detector.image_threshold, detector.pixel_threshold
threshold = None if threshold is None else float(threshold)
pixel_threshold = None if pixel_threshold is None else float(pixel_threshold)
limits = map_limits(maps, pixel_threshold)
names, order = images.names, scores.argsort(descending=True).tolist()

(args.out / "overlays").mkdir(parents=True, exist_ok=True)
with open(args.out / "scores.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["file", "score", "above_threshold"])
    for i in order:
        table.writerow([names[i], float(scores[i]), "" if threshold is None else int(scores[i] > threshold)])

for i in tqdm(order, desc="drawing", leave=False):
    picture = args.out / "overlays" / f"{names[i]}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_image(overlay(images.thumbnail(i, 512), maps[i], limits), picture)

thumbnails = (images.thumbnail(i) for i in range(len(images)))
kind = type(detector).__name__
title, notes = f"{kind} scores of {args.images.name}", [images.summary()]
write_report(
    args.out / "report.html",
    names,
    thumbnails,
    scores,
    maps,
    threshold=threshold,
    pixel_threshold=pixel_threshold,
    title=title,
    notes=notes,
)
for i in order[:5]:
    print(f"{scores[i]:10.4g}  {names[i]}")
if threshold is not None:
    print(f"{int((scores > threshold).sum())} of {len(images)} images are above the threshold {threshold:.4g}")
print(f"see {args.out / 'report.html'}")
