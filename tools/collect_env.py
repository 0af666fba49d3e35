"""Print the environment: mmengine's report, and what mmmamba adds to it."""

import argparse

from mmengine.utils.dl_utils import collect_env

import mmmamba
from mmmamba.openmmlab.versions import installed_packages
from mmmamba.ops import available_backends, describe_backends


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    report = dict(collect_env())
    report['mmmamba'] = f'{mmmamba.__version__} ({mmmamba.__path__[0]})'
    for name, (distribution, version) in installed_packages().items():
        report[name] = (
            f'{version} ({distribution})' if version else 'not installed'
        )
    for backend, available in available_backends().items():
        report[f'selective scan, {backend}'] = (
            'available' if available else 'not available'
        )
    for device, words in describe_backends().items():
        report[f'selective scan on {device}'] = words
    for name, value in report.items():
        print(f'{name}: {value}')


if __name__ == '__main__':
    main()
