"""mmseg's data set of images and label maps, for folders as people have them.

Configs that need it import this module; it imports mmseg, which the rest of
the package does without.
"""

import os
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .findings import DatasetError, Finding, listing, raise_errors
from .images import SUFFIXES, Folder, ImageSize, may_be_one, read_sizes
from .loading import LoadedAsAnnotated


@DATASETS.register_module()
class CustomSegDataset(LoadedAsAnnotated, BaseSegDataset):
    """``BaseSegDataset`` that finds images whatever their suffix is.

    Suffixes may be mixed and in capitals, names of a split list may have
    suffixes, folders, backslashes and Windows line ends. Photos that EXIF
    turns are loaded as their label map is.

    Args:
        img_suffix (str, optional): Suffix of the images. Defaults to None:
            any that OpenCV reads.
        **kwargs: Of ``BaseSegDataset``.

    Attributes:
        findings (list[Finding]): What was found.

    Raises:
        DatasetError: If an image has no label map, or one of another size.
    """

    def __init__(self, *, img_suffix: str | None = None, **kwargs) -> None:
        self.findings: list[Finding] = []
        super().__init__(img_suffix=img_suffix, **kwargs)
        # mmseg's own tools read the classes there.
        self.METAINFO = self.metainfo

    def load_data_list(self) -> list[dict]:
        """List the images with their label maps."""
        images = self._folder('img_path', self.img_suffix)
        names = self._listed(images) if self.ann_file else images.names
        if not names:
            suffix = self.img_suffix or f'({listing(SUFFIXES, 9)})'
            raise DatasetError(f'{images.path} has no images {suffix}')
        data_list = [
            dict(
                img_path=str(images.path / name),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for name in names
        ]
        if self.data_prefix.get('seg_map_path') is not None:
            self._add_maps(data_list, names)
            raise_errors(self.findings)
        return data_list

    def _folder(self, prefix: str, suffix: str | None) -> Folder:
        path = self.data_prefix[prefix]
        if not os.path.isdir(path):
            raise DatasetError(f'data_prefix.{prefix}: {path} is no folder')
        return Folder(path, (suffix.lower(),) if suffix else SUFFIXES)

    def _listed(self, images: Folder) -> list[str]:
        """The images of the split list."""
        lines = Path(self.ann_file).read_text('utf-8-sig').splitlines()
        names = [line.strip().replace('\\', '/') for line in lines]
        endings = ('', self.img_suffix) if self.img_suffix else ('', *SUFFIXES)
        found = {}
        for name in filter(None, names):
            spelt = (images.find(name + ending) for ending in endings)
            found[name] = next(filter(None, spelt), None)
        missing = [name for name, image in found.items() if image is None]
        if missing:
            raise DatasetError(
                f'{len(missing)} of the {len(found)} images of '
                f'{self.ann_file} are missing in {images.path}: '
                f'{listing(missing)}'
            )
        present = {n: image for n, image in found.items() if image is not None}
        listed: dict[str, str] = {}
        for name, image in present.items():
            other = listed.setdefault(image, name)
            if not may_be_one(name, other):
                raise DatasetError(
                    f'{self.ann_file} lists {other} and {name}, and both '
                    f'would be {images.path / image}: set data_prefix so '
                    'that the images lie in the folders that are listed'
                )
        return list(present.values())

    def _add_maps(self, data_list: list[dict], names: list[str]) -> None:
        maps = self._folder('seg_map_path', self.seg_map_suffix)
        missing = []
        for data_info, name in zip(data_list, names):
            stem = os.path.splitext(name)[0]
            found = maps.find(stem + self.seg_map_suffix)
            if found is None:
                missing.append(name)
            else:
                data_info['seg_map_path'] = str(maps.path / found)
        if missing:
            self._found(
                'missing_map',
                f'{len(missing)} of the {len(names)} images of '
                f'{self.data_prefix["img_path"]} have no label map in '
                f'{maps.path}: {listing(missing)}',
                len(missing),
            )
            return
        shared = len(data_list) - len({d['seg_map_path'] for d in data_list})
        if shared:
            self._found(
                'shared_map',
                f'{shared} images of {self.data_prefix["img_path"]} have the '
                'label map of another image, whose name differs in the '
                'suffix alone. Rename them',
                shared,
            )
        self._compare_sizes(data_list)

    def _compare_sizes(self, data_list: list[dict]) -> None:
        """Find broken files, and maps of another size than their image."""
        paths = [d[n] for d in data_list for n in ('img_path', 'seg_map_path')]
        sizes = read_sizes(paths)
        broken = [f'{p} ({s})' for p, s in sizes.items() if isinstance(s, str)]
        if broken:
            self._found(
                'broken_image',
                f'{len(broken)} files cannot be read: {listing(broken)}. '
                'Replace them, or take them out',
                len(broken),
            )
            return
        turned, other = [], []
        for data_info in data_list:
            image, labels = (
                sizes[data_info[n]] for n in ('img_path', 'seg_map_path')
            )
            assert isinstance(image, ImageSize)
            assert isinstance(labels, ImageSize)
            name = data_info['seg_map_path']
            if labels.stored == (image.width, image.height):
                continue
            if image.turned and labels.stored == image.stored:
                data_info['turned'] = True
                turned.append(name)
            else:
                other.append(
                    f'{name} is {labels.width}x{labels.height}, its image '
                    f'{image.width}x{image.height}'
                )
        if other:
            self._found(
                'map_size',
                f'{len(other)} label maps are of another size than their '
                f'image: {listing(other)}. Export them at the size of the '
                'image',
                len(other),
            )
        if turned:
            self.turned = True
            self._found(
                'exif',
                f'{len(turned)} photos are turned by EXIF and their label '
                'maps are not; they are loaded as the maps are: '
                f'{listing(turned)}',
                len(turned),
                'info',
            )

    def _found(
        self, kind: str, message: str, count: int, severity: str = 'error'
    ) -> None:
        self.findings.append(
            Finding(
                severity,
                kind,
                message,
                file=str(self.data_prefix['seg_map_path']),
                count=count,
            )
        )
