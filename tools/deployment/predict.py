"""Draw what an exported model finds in images. Needs no PyTorch.

numpy, Pillow, and ONNX Runtime or OpenVINO are enough; with OpenCV the pixels
are those of training.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=Path, help='.onnx or .xml file')
    parser.add_argument(
        'image',
        type=Path,
        nargs='+',
        metavar='IMAGE',
        help='image files, or folders of them',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs'),
        help='where the drawings go, under the names of the inputs (default: '
        'outputs)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score of a drawn object (default: 0.3)',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        help='opacity of masks and label maps (default: 0.5)',
    )
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='write boxes, scores and labels there, by image',
    )
    parser.add_argument(
        '--threads', type=int, help='default: as many as there are cores'
    )
    args = parser.parse_args()
    if args.threads is not None and args.threads < 1:
        parser.error('--threads must be at least 1')
    if not 0 <= args.opacity <= 1:
        parser.error('--opacity lies between 0 and 1')
    return args


def main() -> int:
    args = parse_args()
    # Where PyTorch is installed, it takes seconds to import, for nothing.
    sys.modules['torch'] = None  # type: ignore[assignment]
    from mmmamba.deploy import ExportedModel
    from mmmamba.deploy.drawing import draw

    try:
        images = find_images(args.image)
        targets = name_drawings(images, args.out_dir)
        model = ExportedModel(args.model, args.threads)
        args.out_dir.mkdir(parents=True, exist_ok=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text('{}')
    except (OSError, ImportError, ValueError) as error:
        return fail(error)
    if model.facts.task == 'features':
        return fail(f'{args.model} ends in feature maps: nothing to draw')
    unreadable, found = [], {}
    for target, path in track(
        targets.items(), 'Drawing', disable=len(images) == 1
    ):
        try:
            image = read(path)
        except (
            *(OSError, SyntaxError, ValueError),
            Image.DecompressionBombError,
        ) as error:
            unreadable.append(f'{path} ({error})')
            continue
        try:
            result = model.predict(image)
        except ValueError as error:
            return fail(error)
        found[str(path)] = {
            name: value.tolist()
            for name, value in result.items()
            if name in ('boxes', 'scores', 'labels')
        }
        picture = draw(
            image, result, model.facts, args.score_thr, args.opacity
        )
        drawing = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
        try:
            drawing.save(target)
        except OSError as error:
            return fail(error)
    if args.json:
        args.json.write_text(json.dumps(found))
    print(f'{len(found)} images drawn in {args.out_dir}')
    if unreadable:
        return fail(f'not readable as images: {", ".join(unreadable)}')
    return 0


def find_images(paths: list[Path]) -> list[Path]:
    """The files that are named, and those in folders."""
    images = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file())
            images += [p for p in inside if not p.name.startswith('.')]
        elif path.is_file():
            images.append(path)
        else:
            raise FileNotFoundError(f'there is no image or folder {path}')
    if not images:
        raise FileNotFoundError(f'{paths[0]} holds no images')
    return images


def name_drawings(images: list[Path], folder: Path) -> dict[Path, Path]:
    """The files to draw, and the image of each."""
    targets: dict[Path, Path] = {}
    for path in images:
        target = folder / path.name
        if target.suffix.lower() not in ('.jpg', '.jpeg', '.png', '.bmp'):
            target = target.with_name(f'{path.name}.png')
        if target.resolve() == path.resolve():
            raise ValueError(
                f'the drawing would overwrite {path}; see --out-dir'
            )
        if target in targets:
            raise ValueError(
                f'{targets[target]} and {path} would both be drawn to '
                f'{target}; draw them apart, see --out-dir'
            )
        targets[target] = path
    return targets


def read(path: Path) -> np.ndarray:
    """Read an image as BGR, turned as its EXIF data say."""
    try:
        import cv2
    except ImportError:
        pass
    else:
        data = np.fromfile(path, np.uint8)
        image = None
        if data[8:12].tobytes() != b'WEBP':  # OpenCV leaves those unturned
            with contextlib.suppress(cv2.error):  # it is empty or too large
                image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is not None:
            return image
    with Image.open(path) as opened:
        if opened.mode.startswith('I'):  # 16 bits, which Pillow would clip
            pixels = np.asarray(ImageOps.exif_transpose(opened)) // 256
            return np.stack([pixels.astype(np.uint8)] * 3, -1)
        rgb = ImageOps.exif_transpose(opened).convert('RGB')
    return np.ascontiguousarray(np.asarray(rgb)[..., ::-1])


def fail(reason) -> int:
    """Say in one line what went wrong."""
    print(f'predict.py: error: {reason}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
