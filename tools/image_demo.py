"""Draw what a model finds in images, a video or a webcam."""

import argparse
import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from rich.progress import track
from torch import nn

from mmmamba.deploy import deploy_model
from mmmamba.utils.cli import (
    CheckpointParser,
    UsageError,
    add_cfg_options,
    add_deploy_options,
    check_checkpoint,
    deploy_dtype,
    load_config,
    run_tool,
    torch_device,
)
from mmmamba.utils.pictures import (
    PictureError,
    add_max_size,
    draw_fast,
    fit,
    read_image,
)
from mmmamba.utils.trained_model import load_trained

# What a drawing can be written as; of other formats it is a .png.
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


def parse_args() -> argparse.Namespace:
    parser = CheckpointParser(description=__doc__)
    parser.add_argument(
        'image',
        metavar='IMAGE',
        help='image file, folder of images (of which hidden files are left '
        'out), video file, or the number of a webcam, which is read until '
        'Ctrl-C',
    )
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs'),
        help='where the drawings go, under the names of the inputs, with '
        '.png behind formats that are not written (default: outputs)',
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
        help='opacity of drawn label maps (default: 0.5)',
    )
    add_max_size(parser)
    parser.add_argument(
        '--device',
        type=torch_device,
        default='cuda:0' if torch.cuda.is_available() else 'cpu',
        help='default: the first GPU if there is one',
    )
    add_deploy_options(parser, 'drawings')
    add_cfg_options(parser)
    args = parser.parse_args()
    if not 0 <= args.opacity <= 1:
        parser.error('--opacity lies between 0 and 1')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    check_checkpoint(args.checkpoint)
    images, video = find_input(args.image)
    targets = [args.out_dir / name for name in names_of_drawings(images)]
    if video is not None:
        targets = [args.out_dir / f'{Path(args.image).stem}.mp4']
    inputs = [path.resolve() for path in images or [Path(args.image)]]
    if any(t.resolve() in inputs for t in targets):
        raise UsageError(
            f'the drawings would overwrite the input; --out-dir {args.out_dir}'
            ' must be another folder'
        )
    draw = make_drawer(cfg, args)
    args.out_dir.mkdir(parents=True, exist_ok=True)

    if video is not None:
        size = fit(video.width, video.height, args.max_size)
        count = write_video(targets[0], video, size, draw)
        print(f'{count} frames drawn in {targets[0]}')
    else:
        draw_images(images, targets, draw)


def find_input(name: str) -> tuple[list[Path], mmcv.VideoReader | None]:
    """Find the images that are meant, or else open the video."""
    path = Path(name)
    if name.isdigit() and not path.exists():
        path = Path(f'/dev/video{name}')
    if not path.exists():
        raise UsageError(f'there is no image, folder or video {path}')
    if path.is_dir():
        files = [f for f in path.iterdir() if f.is_file()]
        images = sorted(f for f in files if not f.name.startswith('.'))
        if not images:
            raise UsageError(f'the folder {path} holds no images')
        return images, None
    if path.suffix.lower() not in VIDEOS and not path.is_char_device():
        return [path], None
    video = mmcv.VideoReader(str(path))
    if not video.opened or video.width == 0:
        raise UsageError(f'{path} is not a video that OpenCV reads')
    return [], video


def names_of_drawings(images: list[Path]) -> list[str]:
    """A name for each; no two are the same, as those of the images."""
    names: list[str] = []
    taken = {path.name for path in images}
    for path in images:
        name = path.name
        if path.suffix.lower() not in IMAGES:
            name += '.png'
            while name in taken:
                name += '.png'
            taken.add(name)
        names.append(name)
    return names


def draw_images(
    images: list[Path],
    targets: list[Path],
    draw: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Draw what can be read, and then name what cannot."""
    count, passed_over, failed = 0, [], []
    for path, target in zip(track(images, 'Drawing'), targets):
        try:
            image = read_image(path)
        except PictureError as error:
            kind = mimetypes.guess_type(path)[0] or 'image/unknown'
            if kind.startswith('image/') or len(images) == 1:
                failed.append(f'{path} ({error})')
            else:
                passed_over.append(f'{path} ({kind})')
            continue
        try:
            mmcv.imwrite(draw(image), str(target))
        except cv2.error as error:
            height, width = image.shape[:2]
            failed.append(
                f'{path} ({width}x{height} px: OpenCV cannot resize or write '
                f'it, {error.err}; strips that long want cutting)'
            )
            continue
        # Heads and visualizers stumble over sizes such as 1x1; the other
        # images are drawn all the same.
        except Exception as error:  # noqa: BLE001
            failed.append(f'{path} ({type(error).__name__}: {error})')
            continue
        count += 1
    if count:
        print(f'{count} images drawn in {targets[0].parent}')
    if passed_over:
        print(f'passed over, no images: {", ".join(passed_over)}')
    if failed:
        raise UsageError(f'not drawn: {", ".join(failed)}')
    if not count:
        raise UsageError(f'the folder {images[0].parent} holds no images')


def make_drawer(
    cfg: Config, args: argparse.Namespace
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that draws what the model finds in a BGR image."""
    model = load_trained(cfg, args.checkpoint, args.device)
    if dtype := deploy_dtype(args):
        deploy_model(model, dtype)
    if cfg.default_scope == 'mmpretrain':
        return make_writer(model, args.max_size)
    if cfg.default_scope == 'mmdet':
        from mmdet.apis import inference_detector as predict

        options = dict(pred_score_thr=args.score_thr)
    else:
        from mmseg.apis import inference_model as predict

        cfg.visualizer.alpha = args.opacity
        options = {}
    cfg.visualizer.save_dir = str(args.out_dir)
    visualizer = VISUALIZERS.build({**cfg.visualizer, 'vis_backends': None})
    visualizer.dataset_meta = model.dataset_meta
    draw_fast(visualizer, args.max_size)

    def draw(image: np.ndarray) -> np.ndarray:
        visualizer.add_datasample(
            'image',
            image[..., ::-1],
            predict(model, image),
            draw_gt=False,
            show=False,
            **options,
        )
        return visualizer.get_image()[..., ::-1]

    return draw


def make_writer(
    model: nn.Module, max_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that writes the class of a BGR image into it."""
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    inferencer = ImageClassificationInferencer(model)
    visualizer = UniversalVisualizer()
    classes = model.dataset_meta.get('classes')

    def draw(image: np.ndarray) -> np.ndarray:
        # Not by calling it, which shows a progress bar for each image.
        (batch,) = inferencer.preprocess([image])
        (found,) = inferencer.forward(batch)
        height, width = image.shape[:2]
        small = mmcv.imresize(image, fit(width, height, max_size))
        drawn = visualizer.visualize_cls(
            small[..., ::-1], found, classes, draw_gt=False
        )
        return drawn[..., ::-1]

    return draw


def write_video(
    file: Path,
    video: mmcv.VideoReader,
    size: tuple[int, int],
    draw: Callable[[np.ndarray], np.ndarray],
) -> int:
    """Draw every frame; returns how many there were."""
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(file), codec, video.fps or 25, size)
    if not writer.isOpened():
        raise UsageError(f'OpenCV cannot write the video {file}')
    total = len(video) if len(video) > 0 else None  # a webcam has no end
    count = 0
    try:
        for frame in track(frames(video), 'Drawing', total):
            writer.write(np.ascontiguousarray(draw(frame)))
            count += 1
    except KeyboardInterrupt:
        if total is not None:
            raise
    finally:
        writer.release()
    return count


def frames(video: mmcv.VideoReader) -> Iterator[np.ndarray]:
    """The frames in order; a webcam cannot be rewound, as iterating does."""
    while (frame := video.read()) is not None:
        yield frame


if __name__ == '__main__':
    run_tool(main)
